"""Squares of training pictures: the same pixels, the same motion."""

import pytest
import torch

from mtanimate.geometry import warp
from mtanimate.models.dense_motion import DenseMotion
from mtanimate.models.motion import Motion
from mtanimate.training.objective import Windows


@pytest.fixture
def pictures() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.rand(6, 3, 64, 64)


def test_pixels_are_copied(pictures):
    windows = Windows.draw(pictures, 24, None)
    cut = windows.cut(pictures)
    corners = ((windows.middles + 1) / 2 * 63 - 23 / 2).round().int()
    for picture, square, (x, y) in zip(pictures, cut, corners.tolist(), strict=True):
        torch.testing.assert_close(square, picture[:, y : y + 24, x : x + 24], atol=1e-4, rtol=0)


def test_a_window_as_large_as_the_picture_is_the_picture(pictures):
    torch.testing.assert_close(Windows.draw(pictures, 64, None).cut(pictures), pictures, atol=1e-4, rtol=0)


def test_mouths_and_eyes_are_looked_at():
    meshes = torch.zeros(300, 478, 2)
    meshes[:, 14] = torch.tensor([0.5, 0.5])
    meshes[:, 168] = torch.tensor([-0.5, -0.5])
    torch.manual_seed(0)
    windows = Windows.draw(torch.zeros(300, 3, 64, 64), 16, meshes)
    near = [(windows.middles - place).norm(dim=1) < 0.3 for place in (0.5, -0.5)]
    assert 80 < near[0].sum() < 140
    assert 80 < near[1].sum() < 140
    elsewhere = ~(near[0] | near[1])
    assert 50 < elsewhere.sum() < 120
    assert windows.middles.abs().max() <= 1 - windows.half + 1e-6  # none reaches outside


def test_pictures_without_a_face_are_looked_at_anywhere(pictures):
    meshes = torch.full((6, 478, 2), torch.nan)
    assert Windows.draw(pictures, 16, meshes).middles.isfinite().all()


def test_what_is_warped_inside_is_what_is_warped_outside(pictures):
    """Where the flow stays inside the window, warping its pixels gives the window of the warped picture."""
    smooth = torch.nn.functional.interpolate(pictures[:, :, :8, :8], (64, 64), mode="bicubic", align_corners=True)
    grid = torch.nn.functional.affine_grid(torch.eye(2, 3).expand(6, 2, 3), (6, 3, 32, 32), align_corners=True)
    flow = grid * 0.98 + torch.tensor([0.02, -0.03])
    occlusion = torch.rand(6, 1, 32, 32)
    dense = DenseMotion(torch.rand(6, 3, 32, 32), flow, occlusion, exact=True)
    windows = Windows.draw(smooth, 40, None)
    inside = windows.dense(dense, 64).warp(windows.cut(smooth))
    outside = windows.cut(warp(smooth, flow, exact=True))
    torch.testing.assert_close(inside[:, :, 4:-4, 4:-4], outside[:, :, 4:-4, 4:-4], atol=2e-3, rtol=0)


def test_keypoints_stay_on_their_pixels(pictures):
    windows = Windows.draw(pictures, 24, None)
    motion = Motion(
        windows.middles[:, None] + torch.tensor([[0.0, 0.0], [windows.half, 0]]), torch.eye(2).expand(6, 2, 2, 2)
    )
    seen = windows.motion(motion)
    torch.testing.assert_close(seen.keypoints, torch.tensor([[0.0, 0.0], [1.0, 0]]).expand(6, 2, 2), atol=1e-5, rtol=0)
