"""The terms that know where mouths and eyes are, on drawn pictures."""

import pytest
import torch
from golden import close

from mtanimate.faces.mesh import CONTOURS, VERTICES
from mtanimate.geometry import coordinate_grid, warp
from mtanimate.models.losses.face import EYES, LIPS, POINTS, SHAPE, SIDE, close_ups, expression_loss, landmark_loss


def landmarks(batch=2, seed=0):
    """Inside the picture: lips in its lower half, eyes in its upper half."""
    points = torch.rand(batch, POINTS, 2, generator=torch.Generator().manual_seed(seed)) * 1.2 - 0.6
    points[:, LIPS] = points[:, LIPS] * 0.3 + torch.tensor([0, 0.4])
    points[:, EYES] = points[:, EYES] * 0.5 + torch.tensor([0, -0.4])
    return points


def test_the_right_flow_costs_nothing_and_a_shift_its_length():
    driving = landmarks()
    shift = torch.tensor([0.1, -0.05])
    flow = (coordinate_grid(32, 32, driving) + shift).expand(2, -1, -1, -1)
    assert landmark_loss(flow, driving + shift, driving) == pytest.approx(0, abs=1e-6)
    assert landmark_loss(flow, driving, driving) == pytest.approx(0.15, abs=1e-6)


def test_a_contour_of_the_wrong_shape_costs_more_than_one_in_the_wrong_place():
    driving = landmarks(1)
    flow = coordinate_grid(32, 32, driving)[None]
    apart = driving.clone()
    apart[:, LIPS.start : LIPS.stop : 2] += torch.tensor([0, 0.1])
    apart[:, LIPS.start + 1 : LIPS.stop : 2] -= torch.tensor([0, 0.1])
    aside = driving.clone()
    aside[:, LIPS] += torch.tensor([0, 0.1])
    assert landmark_loss(flow, aside, driving).item() == pytest.approx(0.1 * 40 / POINTS, rel=1e-4)
    assert landmark_loss(flow, apart, driving).item() == pytest.approx((1 + SHAPE) * 0.1 * 40 / POINTS, rel=1e-4)


def test_gradients_reach_the_flow_at_the_landmarks_alone():
    driving = landmarks(1)
    driving[:, :, 0] = driving[:, :, 0].abs() * -1  # the left half
    flow = coordinate_grid(32, 32, driving)[None].clone().requires_grad_()
    landmark_loss(flow, driving + 0.1, driving).backward()
    assert flow.grad[:, :, :17].any()
    assert not flow.grad[:, :, 17:].any()


def test_faces_that_were_not_found_do_not_count():
    driving = landmarks()
    flow = coordinate_grid(32, 32, driving).expand(2, -1, -1, -1).clone().requires_grad_()
    source = driving + 0.1
    source[1] = torch.nan
    assert landmark_loss(flow, source, driving).item() == pytest.approx(0.2, abs=1e-6)
    nobody = landmark_loss(flow, torch.full_like(source, torch.nan), driving)
    assert nobody == 0
    nobody.backward()
    assert flow.grad.isfinite().all()


def test_close_ups_show_the_mouth_then_the_eyes():
    """In a picture whose colours are its coordinates."""
    points = landmarks(1)
    grid = coordinate_grid(128, 128, points).permute(2, 0, 1)[None]
    mouth, eyes = close_ups(grid, points, torch.tensor([0]))
    for view, part in ((mouth, LIPS), (eyes, EYES)):
        low, high = points[0, part].amin(dim=0), points[0, part].amax(dim=0)
        centre, side = (low + high) / 2, 1.5 * (high - low).max()
        close(view[:, SIDE // 2 - 1 : SIDE // 2 + 1, SIDE // 2 - 1 : SIDE // 2 + 1].mean(dim=(1, 2)), centre, atol=1e-3)
        close(view[0, 0, -1] - view[0, 0, 0], side, atol=1e-3)
        close(view[1, -1, 0] - view[1, 0, 0], side, atol=1e-3)


def test_pictures_without_a_face_have_no_close_up():
    points = landmarks(3)
    points[1] = torch.nan
    pictures = torch.rand(3, 6, 64, 64).contiguous(memory_format=torch.channels_last).requires_grad_()
    found = close_ups(pictures, points, torch.tensor([0, 2]))
    assert found.shape == (4, 6, SIDE, SIDE)
    others = close_ups(pictures[::2], points[::2], torch.tensor([0, 1]))
    assert torch.equal(found, others)
    assert torch.autograd.grad(found.square().sum(), pictures)[0][1].abs().sum() == 0
    assert close_ups(pictures, points, torch.tensor([], dtype=torch.long)).shape == (0, 6, SIDE, SIDE)


def test_an_exact_warp_brings_landmarks_where_the_flow_says():
    """A dot at a landmark of the source, warped, lies at the landmark of the driving frame."""
    flow = (coordinate_grid(16, 16, torch.zeros(())) + torch.tensor([0.25, -0.125])).expand(1, -1, -1, -1)
    grid = coordinate_grid(65, 65, flow)
    dot = torch.exp(-((grid - torch.tensor([0.25, 0.25])) ** 2).sum(dim=-1) / 0.005)[None, None]
    found = (warp(dot, flow, exact=True)[0, 0] == warp(dot, flow, exact=True).max()).nonzero()[0]
    assert grid[found[0], found[1]].tolist() == pytest.approx([0, 0.375])


def a_face(**moved):
    """A mesh (1, 478, 2) with eyes and a mouth in their places; `moved`: contour -> shift of every other vertex."""
    mesh = torch.rand(1, VERTICES, 2, generator=torch.Generator().manual_seed(0)) * 0.2 - 0.1
    mesh += torch.tensor([0.0, 0.2])
    for contour, middle in (("RIGHT_EYE", (-0.3, -0.2)), ("LEFT_EYE", (0.3, -0.2)), ("LIPS", (0.0, 0.4))):
        mesh[:, CONTOURS[contour]] += torch.tensor(middle) - torch.tensor([0.0, 0.2])
    mesh[:, 33], mesh[:, 263] = torch.tensor([-0.5, -0.2]), torch.tensor([0.5, -0.2])
    for feature, shift in moved.items():
        mesh[:, CONTOURS[feature][::2]] += torch.tensor(shift)
    return mesh


def test_a_mouth_that_does_not_open_costs_whatever_its_size():
    flow = coordinate_grid(64, 64, torch.zeros(1))[None]
    still = a_face()
    assert expression_loss(flow, still, still).item() == pytest.approx(0, abs=1e-5)
    opened = expression_loss(flow, still, a_face(LIPS=(0, 0.1)))
    assert opened > 0.1
    head = a_face() + torch.tensor([0.0, 0.05])  # the mean movement of those lips, of the whole face
    assert expression_loss(flow, still, head) < opened
    # Of a face half as large, half the movement costs as much.
    small = expression_loss(flow, still / 2, a_face(LIPS=(0, 0.1)) / 2)
    assert small.item() == pytest.approx(opened.item(), rel=0.02)


def test_expressions_of_faces_that_were_not_found_do_not_count():
    flow = coordinate_grid(64, 64, torch.zeros(1)).expand(2, -1, -1, -1).clone().requires_grad_()
    one, other = a_face(), a_face(LEFT_EYE=(0, 0.05))
    alone = expression_loss(flow[:1], one, other)
    nobody = torch.full_like(one, torch.nan)
    both = expression_loss(flow, torch.cat([one, nobody]), torch.cat([other, other]))
    assert both.item() == pytest.approx(alone.item(), rel=1e-5)
    both.backward()
    assert flow.grad.isfinite().all()
    assert not flow.grad[1].any()
