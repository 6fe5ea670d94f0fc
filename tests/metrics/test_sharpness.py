"""Sharpness, against gradients worked out by hand."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mtanimate.metrics.measures import METRICS, measure
from mtanimate.metrics.sharpness import sharpness


def noise(batch=1, side=40):
    return torch.rand(batch, 3, side, side, generator=torch.manual_seed(1))


def landmarks(left, top, right, bottom):
    """(1, 4, 2): two corners of a box, a point within, and one that was not found."""
    middle = ((left + right) / 2, (top + bottom) / 2)
    return np.array([[(left, top), (right, bottom), middle, (np.nan, np.nan)]])


def test_the_truth_is_as_sharp_as_itself():
    ratios, counts = sharpness(noise(3), noise(3), None)
    assert ratios.tolist() == [1, 1, 1]
    assert counts.tolist() == [1, 1, 1]


def test_it_is_the_ratio_of_mean_gradients_of_the_luminance():
    truth, generated = noise(), noise(2)[1:] * 0.7
    found = []
    for frame in (truth, generated):
        light = np.tensordot([0.299, 0.587, 0.114], frame[0].numpy().astype(float), axes=1)
        down, across = np.gradient(light)
        found.append(np.hypot(down, across)[1:-1, 1:-1].mean())
    (ratio,), _ = sharpness(truth, generated, None)
    assert ratio == pytest.approx(found[1] / found[0], rel=1e-5)


def test_a_blurred_frame_is_less_sharp():
    (ratio,), _ = sharpness(noise(), F.avg_pool2d(noise(), 3, stride=1, padding=1), None)
    assert 0.1 < ratio < 0.6


def test_only_the_box_of_the_landmarks_counts():
    generated = noise()
    generated[:, :, 10:20, 5:25] = generated[:, :, 10:20, 5:25].mean()
    (inside,), _ = sharpness(noise(), generated, landmarks(7, 12, 22, 17))
    (outside,), _ = sharpness(noise(), generated, landmarks(27, 22, 38, 37))
    (whole,), _ = sharpness(noise(), generated, None)
    assert inside < 1e-4
    assert outside == 1
    assert 0.5 < whole < 0.95


@pytest.mark.parametrize("found", [np.full((1, 4, 2), np.nan), landmarks(50, 50, 60, 60), landmarks(-9, -9, -5, -5)])
def test_without_landmarks_in_the_frame_the_whole_frame_counts(found):
    generated = 0.5 * noise() + 0.1
    assert sharpness(noise(), generated, found)[0] == pytest.approx([0.5], rel=1e-4)


def test_a_box_that_reaches_out_of_the_frame_is_cut():
    assert sharpness(noise(), 0.5 * noise(), landmarks(-20, 30, 15, 70))[0] == pytest.approx([0.5], rel=1e-4)


def test_a_truth_of_one_colour_does_not_count():
    sums = measure(["sharpness"], torch.full((2, 3, 16, 16), 0.5), noise(2, 16), None, None)
    assert sums["sharpness"] == (0, 0)
    assert METRICS["sharpness"].value(sums["sharpness"]) is None
