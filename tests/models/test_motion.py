"""Keypoints with affine matrices: transfer, hulls and Eq. 1."""

import math

import numpy as np
import pytest
import torch
from golden import close, tensors
from hypothesis import given
from hypothesis import strategies as st

from mtanimate.geometry import coordinate_grid
from mtanimate.models.motion import (
    Motion,
    convex_hull_area,
    movement_scale,
    sparse_motions,
    transfer_relative,
)

coordinates = st.floats(-1, 1, width=32)
clouds = st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=12).map(np.array)


def random_motion(batch, parts, seed=0):
    generator = torch.Generator().manual_seed(seed)
    keypoints = torch.rand(batch, parts, 2, generator=generator) * 2 - 1
    affine = torch.eye(2) + 0.2 * torch.randn(batch, parts, 2, 2, generator=generator)
    return Motion(keypoints, affine)


def still(keypoints):
    points = torch.as_tensor(keypoints, dtype=torch.float32)[None]
    return Motion(points, torch.eye(2).expand(1, points.shape[1], 2, 2))


# Hulls


@pytest.mark.parametrize(
    ("points", "area"),
    [
        ([(0, 0), (1, 0), (0, 1)], 0.5),
        ([(-1, -1), (1, -1), (1, 1), (-1, 1), (0, 0), (0.5, -0.2)], 4),
        ([(0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2)], 3.5),  # an L: the hull cuts its corner
        ([(0, 0), (1, 0), (1, 0), (0, 1), (0, 1), (0.5, 0.5)], 0.5),  # doubled, and one on an edge
        ([(math.cos(a), math.sin(a)) for a in np.arange(6) * math.pi / 3], 1.5 * math.sqrt(3)),
    ],
    ids=["triangle", "square", "L", "doubled", "hexagon"],
)
def test_hull_area_of_known_polygons(points, area):
    assert convex_hull_area(np.array(points, dtype=float)) == pytest.approx(area, rel=1e-12)


@pytest.mark.parametrize(
    "points",
    [
        np.zeros((0, 2)),
        np.array([[0.3, 0.1]]),
        np.array([[0.3, 0.1], [0.5, -0.7]]),
        np.full((5, 2), 0.25),
        np.array([[0, 0], [1, 1], [0, 0], [1, 1.0]]),
    ],
    ids=["none", "one", "two", "all equal", "two doubled"],
)
def test_hull_of_fewer_than_three_distinct_points_is_empty(points):
    assert convex_hull_area(points) == 0


def test_hull_of_collinear_points_is_empty():
    line = np.arange(-4, 5) / 4
    assert convex_hull_area(np.stack([line, -line], axis=1)) == 0
    assert convex_hull_area(np.stack([line, np.full(9, 0.5)], axis=1)) == 0


@given(points=clouds, x=st.floats(-2, 2), y=st.floats(-2, 2))
def test_hull_area_does_not_change_by_a_translation(points, x, y):
    assert convex_hull_area(points + np.array([x, y])) == pytest.approx(convex_hull_area(points), abs=1e-12)


@given(points=clouds, scale=st.floats(0.1, 10))
def test_hull_area_grows_with_the_square_of_the_size(points, scale):
    expected = scale**2 * convex_hull_area(points)
    assert convex_hull_area(points * scale) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(points=clouds, data=st.data())
def test_hull_area_does_not_depend_on_the_order(points, data):
    shuffled = points[data.draw(st.permutations(range(len(points))))]
    assert convex_hull_area(shuffled) == convex_hull_area(points)


@given(points=clouds)
def test_hull_contains_each_triangle_and_fits_in_the_box(points):
    area = convex_hull_area(points)
    (ax, ay), (bx, by), (cx, cy) = points[:3]
    assert area >= abs((bx - ax) * (cy - ay) - (by - ay) * (cx - ax)) / 2 - 1e-12
    assert area <= np.prod(np.ptp(points, axis=0)) + 1e-12


# Movement scale


def test_scale_is_the_ratio_of_sizes():
    triangle = np.array([[0, 0], [0.5, 0], [0, 0.5]])
    assert movement_scale(still(3 * triangle), still(triangle + 0.1)) == pytest.approx(3, rel=1e-6)


def test_scale_is_one_where_the_reference_lies_on_a_line():
    line = np.array([[-0.5, -0.5], [0, 0], [0.25, 0.25]])
    assert movement_scale(random_motion(1, 3), still(line)) == 1


def test_scale_is_one_where_the_reference_lies_on_a_line_up_to_rounding():
    x = np.linspace(-0.5, 0.6, 10)
    assert movement_scale(random_motion(1, 10), still(np.stack([x, 0.3 * x + 0.1], axis=1))) == 1


# Transfer


def test_transfer_at_the_reference_returns_the_source():
    source, reference = random_motion(1, 6, seed=1), random_motion(1, 6, seed=2)
    moved = transfer_relative(source, reference, reference, scale=1.7)
    assert torch.equal(moved.keypoints, source.keypoints)
    close(moved.affine, source.affine, atol=1e-5)


def test_transfer_by_hand():
    """The driver turned by 90 degrees and moved by (0.1, -0.2); the source is stretched along x."""
    reference = still([(0.3, 0.3)])
    turn = torch.tensor([[0.0, -1], [1, 0]])
    driving = Motion(torch.tensor([[[0.4, 0.1]]]), turn[None, None])
    source = Motion(torch.zeros(1, 1, 2), torch.tensor([[[[2.0, 0], [0, 1]]]]))
    moved = transfer_relative(source, driving, reference, scale=2)
    close(moved.keypoints, torch.tensor([[[0.2, -0.4]]]), atol=1e-6)
    close(moved.affine, torch.tensor([[[[0.0, -1], [2, 0]]]]), atol=1e-6)


def test_transfer_of_a_batch_is_that_of_each():
    source, reference, driving = random_motion(1, 4, 1), random_motion(1, 4, 2), random_motion(5, 4, 3)
    moved = transfer_relative(source, driving, reference, 0.8)
    assert len(moved) == 5
    for index in range(5):
        one = transfer_relative(source, driving[index : index + 1], reference, 0.8)
        close(moved.keypoints[index], one.keypoints[0], atol=1e-7)
        close(moved.affine[index], one.affine[0], atol=1e-6)


def test_slicing_and_rolling_keep_keypoints_and_matrices_together():
    motion = random_motion(4, 3)
    rolled = motion.roll(1)
    assert torch.equal(rolled[:1].keypoints, motion[3:].keypoints)
    assert torch.equal(rolled[1:].affine, motion[:3].affine)
    assert motion.to(torch.float64).affine.dtype == torch.float64


# Eq. 1


def test_sparse_motions_by_a_plain_loop():
    source, driving = random_motion(2, 3, 1), random_motion(2, 3, 2)
    grid = coordinate_grid(4, 5, source.keypoints)
    expected = torch.empty(2, 3, 4, 5, 2)
    for b, k, y, x in np.ndindex(2, 3, 4, 5):
        matrix = source.affine[b, k] @ torch.linalg.inv(driving.affine[b, k])
        expected[b, k, y, x] = matrix @ (grid[y, x] - driving.keypoints[b, k]) + source.keypoints[b, k]
    close(sparse_motions(source, driving, grid), expected, atol=1e-5)


def test_sparse_motions_send_each_driving_keypoint_to_its_source_keypoint():
    source, driving = random_motion(1, 3, 1), random_motion(4, 3, 2)
    for k in range(3):
        for b in range(4):
            grid = driving.keypoints[b, k].view(1, 1, 2)
            found = sparse_motions(source, driving, grid)[b, k, 0, 0]
            close(found, source.keypoints[0, k], atol=1e-6)


def test_sparse_motions_of_a_motion_to_itself_are_the_identity():
    motion = random_motion(2, 5)
    grid = coordinate_grid(6, 4, motion.keypoints)
    close(sparse_motions(motion, motion, grid), grid.expand(2, 5, 6, 4, 2), atol=1e-5)


# Against stored numbers


@pytest.mark.parametrize("adapt", [0, 1])
@pytest.mark.parametrize("case", [0, 1, 2])
def test_relative_transfer(case, adapt):
    arrays = tensors("relative_transfer.npz")
    assert arrays["cases"] == 3
    source, initial, driving = (
        Motion(arrays[f"{case}_{name}_value"], arrays[f"{case}_{name}_jacobian"])
        for name in ("source", "initial", "driving")
    )
    for motion, name in ((source, "source"), (initial, "initial")):
        area = convex_hull_area(motion.keypoints[0].numpy())
        assert area == pytest.approx(arrays[f"{case}_area_{name}"].item(), rel=1e-6)
    scale = movement_scale(source, initial) if adapt else 1.0
    moved = transfer_relative(source, driving, initial, scale)
    prefix = f"{case}_out_move1_jac1_adapt{adapt}"
    close(moved.keypoints, arrays[f"{prefix}_value"])
    close(moved.affine, arrays[f"{prefix}_jacobian"])
