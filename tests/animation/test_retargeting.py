"""Which frame is rest, how strong the movement, how smooth."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtanimate.animation.retargeting import choose_reference, held, pose_distances, smoothed, transferred
from mtanimate.models.motion import Motion


def random_motion(frames: int, seed: int = 0, parts: int = 10) -> Motion:
    generator = torch.Generator().manual_seed(seed)
    keypoints = torch.rand(frames, parts, 2, generator=generator) - 0.5
    return Motion(keypoints, torch.eye(2) + 0.1 * torch.randn(frames, parts, 2, 2, generator=generator))


def test_the_frame_with_the_sources_pose_is_found_wherever_it_is_and_however_large():
    found = 0
    for seed in range(20):
        driving = random_motion(60, seed)
        hidden = int(np.random.default_rng(seed).integers(60))
        source = Motion(0.7 * driving.keypoints[hidden : hidden + 1] + 0.2, driving.affine[:1])
        number, distance = choose_reference(source, driving, "best")
        found += abs(number - hidden) <= 2 and distance < 1e-5
    assert found == 20


def test_a_given_reference_is_taken():
    driving = random_motion(9)
    number, distance = choose_reference(driving[4:5], driving, 2)
    assert number == 2
    assert distance == pytest.approx(float(pose_distances(driving[4:5], driving)[2]))


@settings(max_examples=40, deadline=None)
@given(st.floats(0.3, 3), st.floats(-1, 1), st.floats(-1, 1))
def test_poses_are_compared_without_place_and_size(scale, right, down):
    driving = random_motion(3)
    moved = Motion(driving.keypoints * scale + torch.tensor([right, down]), driving.affine)
    assert torch.allclose(pose_distances(moved[:1], driving), pose_distances(driving[:1], driving), atol=1e-4)


def second_difference(keypoints: torch.Tensor) -> float:
    return float(keypoints.diff(n=2, dim=0).norm(dim=2).mean())


def test_smoothing_takes_the_jitter_and_does_not_lag():
    frames, fps = 200, 25.0
    time = torch.arange(frames) / fps
    path = torch.stack([0.3 * torch.sin(2 * torch.pi * 0.5 * time), 0.2 * torch.cos(2 * torch.pi * 0.4 * time)], dim=1)
    clean = path[:, None].expand(-1, 10, -1)
    noise = 0.01 * torch.randn(frames, 10, 2, generator=torch.Generator().manual_seed(0))
    affine = torch.eye(2).expand(frames, 10, 2, 2)
    smooth = smoothed(Motion(clean + noise, affine), 0.06, fps)
    assert second_difference(smooth.keypoints) < 0.3 * second_difference(clean + noise)
    assert torch.allclose(smooth.affine, affine, atol=1e-6)
    lags = range(-5, 6)
    inner = slice(20, frames - 20)
    errors = [(smooth.keypoints[inner] - clean.roll(lag, dims=0)[inner]).norm(dim=2).mean().item() for lag in lags]
    assert lags[int(np.argmin(errors))] == 0


@pytest.mark.parametrize("frames", [1, 2, 3, 5])
def test_short_clips_are_smoothed_too(frames):
    motion = random_motion(frames)
    smooth = smoothed(motion, 1.0, 25.0)
    assert smooth.keypoints.shape == motion.keypoints.shape
    assert torch.isfinite(smooth.keypoints).all()


def test_no_smoothing_changes_nothing():
    motion = random_motion(5)
    assert smoothed(motion, 0.0, 25.0) is motion


def test_lost_frames_hold_the_motion_before_them():
    assert held(6, [0, 3, 4]) == [1, 1, 2, 2, 2, 5]
    assert held(6, []) == held(6, list(range(6))) == list(range(6))


def test_the_reference_frame_leaves_the_source_where_it_is():
    source, driving = random_motion(1, 1), random_motion(5, 2)
    driven = transferred(source, source, driving, driving[3:4], True, 1.0)
    assert torch.allclose(driven.keypoints[3], source.keypoints[0], atol=1e-6)
    assert torch.allclose(driven.affine[3], source.affine[0], atol=1e-5)


def test_strength_scales_the_movement():
    source, driving = random_motion(1, 1), random_motion(5, 2)
    whole, half, none = (transferred(source, source, driving, driving[:1], False, s) for s in (1.0, 0.5, 0.0))
    assert torch.allclose(none.keypoints, source.keypoints.expand(5, -1, -1))
    assert torch.allclose(none.affine, source.affine.expand(5, -1, -1, -1), atol=1e-6)
    assert torch.allclose(half.keypoints, (whole.keypoints + none.keypoints) / 2, atol=1e-6)
    assert torch.allclose(half.affine, (whole.affine + none.affine) / 2, atol=1e-5)


def test_movement_is_scaled_by_the_subjects_sizes():
    driving = random_motion(5, 2)
    source = Motion(driving.keypoints[:1] * 0.5, driving.affine[:1])
    driven = transferred(source, source, driving, driving[:1], True, 1.0)
    assert torch.allclose(driven.keypoints, driving.keypoints * 0.5, atol=1e-5)
