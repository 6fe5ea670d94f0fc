"""MRAA's regions: principal axes, and what becomes of their sign."""

import math

import pytest
import torch
from golden import close
from hypothesis import given
from hypothesis import strategies as st

from mtanimate.animation.retargeting import smoothed
from mtanimate.config import HeatmapEstimatorConfig
from mtanimate.geometry import coordinate_grid
from mtanimate.models.motion import Motion, affine_change, sparse_motions, transfer_relative
from mtanimate.models.region_predictor import RegionPredictor, principal_axes

TINY = HeatmapEstimatorConfig(name="mraa", block_expansion=8, max_features=16, num_blocks=2)


def rotation(angle):
    return torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def covariance(angle, longer, shorter):
    turn = rotation(angle)
    return turn @ torch.diag(torch.tensor([longer**2, shorter**2])) @ turn.T


@given(st.floats(-3, 3), st.floats(0.05, 0.5), st.floats(0.1, 0.9))
def test_axes_are_those_of_the_svd(angle, longer, ratio):
    matrix = covariance(angle, longer, ratio * longer)
    found = principal_axes(matrix[0, 0], matrix[0, 1], matrix[1, 1])
    close(found @ found.T, matrix, atol=1e-6)
    u, s, _ = torch.linalg.svd(matrix)
    wanted = u * s.sqrt()
    for column in range(2):  # each axis up to its sign
        assert min((found[:, column] - sign * wanted[:, column]).abs().max() for sign in (1, -1)) < 1e-4
    assert torch.linalg.det(found) > 0


@pytest.mark.parametrize("matrix", [(0.1, 0.0, 0.1), (0.1, 1e-9, 0.1), (0.2, 0.0, 0.1), (0.1, 0.0, 0.2)])
def test_gradients_are_finite_where_there_are_no_axes(matrix):
    entries = [torch.tensor(value, requires_grad=True) for value in matrix]
    axes = principal_axes(*entries)
    close(axes @ axes.T, torch.tensor([[matrix[0], matrix[1]], [matrix[1], matrix[2]]]), atol=1e-4)
    axes.sum().backward()
    assert all(torch.isfinite(entry.grad) for entry in entries)


class Blob(torch.nn.Module):
    """A head whose heat map is a Gaussian: logits are its logarithm times the temperature."""

    def __init__(self, centre, matrix):
        super().__init__()
        self.centre, self.inverse = torch.tensor(centre), torch.linalg.inv(matrix)

    def forward(self, features):
        grid = coordinate_grid(features.shape[2], features.shape[3], features)
        offset = grid - self.centre
        logits = -0.5 * torch.einsum("hwi,ij,hwj->hw", offset, self.inverse, offset)
        return TINY.temperature * logits.expand(len(features), 1, -1, -1)


def region(angle, longer=0.3, shorter=0.1, centre=(0.1, -0.2)):
    """The motion of a picture with one elongated region."""
    predictor = RegionPredictor(TINY, 1).eval()
    predictor.heatmap_head = Blob(centre, covariance(angle, longer, shorter))
    return predictor(torch.zeros(1, 3, 512, 512))  # maps of 128 pixels


def test_a_region_is_its_mean_and_its_axes():
    motion = region(0.4)
    close(motion.keypoints[0, 0], torch.tensor([0.1, -0.2]), atol=1e-3)
    affine = motion.affine[0, 0]
    close(affine @ affine.T, covariance(0.4, 0.3, 0.1), atol=1e-3, rtol=1e-2)
    assert motion.kind == "axes"


@pytest.mark.parametrize("before", [0.0, 0.8, 1.5, 1.57, -1.5, 3.0])
@pytest.mark.parametrize("turn", [0.1, 0.3, -0.3, 1.2])
def test_a_turned_region_is_a_rotation(before, turn):
    """Whichever way its axis pointed: the sign is reverted in the product of the two matrices."""
    found = affine_change(region(before + turn), region(before))[0, 0]
    close(found, rotation(turn), atol=0.02)


def test_a_region_of_one_pixel_has_a_size():
    predictor = RegionPredictor(TINY, 2).eval()

    class Points(torch.nn.Module):
        def forward(self, features):
            logits = torch.zeros(len(features), 2, 16, 16)
            logits[:, 0, 3, 4] = logits[:, 1, 9, 9] = 1000
            return logits

    predictor.heatmap_head = Points()
    motion = predictor(torch.zeros(1, 3, 64, 64))
    assert torch.linalg.det(motion.affine).min() > 1e-4
    assert torch.isfinite(affine_change(motion, motion)).all()


def flipped(motion, signs):
    return Motion(motion.keypoints, motion.affine * torch.tensor(signs).view(-1, 1, 1, 1), motion.kind)


def clip():
    """A region that turns slowly through all directions, whose signs an estimator chooses anew in each frame."""
    frames = Motion.cat([region(0.1 * frame) for frame in range(20)])
    signs = [1.0 if frame % 3 else -1.0 for frame in range(20)]
    return frames, flipped(frames, signs)


def test_signs_do_not_change_what_moves_where():
    frames, signed = clip()
    grid = coordinate_grid(8, 8, frames.keypoints)
    source, short = frames[:1], frames[:10]
    close(sparse_motions(source, signed[:10], grid), sparse_motions(source, short, grid))
    moved, wanted = (transfer_relative(source, motion, motion[:1]) for motion in (signed[:10], short))
    assert moved.kind == "axes"
    close(sparse_motions(source, moved, grid), sparse_motions(source, wanted, grid))


def test_smoothing_takes_no_mean_of_opposite_signs():
    _, signed = clip()
    found = smoothed(signed, 0.08, 25)
    size = torch.linalg.matrix_norm(found.affine)
    assert (size > 0.9 * torch.linalg.matrix_norm(signed.affine)).all()


def test_other_estimators_matrices_keep_their_sign():
    half_turn = Motion(torch.zeros(1, 1, 2), -torch.eye(2).expand(1, 1, 2, 2))
    still = Motion(torch.zeros(1, 1, 2), torch.eye(2).expand(1, 1, 2, 2))
    close(affine_change(half_turn, still)[0, 0], -torch.eye(2))
    assert half_turn.with_continuous_signs() is half_turn
