"""The augmentation of a pair: one draw for both frames, never two flips, nothing out of range."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from golden import close
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import PLAIN

from mtanimate.config import AugmentationConfig
from mtanimate.data.augmentation import _brightness, _contrast, _hue, _saturation, augment

STILL = PLAIN
seeds = st.integers(0, 2**31)


def random_pair(seed=0, height=16, width=16):
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed))


def run(pair, config, seed):
    return augment(pair, config, np.random.default_rng(seed))


@given(seed=seeds)
def test_without_augmentation_a_pair_stays_as_it_is(seed):
    pair = random_pair(seed % 7)
    close(run(pair, STILL, seed), pair, atol=1e-5)


STRONG = AugmentationConfig(
    rotation=30, window=(0.6, 1.2), own_window=0.5, brightness=0.5, contrast=0.5, saturation=0.5, hue=0.5
)


@given(seed=seeds, strength=st.floats(0, 0.5))
def test_identical_frames_stay_identical(seed, strength):
    """One draw serves both frames."""
    frame = random_pair(seed % 7)[:1]
    config = replace(STRONG, own_window=0.0, brightness=strength, hue=strength)
    first, second = run(frame.expand(2, -1, -1, -1), config, seed)
    assert torch.equal(first, second)


@given(seed=seeds, strength=st.floats(0, 1), own_window=st.floats(0, 1))
def test_values_stay_in_range_and_the_shape_too(seed, strength, own_window):
    config = replace(STRONG, own_window=own_window, brightness=strength, contrast=strength, saturation=strength)
    pair = run(random_pair(seed % 7).round(), config, seed)  # black and full colours
    assert pair.shape == (2, 3, 16, 16)
    assert pair.min() >= 0
    assert pair.max() <= 1
    assert pair.isfinite().all()


def test_never_two_flips_and_the_usual_shares():
    pair = random_pair()
    outcomes = {"none": pair, "time": pair.flip(0), "space": pair.flip(-1), "both": pair.flip(0, -1)}
    config = replace(STILL, time_flip=0.5, horizontal_flip=0.5)
    seen = dict.fromkeys(outcomes, 0)
    for seed in range(400):
        found = run(pair, config, seed)
        (name,) = (name for name, wanted in outcomes.items() if torch.allclose(found, wanted, atol=1e-4))
        seen[name] += 1
    assert seen["both"] == 0
    assert 160 < seen["time"] < 240  # one half
    assert 60 < seen["space"] < 140  # one quarter
    assert 60 < seen["none"] < 140


@pytest.mark.parametrize(
    ("config", "axis"),
    [(replace(STILL, time_flip=1.0, horizontal_flip=1.0), 0), (replace(STILL, horizontal_flip=1.0), -1)],
)
def test_certain_flips(config, axis):
    pair = random_pair()
    close(run(pair, config, 3), pair.flip(axis), atol=1e-5)


def test_the_same_seed_draws_the_same():
    assert torch.equal(run(random_pair(), STRONG, 5), run(random_pair(), STRONG, 5))
    assert not torch.equal(run(random_pair(), STRONG, 5), run(random_pair(), STRONG, 6))


# Windows and rotation


def test_own_windows_move_the_frames_apart():
    frame = random_pair()[:1].expand(2, -1, -1, -1)
    first, second = run(frame, replace(STILL, window=(0.5, 0.9), own_window=1.0), 0)
    assert (first - second).abs().max() > 0.05


@settings(max_examples=40)
@given(seed=seeds, side=st.floats(0.5, 0.95))
def test_a_small_window_shows_a_part_enlarged(seed, side):
    """On a ramp from 0 to 1 along x: less contrast, the same slope everywhere, no value from outside."""
    ramp = torch.linspace(0, 1, 64).expand(2, 3, 64, 64)
    row = run(ramp, replace(STILL, window=(side, side)), seed)[0, 0, 32]
    assert (row.diff() >= -1e-5).all()
    assert (row[-1] - row[0]).item() == pytest.approx(side, abs=0.03)
    close(row.diff()[10:-10], row.diff()[32].expand(43), atol=1e-4)


@settings(max_examples=40)
@given(seed=seeds, side=st.floats(1.05, 1.5))
def test_a_large_window_shrinks_the_picture_and_repeats_its_edge(seed, side):
    ramp = torch.linspace(0, 1, 64).expand(2, 3, 64, 64)
    row = run(ramp, replace(STILL, window=(side, side)), seed)[0, 0, 32]
    assert row[0].item() == pytest.approx(0, abs=0.01)
    assert row[-1].item() == pytest.approx(1, abs=0.01)
    inside = row.diff()[(row[:-1] > 0.1) & (row[1:] < 0.9)]
    close(inside, torch.full_like(inside, side / 63), atol=1e-3)


@settings(max_examples=40)
@given(seed=seeds)
def test_rotation_turns_about_the_centre_by_no_more_than_asked(seed):
    """On a ramp along x, the slope at the centre says the angle."""
    ramp = torch.linspace(0, 1, 65).expand(2, 3, 65, 65)
    turned = run(ramp, replace(STILL, rotation=20.0), seed)[0, 0]
    across, down = turned[32, 33] - turned[32, 31], turned[33, 32] - turned[31, 32]
    assert turned[32, 32].item() == pytest.approx(0.5, abs=1e-3)
    assert torch.hypot(across, down).item() == pytest.approx(2 / 64, rel=0.02)
    assert abs(torch.rad2deg(torch.atan2(down, across)).item()) <= 20.5


def test_rotations_are_spread():
    ramp = torch.linspace(0, 1, 65).expand(2, 3, 65, 65)
    slopes = [
        (turned[33, 32] - turned[31, 32]).item()
        for turned in (run(ramp, replace(STILL, rotation=20.0), seed)[0, 0] for seed in range(40))
    ]
    assert min(slopes) < -0.006
    assert max(slopes) > 0.006


# Colours


def test_brightness_multiplies():
    close(_brightness(random_pair(), 0.8), 0.8 * random_pair(), atol=1e-5)


def test_contrast_pivots_on_the_mean_grey():
    pair = random_pair()
    grey = (torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1) * pair).sum(dim=1).mean()
    close(_contrast(pair, 0.5), 0.5 * pair + 0.5 * grey, atol=1e-5)


def test_no_saturation_is_grey():
    pair = random_pair()
    grey = (torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1) * pair).sum(dim=1, keepdim=True)
    close(_saturation(pair, 0.0), grey.expand_as(pair), atol=1e-5)
    close(_saturation(pair, 1.0), pair, atol=1e-6)


@given(hue=st.floats(-0.5, 0.5), level=st.floats(0, 1))
def test_hue_leaves_grey_alone(hue, level):
    pair = torch.full((2, 3, 2, 2), level)
    close(_hue(pair, hue), pair, atol=1e-5)


def test_hue_keeps_brightness_and_changes_the_colour():
    pair = 0.4 + 0.1 * random_pair()
    turned = _hue(pair, 0.25)
    luma = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    close((luma * turned).sum(dim=1), (luma * pair).sum(dim=1), atol=1e-5)
    assert (turned - pair).abs().max() > 0.02
    close(_hue(turned, -0.25), pair, atol=1e-5)
