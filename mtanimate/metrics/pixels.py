"""Distances of pictures by their pixels: L1, the squared error behind PSNR, SSIM."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

# SSIM's constants: Wang et al., "Image quality assessment", 2004. The window has 11 x 11 pixels.
_SIGMA, _RADIUS = 1.5, 5
_C1, _C2 = 0.01**2, 0.03**2


def l1(truth: Tensor, generated: Tensor) -> Tensor:
    """Mean |difference| over pixels and channels: two (B, 3, H, W) in [0, 1] -> (B,) in [0, 1]."""
    return (truth - generated).abs().mean(dim=(1, 2, 3))


def squared_error(truth: Tensor, generated: Tensor) -> Tensor:
    """Mean squared difference over pixels and channels: two (B, 3, H, W) in [0, 1] -> (B,) in [0, 1]."""
    return (truth - generated).square().mean(dim=(1, 2, 3))


def psnr(squared_error: float) -> float:
    """Peak signal-to-noise ratio in dB for pictures in [0, 1]; infinite for equal pictures."""
    return -10 * math.log10(squared_error) if squared_error > 0 else math.inf


def ssim(truth: Tensor, generated: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004): two (B, 3, H, W) in [0, 1] -> (B,), 1 for equal pictures.

    Gaussian window of sigma 1.5 (11 x 11), population covariance, each channel alone, then the mean over channels
    and over all places where the whole window lies in the picture. Raises ValueError for pictures smaller than it.
    """
    if min(truth.shape[2:]) <= 2 * _RADIUS:
        raise ValueError(f"SSIM needs pictures of at least {2 * _RADIUS + 1} pixels a side")
    if generated.device.type == "mps":  # which has no float64
        truth, generated = truth.cpu(), generated.cpu()
    # In float64: a variance is a small difference of squares.
    x, y = truth.double().flatten(0, 1)[:, None], generated.double().flatten(0, 1)[:, None]
    mean_x, mean_y = _windowed(x), _windowed(y)
    variance_x = _windowed(x * x) - mean_x**2
    variance_y = _windowed(y * y) - mean_y**2
    covariance = _windowed(x * y) - mean_x * mean_y
    similarity = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    similarity /= (mean_x**2 + mean_y**2 + _C1) * (variance_x + variance_y + _C2)
    return similarity.mean(dim=(1, 2, 3)).unflatten(0, truth.shape[:2]).mean(dim=1)


def _windowed(images: Tensor) -> Tensor:
    """The Gaussian mean around every pixel that has the whole window around it: (N, 1, H, W) -> (N, 1, h, w)."""
    offsets = torch.arange(-_RADIUS, _RADIUS + 1, device=images.device, dtype=images.dtype)
    window = torch.exp(-(offsets**2) / (2 * _SIGMA**2))
    window /= window.sum()
    return F.conv2d(F.conv2d(images, window[None, None, None]), window[None, None, :, None])
