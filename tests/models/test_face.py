"""The points of a face: its own coordinates, tokens tied to them, masks that begin about them, motion between faces."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtanimate.animation.retargeting import face_distances, own_coordinates, transfer_face
from mtanimate.config import load_preset
from mtanimate.config.model import FACE_POINTS
from mtanimate.faces.mesh import VERTICES as MESH_VERTICES
from mtanimate.geometry import sample
from mtanimate.models.animator import Animator
from mtanimate.models.face_dense_motion import SIGMAS, FaceDenseMotionNetwork
from mtanimate.models.face_points import (
    COUNT,
    PLACES,
    RIGID,
    SKULL,
    VERTICES,
    canonical_points,
    face_frame,
    token_indices,
)
from mtanimate.models.keypoint_refinement import KeypointRefinement
from mtanimate.models.losses.face import token_landmark_loss
from mtanimate.models.motion import Motion


def affine(turn: float = 0.0, size: float = 0.5, squeeze: float = 1.0) -> torch.Tensor:
    cosine, sine = math.cos(turn), math.sin(turn)
    return size * torch.tensor([[cosine * squeeze, -sine], [sine * squeeze, cosine]])


def face(matrix: torch.Tensor | None = None, at: tuple[float, float] = (0.1, -0.2), **moved: tuple) -> Motion:
    """A face whose points lie at their usual places, but for those that are `moved`, v13=(x, y) in its own units."""
    matrix = affine() if matrix is None else matrix
    own = canonical_points().clone()
    for vertex, (x, y) in moved.items():
        own[VERTICES.index(int(vertex[1:]))] += torch.tensor([x, y])
    points = own @ matrix.T + torch.tensor(at)
    return Motion(points[None], matrix.expand(1, COUNT, 2, 2), kind="face")


def opening(motion: Motion, upper: int, lower: int) -> float:
    own = own_coordinates(motion)[0]
    return (own[VERTICES.index(lower)] - own[VERTICES.index(upper)]).norm().item()


@pytest.fixture(scope="module")
def network() -> Animator:
    torch.manual_seed(0)
    return Animator(load_preset("face").model).eval()


def test_the_table_is_whole():
    assert len(PLACES) == COUNT == FACE_POINTS == load_preset("face").model.num_keypoints == len(SIGMAS)
    assert len(set(VERTICES)) == COUNT
    assert max(VERTICES) < MESH_VERTICES
    assert set(RIGID) <= set(VERTICES)


def test_the_face_is_symmetric():
    mirrored = canonical_points() * torch.tensor([-1.0, 1.0])
    apart = torch.cdist(mirrored, canonical_points()).amin(dim=1)
    assert apart.max() < 0.01


@given(st.floats(-0.6, 0.6), st.floats(0.1, 1), st.floats(0.5, 1.5), st.floats(-1, 1), st.floats(-1, 1))
@settings(max_examples=50, deadline=None)
@pytest.mark.parametrize("vertices", [RIGID, tuple(SKULL)])
def test_the_frame_of_a_face_is_found(vertices, turn, size, squeeze, x, y):
    matrix = affine(turn, size, squeeze)
    found, origin = face_frame(face(matrix, (x, y)).keypoints, vertices)
    torch.testing.assert_close(found[0], matrix, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(origin[0], torch.tensor([x, y]), atol=1e-5, rtol=1e-4)


def test_lips_and_lids_do_not_move_the_frame():
    moved = face(v14=(0, 0.3), v152=(0, 0.2), v159=(0, 0.06), v468=(0.1, 0))
    torch.testing.assert_close(face_frame(moved.keypoints)[0], face_frame(face().keypoints)[0])


def test_matrices_are_the_skulls(network):
    motion = network.estimate_motion(torch.rand(2, 3, 256, 256))
    assert motion.kind == "face"
    matrix, _ = face_frame(motion.keypoints)
    torch.testing.assert_close(motion.affine, matrix[:, None].expand(-1, COUNT, -1, -1))


def test_a_window_follows_its_face():
    """What is read off windows moves with picture and face together: the same local places in every frame of a face."""
    torch.manual_seed(0)
    refinement = KeypointRefinement(dim=32, width=8).eval()
    tokens = torch.randn(1, COUNT, 32)
    picture = torch.nn.functional.interpolate(torch.rand(1, 3, 24, 24), (256, 256), mode="bicubic").clamp(0, 1)
    flipped = picture.flip(2, 3)  # turned by half a turn
    with torch.no_grad():
        one = refinement(picture, tokens, face().keypoints)
        other = refinement(flipped, tokens, -face().keypoints)
    torch.testing.assert_close(one, -other, atol=1e-4, rtol=0)
    untouched = token_indices(SKULL)
    torch.testing.assert_close(one[:, untouched], face().keypoints[:, untouched])


def test_no_motion_copies_the_source(network):
    """Masks that begin as Gaussians: with equal motions every part, and the background, reads where it is."""
    motion = face()
    dense = network.dense_motion(network.dense_motion.reduce(torch.rand(1, 3, 256, 256)), motion, motion)
    assert dense.masks.shape == (1, COUNT + 1, 128, 128)
    torch.testing.assert_close(dense.masks.sum(dim=1), torch.ones(1, 128, 128))
    picture = torch.rand(1, 3, 256, 256)
    torch.testing.assert_close(dense.warp(picture), picture, atol=1e-3, rtol=0)


def test_the_flow_is_that_of_the_masks(network):
    """Eq. 2, taken apart for speed: the same as the weighted sum of Eq. 1 for every part."""
    from mtanimate.geometry import coordinate_grid
    from mtanimate.models.motion import sparse_motions

    source, driving = face(), face(affine(0.2, 0.45, 0.9), (0, -0.1), v14=(0, 0.2), v159=(0, 0.05))
    with torch.no_grad():
        dense = network.dense_motion(torch.rand(1, 3, 64, 64), source, driving)
    grid = coordinate_grid(128, 128, dense.flow)
    motions = torch.cat([grid.expand(1, 1, 128, 128, 2), sparse_motions(source, driving, grid)], dim=1)
    torch.testing.assert_close(dense.flow, (dense.masks[..., None] * motions).sum(dim=1), atol=1e-5, rtol=0)


def test_an_untrained_mask_is_about_its_point():
    config = load_preset("face").model
    torch.manual_seed(0)
    network = FaceDenseMotionNetwork(config.dense_motion).eval()
    with torch.no_grad():
        masks = network(torch.rand(1, 3, 64, 64), face(), face()).masks[0]
    assert masks[0, 0, 0] > 0.9  # the corner stands still
    for index in token_indices((13, 159, 152, 234)):
        middle = face().keypoints[0, index] + affine() @ network.offset[index]
        x, y = ((middle + 1) / 2 * 127).round().int().tolist()
        assert masks[1 + index, y, x] > 0.9 * masks[1:, y, x].max()


def test_an_untrained_mask_shuts_an_eye(network):
    """Above the line where lids meet, the flow reads the skin above the source's eye; below it, the skin below."""
    source, shut = face(), face(v159=(0, 0.094), v145=(-0.017, 0), v386=(0, 0.094), v374=(0.017, 0))
    with torch.no_grad():
        flow = network.dense_motion(torch.rand(1, 3, 64, 64), source, shut).flow
    matrix, origin = face_frame(source.keypoints)
    for upper, lower in ((159, 145), (386, 374)):
        line = own_coordinates(shut)[0, token_indices((upper, lower))].mean(dim=0)
        lids = own_coordinates(source)[0, token_indices((upper, lower)), 1]
        read = []
        for below in (-0.05, 0.05):
            place = (line + torch.tensor([0, below])) @ matrix[0].T + origin[0]
            found = sample(flow.permute(0, 3, 1, 2), place[None, None, None], exact=True).flatten()
            own = torch.linalg.solve(matrix[0], found - origin[0])[1]
            read.append(((own - lids[0]) / (lids[1] - lids[0])).item())  # 0: the upper lid, 1: the lower
        assert read[0] < 0.35, read
        assert read[1] > 0.8, read


# The loss that ties them


def mesh_of(motion: Motion) -> torch.Tensor:
    mesh = torch.zeros(1, MESH_VERTICES, 2)
    mesh[:, VERTICES] = motion.keypoints
    return mesh


def test_tokens_on_their_vertices_cost_nothing():
    motion = face()
    assert token_landmark_loss(motion.keypoints, mesh_of(motion)) == 0


def test_a_missed_blink_costs_more_than_a_head_that_is_as_far_off():
    blink = mesh_of(face(v159=(0, 0.08), v145=(0, -0.01), v386=(0, 0.08), v374=(0, -0.01)))
    missed = token_landmark_loss(face().keypoints, blink)
    mean = (face().keypoints - blink[:, VERTICES]).abs().mean().item()
    shifted = token_landmark_loss(face().keypoints + mean, mesh_of(face()))
    assert missed > 3 * shifted


def test_pictures_without_a_face_take_no_part():
    one = mesh_of(face())
    none = torch.full_like(one, torch.nan)
    keypoints = (face().keypoints + 0.05).expand(2, -1, -1).clone().requires_grad_()
    both = token_landmark_loss(keypoints, torch.cat([one, none]))
    torch.testing.assert_close(both, token_landmark_loss(keypoints[:1], one))
    both.backward()
    assert keypoints.grad[0].abs().sum() > 0
    assert keypoints.grad[1].abs().sum() == 0
    assert token_landmark_loss(keypoints, none.expand(2, -1, -1)).item() == 0


def test_a_missed_nod_costs_more_than_a_head_that_is_as_far_off():
    nod = mesh_of(face(v1=(0, 0.1), v152=(0, 0.05)))
    mean = (face().keypoints - nod[:, VERTICES]).abs().mean().item()
    shifted = token_landmark_loss(face().keypoints + mean, mesh_of(face()))
    assert token_landmark_loss(face().keypoints, nod) > 5 * shifted


# Motion between faces

WIDE = affine(0.1, 0.6, 1.2)  # another shape and size of face


def test_the_frame_of_rest_leaves_the_source_as_it_is():
    source, driver = face(WIDE, v14=(0, 0.05)), face()
    moved = transfer_face(source, driver, driver)
    torch.testing.assert_close(moved.keypoints, source.keypoints)
    torch.testing.assert_close(moved.affine, source.affine)


def test_no_strength_leaves_the_source_as_it_is():
    source = face(WIDE)
    moved = transfer_face(source, face(affine(0.3), v14=(0, 0.2)), face(), strength=0)
    torch.testing.assert_close(moved.keypoints, source.keypoints, atol=1e-6, rtol=1e-5)


def test_a_turned_head_turns_as_a_whole():
    """The source's own shape is kept, whatever the driver's."""
    source = face(WIDE, v152=(0, 0.15))
    moved = transfer_face(source, face(affine(0.3), (0.2, 0)), face(at=(0.1, 0)))
    torch.testing.assert_close(own_coordinates(moved), own_coordinates(source), atol=1e-5, rtol=0)
    turned = face_frame(moved.keypoints)[0][0]
    torch.testing.assert_close(turned, affine(0.3) @ torch.linalg.inv(affine()) @ WIDE, atol=1e-5, rtol=0)


@pytest.mark.parametrize("far", [0.1, 0.5, 1.0, 5.0])
def test_a_head_moves_as_far_as_the_network_can_show(far):
    """In sizes of the head: near movement as it is, far movement less, in the same direction, never back."""
    source, driver = face(affine(size=0.3)), face(affine(size=0.5))
    moved = transfer_face(source, face(affine(0.2, 0.5), at=(0.1 + 0.3 * far, -0.2 - 0.4 * far)), driver)
    step = (face_frame(moved.keypoints)[1] - face_frame(source.keypoints)[1])[0] / 0.3
    assert step.norm() <= 0.5 + 1e-5
    assert step.norm() == pytest.approx(far, rel=1e-4) or (far > 0.3 and step.norm() > 0.3)
    torch.testing.assert_close(step / step.norm(), torch.tensor([0.6, -0.8]), atol=1e-4, rtol=0)
    torch.testing.assert_close(face_frame(moved.keypoints)[0][0], affine(0.2, 0.3), atol=1e-4, rtol=0)


def test_a_mouth_opens_by_its_own_width():
    rest = {"v61": (0.05, 0), "v291": (-0.05, 0)}  # the driver's mouth is narrower than the source's
    driver, opened = face(**rest), face(**rest, v14=(0, 0.2))
    source = face(WIDE)
    before, after = opening(source, 13, 14), opening(transfer_face(source, opened, driver), 13, 14)
    narrow = 0.558 - 0.1
    assert after - before == pytest.approx(0.2 * 0.558 / narrow, rel=0.01)
    plain = transfer_face(source, opened, driver, adapt_scale=False)
    assert opening(plain, 13, 14) - before == pytest.approx(0.2, rel=0.01)


def test_lips_close_and_do_not_pass_through_each_other():
    driver, shut = face(), face(v14=(0, -0.0871))
    source = face(v14=(0, -0.06), v13=(0, 0))  # nearly closed already
    assert opening(transfer_face(source, shut, driver), 13, 14) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("wide", [0.0, 0.05, -0.05])
def test_a_blink_shuts_every_eye(wide):
    """However wide the source's own are open."""
    blink = {"v159": (0, 0.094), "v386": (0, 0.094), "v145": (-0.017, 0), "v374": (0.017, 0)}
    source = face(WIDE, v159=(0, -wide), v386=(0, -wide))
    shut = transfer_face(source, face(**blink), face())
    for upper, lower in ((159, 145), (386, 374)):
        assert opening(shut, upper, lower) < 0.02
        assert opening(transfer_face(source, face(), face()), upper, lower) == pytest.approx(0.0955 + wide, abs=0.003)


def test_a_frame_with_the_same_expression_is_nearest():
    source = face(WIDE, v14=(0, -0.08))  # lips closed
    driving = [face(v14=(0, 0.1)), face(affine(0.05), v14=(0, -0.08)), face(v14=(0, 0.3)), face(affine(0.5))]
    frames = Motion.cat(driving)
    assert int(face_distances(source, frames).argmin()) == 1


def test_what_needs_tied_tokens_says_so():
    from mtanimate.config import override
    from mtanimate.errors import InputError

    for setting in ("model.dense_motion.prior=true", "model.estimator.refinement_width=8", "loss.token_landmarks=1"):
        with pytest.raises(InputError, match=r"set model\.estimator\.tied to face"):
            override(load_preset("small"), [setting])
    with pytest.raises(InputError, match=r"34 points alone"):
        override(load_preset("face"), ["model.num_keypoints=40"])
    background = {"block_expansion": 4, "max_features": 8, "num_blocks": 2}
    with pytest.raises(InputError, match=r"model\.background.*model\.dense_motion\.prior"):
        override(load_preset("face"), [f"model.background={background}", "loss.window=0", "loss.painting=0"])
    with pytest.raises(InputError, match=r"a face has 34 points"):
        override(load_preset("face"), ["model.num_keypoints=10"])
    assert replace(load_preset("face").model).estimator.motion_kind == "face"
