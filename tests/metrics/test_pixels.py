"""Distances of pictures, against scikit-image and plain NumPy."""

import math

import numpy as np
import pytest
import torch
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from mtanimate.metrics.measures import l1, psnr, squared_error, ssim


def tensor(picture):
    """(H, W, 3) in [0, 1] -> (1, 3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1))[None]).float()


def noise():
    return np.random.default_rng(3).random((2, 37, 52, 3))


def smooth():
    y, x = np.mgrid[:48, :40] / 48
    first = np.stack([x, y, 0.5 + 0.5 * np.sin(6 * x + 4 * y)], axis=2)
    return first, 0.9 * first + 0.05


def photo():
    picture = data.astronaut()[:200, 150:310] / 255
    return picture, np.clip(np.roll(picture, 2, axis=1) + np.random.default_rng(4).normal(0, 0.03, picture.shape), 0, 1)


@pytest.fixture(params=[noise, smooth, photo], ids=lambda make: make.__name__)
def pair(request):
    """Two pictures as float32 has them: (H, W, 3) in [0, 1]."""
    return [picture.astype(np.float32).astype(np.float64) for picture in request.param()]


def reference_ssim(first, second):
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return structural_similarity(first, second, data_range=1, channel_axis=2, **options)


def test_ssim_is_scikit_images(pair):
    (found,) = ssim(*map(tensor, pair)).tolist()
    assert found == pytest.approx(reference_ssim(*pair), abs=1e-6)
    assert found < 0.999


def test_ssim_of_large_pictures_is_scikit_images():
    """They are taken in strips."""
    pair = [np.tile(picture, (4, 4, 1))[:601, :570] for picture in photo()]
    pair[1] = np.roll(pair[1], 1, axis=0)
    pair = [picture.astype(np.float32).astype(np.float64) for picture in pair]
    both = torch.cat([tensor(pair[0]), tensor(pair[1])])
    found = ssim(both, both.flip(0)).tolist()
    assert found == pytest.approx([reference_ssim(*pair)] * 2, abs=1e-6)


def test_psnr_is_scikit_images(pair):
    (error,) = squared_error(*map(tensor, pair)).tolist()
    assert psnr(error) == pytest.approx(peak_signal_noise_ratio(*pair, data_range=1), rel=1e-6)


def test_l1_and_squared_error_are_numpys(pair):
    first, second = pair
    (found,) = l1(tensor(first), tensor(second)).tolist()
    assert found == pytest.approx(np.abs(first - second).mean(), abs=1e-6)
    (found,) = squared_error(tensor(first), tensor(second)).tolist()
    assert found == pytest.approx(np.square(first - second).mean(), abs=1e-6)


@pytest.mark.parametrize("distance", [l1, squared_error, ssim])
def test_each_frame_of_a_batch_is_its_own(distance):
    first, second = torch.rand(2, 4, 3, 20, 24, generator=torch.manual_seed(0))
    alone = [distance(a[None], b[None]) for a, b in zip(first, second, strict=True)]
    together = distance(first, second)
    assert together.shape == (4,)
    torch.testing.assert_close(together, torch.cat(alone))
    torch.testing.assert_close(together, distance(second, first))
    assert len(set(together.tolist())) == 4


def test_equal_pictures():
    picture = tensor(photo()[0])
    assert l1(picture, picture).item() == squared_error(picture, picture).item() == 0
    assert ssim(picture, picture).item() == pytest.approx(1, abs=1e-12)
    assert psnr(0.0) == math.inf


def test_a_brighter_picture():
    """Less what clips."""
    picture = tensor(photo()[0])
    brighter = (picture + 0.1).clamp(0, 1)
    clipped = (picture + 0.1 - brighter).mean().item()
    assert 0 < clipped < 0.05
    assert l1(picture, brighter).item() == pytest.approx(0.1 - clipped, abs=1e-6)
    unclipped = 0.8 * picture
    assert l1(unclipped, unclipped + 0.1).item() == pytest.approx(0.1, abs=0.005)


def test_pictures_too_small_for_a_window():
    for height, width in ((10, 40), (40, 10)):
        with pytest.raises(ValueError, match="at least 11 pixels"):
            ssim(*torch.rand(2, 1, 3, height, width))
    first, second = np.random.default_rng(0).random((2, 11, 11, 3)).astype(np.float32).astype(np.float64)
    assert ssim(tensor(first), tensor(second)).item() == pytest.approx(reference_ssim(first, second), abs=1e-6)
