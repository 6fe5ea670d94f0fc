"""The paper's augmentation of a pair of frames: the same draw for both."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from mtanimate.config import AugmentationConfig

# RGB -> luma and two chroma axes (YIQ): hue turns the chroma plane, saturation scales it.
RGB_TO_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])


def augment(pair: Tensor, config: AugmentationConfig, generator: torch.Generator) -> Tensor:
    """(2, 3, H, W) in [0, 1], source first -> the same shape: time or space flip, crop, colour jitter."""

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * torch.rand((), generator=generator).item()

    if uniform(0, 1) < config.time_flip:
        pair = pair.flip(0)
    elif uniform(0, 1) < config.horizontal_flip:
        pair = pair.flip(-1)
    if config.crop < 1:
        groups = pair.split(1) if uniform(0, 1) < config.own_crop else (pair,)
        cropped = [_crop(group, uniform(config.crop, 1), uniform(0, 1), uniform(0, 1)) for group in groups]
        pair = torch.cat(cropped)
    return _jitter(
        pair,
        brightness=uniform(1 - config.brightness, 1 + config.brightness),
        contrast=uniform(1 - config.contrast, 1 + config.contrast),
        saturation=uniform(1 - config.saturation, 1 + config.saturation),
        hue=uniform(-config.hue, config.hue),
    )


def _crop(pair: Tensor, fraction: float, x: float, y: float) -> Tensor:
    """A crop of `fraction` of the side at relative place (x, y), enlarged back."""
    size = pair.shape[2:]
    height, width = (round(fraction * side) for side in size)
    top, left = round(y * (size[0] - height)), round(x * (size[1] - width))
    window = pair[:, :, top : top + height, left : left + width]
    return F.interpolate(window, size=size, mode="bilinear", align_corners=False, antialias=True)


def _jitter(pair: Tensor, brightness: float, contrast: float, saturation: float, hue: float) -> Tensor:
    """Factors 1, 1, 1 and hue 0 (in turns) leave the pair as it is. Contrast pivots on the mean grey."""
    angle = 2 * math.pi * hue
    cosine, sine = saturation * math.cos(angle), saturation * math.sin(angle)
    turn = torch.tensor([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    matrix = brightness * contrast * torch.linalg.inv(RGB_TO_YIQ) @ turn @ RGB_TO_YIQ
    grey = brightness * torch.einsum("c,nchw->", RGB_TO_YIQ[0], pair) / pair[:, 0].numel()
    return (torch.einsum("dc,nchw->ndhw", matrix, pair) + (1 - contrast) * grey).clamp(0, 1)
