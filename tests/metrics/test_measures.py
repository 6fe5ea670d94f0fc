"""Metrics by name: their sums over frames."""

import math

import numpy as np
import pytest
import torch

from mtanimate.errors import InputError
from mtanimate.metrics.detectors import Detections
from mtanimate.metrics.measures import DEFAULT, METRICS, added, measure, parse_metrics, ssim
from mtanimate.metrics.sharpness import sharpness

FRAMES = 4


def test_names():
    assert parse_metrics("aed, L1,akd,l1") == ["l1", "akd", "aed"]
    assert parse_metrics(",".join(DEFAULT)) == [
        *("l1", "akd", "akd_field", "mkr", "mkr_field", "aed", "aed_field"),
    ]
    assert parse_metrics(",".join(METRICS)) == list(METRICS)
    for wrong in ("", " , ", "l1,fid", "l1;akd"):
        with pytest.raises(InputError, match=r"--metrics .*: there are l1, akd, akd_field, mkr, "):
            parse_metrics(wrong)


def pictures(seed=0):
    return torch.rand(2, FRAMES, 3, 16, 20, generator=torch.manual_seed(seed))


def sightings(seed=0):
    """Of the truth and of what was generated; landmarks and a descriptor are missing in the second."""
    draw = np.random.default_rng(seed)
    both = [Detections(draw.uniform(0, 64, (FRAMES, 5, 2)), draw.normal(size=(FRAMES, 8))) for _ in range(2)]
    both[1].landmarks[1, 2:] = np.nan
    both[0].landmarks[2, 0] = np.nan
    both[1].descriptors[3] = np.nan
    return both


def l2_of_pixels(truth, generated):
    return (truth - generated).square().mean(dim=(1, 2, 3)).sqrt()


def test_sums_over_frames():
    truth, generated = pictures()
    seen, seen_generated = sightings()
    sums = measure(METRICS, truth, generated, seen, seen_generated, l2_of_pixels)
    assert list(sums) == list(METRICS)
    difference = truth.numpy().astype(float) - generated.numpy().astype(float)
    assert sums["l1"] == (pytest.approx(np.abs(difference).mean(axis=(1, 2, 3)).sum(), rel=1e-6), FRAMES)
    squared = np.square(difference).mean(axis=(1, 2, 3))
    assert sums["psnr"] == (pytest.approx(squared.sum(), rel=1e-6), FRAMES)
    assert sums["lpips"] == (pytest.approx(np.sqrt(squared).sum(), rel=1e-6), FRAMES)
    assert sums["ssim"] == (pytest.approx(ssim(truth, generated).sum().item()), FRAMES)
    distances = np.sqrt(np.square(seen.landmarks - seen_generated.landmarks).sum(axis=2))
    assert sums["akd"] == (pytest.approx(np.nansum(distances)), FRAMES * 5 - 3 - 1)
    assert sums["mkr"] == (3, FRAMES * 5 - 1)
    apart = np.sqrt(np.square(seen.descriptors - seen_generated.descriptors).sum(axis=1))
    assert sums["aed"] == (pytest.approx(np.nansum(apart)), FRAMES - 1)
    assert sums["aed_field"] == (pytest.approx(np.nansum(apart**2)), FRAMES - 1)
    along = np.abs(seen.landmarks - seen_generated.landmarks)
    assert sums["akd_field"] == (pytest.approx(np.nanmean(along, axis=(1, 2)).sum()), FRAMES)
    assert sums["mkr_field"] == (3 / 5, FRAMES)
    ratios, counts = sharpness(truth, generated, seen.landmarks)
    assert sums["sharpness"] == (pytest.approx(ratios.sum()), counts.sum())


def test_figures_of_sums():
    assert METRICS["akd"].value((6.0, 4)) == 1.5
    assert METRICS["psnr"].value((0.04, 4)) == pytest.approx(20)
    assert METRICS["l1"].value((0.0, 4)) == 0
    for name in METRICS:
        assert METRICS[name].value((0.0, 0)) is None


def test_equal_frames_have_no_psnr():
    truth, _ = pictures()
    sums = measure(METRICS, truth, truth, None, None)
    assert METRICS["psnr"].value(sums["psnr"]) is None
    assert METRICS["l1"].value(sums["l1"]) == 0
    one_differs = added(sums, measure(["psnr"], *pictures(1), None, None))
    assert METRICS["psnr"].value(one_differs["psnr"]) > 0


def test_what_cannot_be_measured_is_left_out():
    truth, generated = pictures()
    seen, seen_generated = sightings()
    nobody = [Detections(each.landmarks, None) for each in (seen, seen_generated)]
    assert list(measure(METRICS, truth, generated, None, None)) == ["l1", "psnr", "ssim", "sharpness"]
    for pair in ((seen, None), (None, seen)):
        assert list(measure(["akd", "mkr", "aed", "l1"], truth, generated, *pair)) == ["l1"]
    for pair in (nobody, (seen, nobody[1]), (nobody[0], seen_generated)):
        assert list(measure(["akd", "mkr", "aed"], truth, generated, *pair)) == ["akd", "mkr"]
    assert list(measure(["aed"], truth, generated, seen, seen_generated)) == ["aed"]
    assert measure([], truth, generated, seen, seen_generated) == {}


def test_sums_of_parts_are_those_of_the_whole():
    truth, generated = pictures()
    seen, seen_generated = sightings()
    whole = measure(METRICS, truth, generated, seen, seen_generated, l2_of_pixels)
    parts: dict = {}
    for part in (slice(0, 1), slice(1, 4)):
        sums = measure(METRICS, truth[part], generated[part], seen[part], seen_generated[part], l2_of_pixels)
        before = dict(parts)
        parts, old = added(parts, sums), parts
        assert old == before
    assert parts.keys() == whole.keys()
    for name, (summed, count) in whole.items():
        assert parts[name] == (pytest.approx(summed), count)


def test_added():
    assert added({"l1": (1.0, 2), "akd": (3.0, 1)}, {"l1": (0.5, 1), "aed": (2.0, 4)}) == {
        "l1": (1.5, 3),
        "akd": (3.0, 1),
        "aed": (2.0, 4),
    }
    assert added({}, {}) == {}


def test_a_nan_is_not_hidden():
    """A network that gives NaN has no good figures."""
    truth, generated = pictures()
    generated = generated.clone()
    generated[0, 0, 0, 0] = math.nan
    sums = measure(["l1", "psnr", "ssim"], truth, generated, None, None)
    assert all(math.isnan(summed) and count == FRAMES for summed, count in sums.values())
