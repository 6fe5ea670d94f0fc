"""The augmentation of a pair: one draw for both frames, never two flips, nothing out of range."""

from dataclasses import replace

import pytest
import torch
from golden import close
from hypothesis import given, settings
from hypothesis import strategies as st

from mtanimate.config import AugmentationConfig
from mtanimate.data.augmentation import _jitter, augment

STILL = AugmentationConfig(0, 0, 0, 0, 0, 0)
seeds = st.integers(0, 2**31)


def random_pair(seed=0, height=12, width=16):
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed))


def run(pair, config, seed):
    return augment(pair, config, torch.Generator().manual_seed(seed))


@given(seed=seeds)
def test_without_augmentation_a_pair_stays_as_it_is(seed):
    pair = random_pair(seed % 7)
    close(run(pair, STILL, seed), pair, atol=1e-5)


@given(seed=seeds, crop=st.floats(0.5, 1), strength=st.floats(0, 0.5))
def test_identical_frames_stay_identical(seed, crop, strength):
    """One draw serves both frames."""
    frame = random_pair(seed % 7)[:1]
    config = AugmentationConfig(0.5, 0.5, strength, strength, strength, strength, crop)
    first, second = run(frame.expand(2, -1, -1, -1), config, seed)
    assert torch.equal(first, second)


@given(seed=seeds, strength=st.floats(0, 1), own_crop=st.floats(0, 1))
def test_values_stay_in_range_and_the_shape_too(seed, strength, own_crop):
    config = AugmentationConfig(0.5, 0.5, strength, strength, strength, strength, 0.6, own_crop)
    pair = run(random_pair(seed % 7).round(), config, seed)  # black and full colours
    assert pair.shape == (2, 3, 12, 16)
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
    config = AugmentationConfig(crop=0.7, own_crop=0.5)
    assert torch.equal(run(random_pair(), config, 5), run(random_pair(), config, 5))
    assert not torch.equal(run(random_pair(), config, 5), run(random_pair(), config, 6))


# Crops


def test_own_crop_moves_the_frames_apart():
    frame = random_pair()[:1].expand(2, -1, -1, -1)
    first, second = run(frame, replace(STILL, crop=0.5, own_crop=1.0), 0)
    assert (first - second).abs().max() > 0.05


def test_a_crop_of_the_full_side_is_no_crop():
    pair = random_pair()
    close(run(pair, replace(STILL, crop=1.0, own_crop=1.0), 0), pair, atol=1e-5)


@settings(max_examples=40)
@given(seed=seeds, fraction=st.floats(0.5, 0.95))
def test_a_crop_shows_a_part_enlarged(seed, fraction):
    """On a ramp from 0 to 1 along x: less contrast, the same slope everywhere, no value from outside."""
    ramp = torch.linspace(0, 1, 64).expand(2, 3, 64, 64)
    row = run(ramp, replace(STILL, crop=fraction), seed)[0, 0, 32]
    assert (row.diff() >= -1e-5).all()
    assert fraction - 0.05 <= (row[-1] - row[0]).item() <= 1.0 + 1e-5
    close(row.diff()[10:-10], row.diff()[32].expand(43), atol=1e-4)


# Colours


def jittered(pair, **changes):
    return _jitter(pair, **{"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0, **changes})


def test_neutral_jitter_is_the_identity():
    close(jittered(random_pair()), random_pair(), atol=1e-5)
    close(jittered(random_pair(), hue=1.0), random_pair(), atol=1e-5)  # one full turn


def test_brightness_multiplies():
    close(jittered(random_pair(), brightness=0.8), 0.8 * random_pair(), atol=1e-5)


def test_contrast_pivots_on_the_mean_grey():
    pair = random_pair()
    grey = (torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1) * pair).sum(dim=1).mean()
    close(jittered(pair, contrast=0.5), 0.5 * pair + 0.5 * grey, atol=1e-5)


def test_no_saturation_is_grey():
    pair = random_pair()
    grey = (torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1) * pair).sum(dim=1, keepdim=True)
    close(jittered(pair, saturation=0.0), grey.expand_as(pair), atol=1e-5)


@given(hue=st.floats(-0.5, 0.5), level=st.floats(0, 1))
def test_hue_leaves_grey_alone(hue, level):
    pair = torch.full((2, 3, 2, 2), level)
    close(jittered(pair, hue=hue), pair, atol=1e-5)


def test_hue_keeps_brightness_and_changes_the_colour():
    pair = 0.4 + 0.1 * random_pair()
    turned = jittered(pair, hue=0.25)
    luma = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    close((luma * turned).sum(dim=1), (luma * pair).sum(dim=1), atol=1e-5)
    assert (turned - pair).abs().max() > 0.02
    close(jittered(turned, hue=-0.25), pair, atol=1e-5)
