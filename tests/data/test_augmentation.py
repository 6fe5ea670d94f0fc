"""The augmentation of a pair: one draw for both frames, never two flips, nothing out of range."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from golden import close
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import PLAIN
from torch.nn import functional as F

from mtanimate.config import AugmentationConfig
from mtanimate.data.augmentation import (
    RGB_TO_YIQ,
    YIQ_TO_RGB,
    Recipe,
    _brightness,
    _contrast,
    _hue,
    _saturation,
    augment,
    carry,
    draw_colour,
    draw_flips,
    draw_windows,
)
from mtanimate.data.people import Backdrop
from mtanimate.data.warps import bent
from mtanimate.faces.mesh import MIRROR
from mtanimate.geometry import coordinate_grid, warp

STILL = PLAIN
seeds = st.integers(0, 2**31)


def random_pair(seed=0, height=16, width=16):
    """(2, 3, 16, 16) in [0, 1], in steps of 1/255."""
    return raw(torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed))) / 255


def raw(pair):
    return (pair * 255).round().byte()


def draw(config, seed, size):
    """Whether the frames change places, and the recipe."""
    random = np.random.default_rng(seed)
    backwards, mirrored = draw_flips(config, random)
    return backwards, Recipe(draw_windows(config, mirrored, size, random), draw_colour(config, random))


def cook(pair, recipe):
    return augment(raw(pair)[:, None], Recipe.stack([recipe]))[0][:, 0]


def run(pair, config, seed):
    backwards, recipe = draw(config, seed, pair.shape[-1])
    return cook(pair.flip(0) if backwards else pair, recipe)


@given(seed=seeds)
def test_without_augmentation_a_pair_stays_as_it_is(seed):
    pair = random_pair(seed % 7)
    close(run(pair, STILL, seed), pair, atol=1e-5)


# As the field does it, step by step


def step_by_step(pair, config, random):
    """(2, 3, R, R) in [0, 1]: flip, rotation, window, colours, each on the picture that the one before has made."""
    if random.uniform() < config.time_flip:
        pair = pair.flip(0)
    elif random.uniform() < config.horizontal_flip:
        pair = pair.flip(-1)
    if config.rotation or config.window != (1, 1):
        groups = pair.split(1) if random.uniform() < config.own_window else (pair,)
        angle = random.uniform(-config.rotation, config.rotation)
        pair = torch.cat([view(group, angle, config, random) for group in groups])
    return jittered(pair, config, random)


def view(frames, degrees, config, random):
    side = random.uniform(*config.window)
    x, y = (random.uniform(-1, 1, 2) * abs(1 - side)).tolist()
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = torch.tensor([[cosine, -sine], [sine, cosine]])
    theta = torch.cat([side * turn, turn @ torch.tensor([[x], [y]])], dim=1)
    grid = F.affine_grid(theta.expand(len(frames), 2, 3), list(frames.shape), align_corners=False)
    return F.grid_sample(frames, grid, padding_mode="border", align_corners=False)


def jittered(pair, config, random):
    luma = torch.from_numpy(RGB_TO_YIQ[0]).float().view(3, 1, 1)

    def contrast(pair, factor):
        return factor * pair + (1 - factor) * (luma * pair).sum(dim=1).mean()

    def saturation(pair, factor):
        return factor * pair + (1 - factor) * (luma * pair).sum(dim=1, keepdim=True)

    def hue(pair, turns):
        cosine, sine = math.cos(2 * math.pi * turns), math.sin(2 * math.pi * turns)
        turn = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
        return torch.einsum("dc,nchw->ndhw", torch.from_numpy(YIQ_TO_RGB @ turn @ RGB_TO_YIQ).float(), pair)

    steps = [(lambda pair, factor: factor * pair, config.brightness), (contrast, config.contrast)]
    steps.append((saturation, config.saturation))
    changes = [(change, random.uniform(1 - x, 1 + x)) for change, x in steps if x]
    if config.hue:
        changes.append((hue, random.uniform(-config.hue, config.hue)))
    for index in random.permutation(len(changes)):
        change, value = changes[index]
        pair = change(pair, value)
    return pair.clamp(0, 1)


@given(seed=seeds, own_window=st.floats(0, 1))
def test_a_recipe_does_what_the_steps_do_one_after_the_other(seed, own_window):
    """Of pictures that none of the steps brings out of range: they are clamped once, at the end."""
    config = replace(STRONG, own_window=own_window, brightness=0.2, contrast=0.3, saturation=0.3, hue=0.1)
    pair = raw(0.35 + 0.3 * random_pair(seed % 7, 32, 32)) / 255
    close(run(pair, config, seed), step_by_step(pair, config, np.random.default_rng(seed)), atol=2e-4)


def test_pairs_of_a_batch_have_recipes_of_their_own():
    pairs = [random_pair(seed) for seed in range(5)]
    recipes = [draw(STRONG, seed, 16)[1] for seed in range(5)]
    together = augment(torch.stack([raw(pair) for pair in pairs], dim=1), Recipe.stack(recipes))[0]
    for number, (pair, recipe) in enumerate(zip(pairs, recipes, strict=True)):
        close(together[:, number], cook(pair, recipe), atol=1e-6)


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
    """On a ramp from 0 to (nearly) 1 along x: less contrast, the same slope everywhere, no value from outside."""
    ramp = (4 * torch.arange(64) / 255).expand(2, 3, 64, 64)
    row = run(ramp, replace(STILL, window=(side, side)), seed)[0, 0, 32]
    assert (row.diff() >= -1e-5).all()
    assert (row[-1] - row[0]).item() == pytest.approx(side, abs=0.03)
    close(row.diff()[10:-10], row.diff()[32].expand(43), atol=1e-4)


@settings(max_examples=40)
@given(seed=seeds, side=st.floats(1.05, 1.5))
def test_a_large_window_shrinks_the_picture_and_repeats_its_edge(seed, side):
    ramp = (4 * torch.arange(64) / 255).expand(2, 3, 64, 64)
    row = run(ramp, replace(STILL, window=(side, side)), seed)[0, 0, 32]
    assert row[0].item() == pytest.approx(0, abs=0.01)
    assert row[-1].item() == pytest.approx(252 / 255, abs=0.01)
    inside = row.diff()[(row[:-1] > 0.1) & (row[1:] < 0.9)]
    close(inside, torch.full_like(inside, side * 4 / 255), atol=1e-3)


@settings(max_examples=40)
@given(seed=seeds)
def test_rotation_turns_about_the_centre_by_no_more_than_asked(seed):
    """On a ramp along x, the slope at the centre says the angle."""
    ramp = (3 * torch.arange(65) / 255).expand(2, 3, 65, 65)
    turned = run(ramp, replace(STILL, rotation=20.0), seed)[0, 0]
    across, down = turned[32, 33] - turned[32, 31], turned[33, 32] - turned[31, 32]
    assert turned[32, 32].item() == pytest.approx(96 / 255, abs=1e-3)
    assert torch.hypot(across, down).item() == pytest.approx(6 / 255, rel=0.02)
    assert abs(torch.rad2deg(torch.atan2(down, across)).item()) <= 20.5


def test_rotations_are_spread():
    ramp = (3 * torch.arange(65) / 255).expand(2, 3, 65, 65)
    slopes = [
        (turned[33, 32] - turned[31, 32]).item()
        for turned in (run(ramp, replace(STILL, rotation=20.0), seed)[0, 0] for seed in range(40))
    ]
    assert min(slopes) < -0.005
    assert max(slopes) > 0.005


# Colours


def changed(pair, change):
    """A change of colours alone."""
    own, mean = change
    recipe = Recipe(torch.eye(2, 3).expand(2, 2, 3), torch.from_numpy(np.stack([own, mean])).float())
    return cook(pair, recipe)


def grey_of(pair):
    return (torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1) * pair).sum(dim=1, keepdim=True)


def test_brightness_multiplies():
    close(changed(random_pair(), _brightness(0.8)), 0.8 * random_pair(), atol=1e-5)


def test_contrast_pivots_on_the_mean_grey():
    pair = random_pair()
    close(changed(pair, _contrast(0.5)), 0.5 * pair + 0.5 * grey_of(pair).mean(), atol=1e-5)


def test_no_saturation_is_grey():
    pair = random_pair()
    close(changed(pair, _saturation(0.0)), grey_of(pair).expand_as(pair), atol=1e-5)
    close(changed(pair, _saturation(1.0)), pair, atol=1e-5)


@given(hue=st.floats(-0.5, 0.5), level=st.integers(0, 255))
def test_hue_leaves_grey_alone(hue, level):
    pair = torch.full((2, 3, 2, 2), level / 255)
    close(changed(pair, _hue(hue)), pair, atol=1e-5)


def test_hue_keeps_brightness_and_changes_the_colour():
    pair = raw(0.4 + 0.1 * random_pair()) / 255
    turned = changed(pair, _hue(0.25))
    close(grey_of(turned), grey_of(pair), atol=1e-5)
    assert (turned - pair).abs().max() > 0.02
    own, back = _hue(0.25)[0], _hue(-0.25)[0]
    np.testing.assert_allclose(back @ own, np.eye(3), atol=1e-12)


# Stills' flows and other backgrounds, in the same sampling


def smooth(seed, size=48):
    """A pair of smooth pictures."""
    coarse = torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    return raw(F.interpolate(coarse, (size, size), mode="bicubic", align_corners=True).clamp(0, 1)) / 255


@settings(max_examples=40)
@given(seed=seeds)
def test_a_stills_flow_comes_first(seed):
    random = np.random.default_rng(seed)
    flow, pair = torch.stack([bent(random), bent(random)]), smooth(seed % 5)
    _, recipe = draw(STRONG, seed, 48)
    # Where a flow bends sharply, or meets the rim, one sampling and two differ: in few pixels, more at strong contrast.
    apart = (cook(pair, replace(recipe, flow=flow)) - cook(warp(pair, flow, exact=True), recipe)).abs()
    assert apart.mean() < 0.003
    assert apart.flatten().quantile(0.99) < 0.02


@settings(max_examples=40)
@given(seed=seeds)
def test_the_place_behind_people_comes_before_flips_and_windows(seed):
    random = np.random.default_rng(seed)
    pair, other = smooth(seed % 5), raw(smooth(seed % 5 + 1)[0])
    mattes = torch.zeros(2, 64, 64, dtype=torch.uint8)
    mattes[:, 20:] = torch.linspace(0, 255, 64).byte()
    backdrop = Backdrop.draw(mattes, other, random)
    _, recipe = draw(STRONG, seed, 48)
    first = cook(pair, replace(draw(STILL, 0, 48)[1], backdrop=backdrop))
    # At the matte's edge one sampling and two differ: in few pixels, at whatever contrast the colours have.
    apart = (cook(pair, replace(recipe, backdrop=backdrop)) - cook(first, recipe)).abs()
    assert apart.mean() < 0.01
    assert apart.flatten().quantile(0.99) < 0.1


def test_pairs_without_a_flow_or_a_backdrop_stay_what_they_are_beside_others():
    random, pair = np.random.default_rng(0), random_pair(1)
    _, plain = draw(STRONG, 3, 16)
    mattes = torch.zeros(2, 64, 64, dtype=torch.uint8)
    backdrop = Backdrop.draw(mattes, raw(random_pair())[0], random)
    other = replace(plain, flow=torch.stack([bent(random), bent(random)]), backdrop=backdrop)
    both = augment(raw(pair)[:, None].expand(-1, 2, -1, -1, -1), Recipe.stack([plain, other]))[0]
    close(both[:, 0], cook(pair, plain), atol=1e-4)
    assert (both[:, 1] - both[:, 0]).abs().max() > 0.05


# Landmarks


def dots(places, size=96):
    """A picture with a soft white dot at each of `places` (N, 2), of one colour each: red, green, blue."""
    grid = coordinate_grid(size, size, places)
    spots = torch.exp(-((grid - places[:, None, None]) ** 2).sum(dim=-1) / 0.004)
    return raw(spots)


def brightest(picture):
    """The (x, y) of each colour's centre of mass: (3, 2)."""
    grid = coordinate_grid(picture.shape[1], picture.shape[2], picture)
    weights = torch.where(picture > 0.3 * picture.amax(dim=(1, 2), keepdim=True), picture, 0)
    return torch.einsum("chw,hwd->cd", weights, grid) / weights.sum(dim=(1, 2))[:, None]


@settings(max_examples=60)
@given(seed=seeds, still=st.booleans())
def test_landmarks_land_where_the_pictures_content_does(seed, still):
    random = np.random.default_rng(seed)
    places = torch.from_numpy(random.uniform(-0.35, 0.35, (3, 2))).float()
    config = replace(STILL, horizontal_flip=0.5, rotation=20, window=(0.8, 1.3), own_window=0.5)
    _, recipe = draw(config, seed, 96)
    if still:
        recipe = replace(recipe, flow=torch.stack([bent(random), bent(random)]))
    meshes = torch.zeros(2, 478, 2)
    vertices = [1, 4, 5]  # on the face's middle, so that a flip leaves them theirs
    meshes[:, vertices] = places
    carried = carry(meshes, recipe)[:, vertices]
    pictures = augment(dots(places)[None, None].expand(2, 1, -1, -1, -1), Recipe.stack([recipe]))[0][:, 0]
    for picture, expected in zip(pictures, carried, strict=True):
        if expected.abs().max() < 0.8:  # the dot is not cut off
            close(brightest(picture), expected, atol=0.012)  # half a pixel


@given(seed=seeds)
def test_a_mirrored_face_has_left_and_right_swapped(seed):
    meshes = torch.rand(2, 478, 2, generator=torch.Generator().manual_seed(seed % 7))
    _, recipe = draw(replace(STILL, horizontal_flip=1.0), seed, 64)
    close(carry(meshes, recipe), meshes[:, MIRROR] * torch.tensor([-1.0, 1.0]), atol=1e-6)


def test_no_face_stays_none():
    _, recipe = draw(STRONG, 0, 64)
    recipe = replace(recipe, flow=torch.stack([bent(np.random.default_rng(0))] * 2))
    meshes = torch.zeros(2, 478, 2)
    meshes[1] = torch.nan
    carried = carry(meshes, recipe)
    assert carried[0].isfinite().all()
    assert carried[1].isnan().all()
