"""The field's augmentation of a pair of frames: the same draw for both."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mtanimate.config import AugmentationConfig

# RGB -> luma and two chroma axes (YIQ): hue turns the chroma plane, saturation scales it.
RGB_TO_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
YIQ_TO_RGB = torch.linalg.inv(RGB_TO_YIQ)


def augment(pair: Tensor, config: AugmentationConfig, random: np.random.Generator) -> Tensor:
    """(2, 3, R, R) in [0, 1], source first -> the same shape: flip, rotation, window, colour jitter."""
    if random.uniform() < config.time_flip:
        pair = pair.flip(0)
    elif random.uniform() < config.horizontal_flip:
        pair = pair.flip(-1)
    if config.rotation or config.window != (1, 1):
        groups = pair.split(1) if random.uniform() < config.own_window else (pair,)
        angle = random.uniform(-config.rotation, config.rotation)
        pair = torch.cat([_view(group, angle, *_window(config, random)) for group in groups])
    return _jitter(pair, config, random)


def _window(config: AugmentationConfig, random: np.random.Generator) -> tuple[float, float, float]:
    """Side of a square window as a fraction of the picture's, and the offset (x, y) of its centre in [-1, 1]."""
    side = random.uniform(*config.window)
    x, y = (random.uniform(-1, 1, 2) * abs(1 - side)).tolist()
    return side, x, y


def _view(frames: Tensor, degrees: float, side: float, x: float, y: float) -> Tensor:
    """The frames turned about their centre, then seen through the window: one bilinear sampling, edge repeated."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = torch.tensor([[cosine, -sine], [sine, cosine]])
    theta = torch.cat([side * turn, turn @ torch.tensor([[x], [y]])], dim=1)
    grid = F.affine_grid(theta.expand(len(frames), 2, 3), list(frames.shape), align_corners=False)
    return F.grid_sample(frames, grid, padding_mode="border", align_corners=False)


def _jitter(pair: Tensor, config: AugmentationConfig, random: np.random.Generator) -> Tensor:
    factors = [(_brightness, config.brightness), (_contrast, config.contrast), (_saturation, config.saturation)]
    changes: list[tuple[Callable[[Tensor, float], Tensor], float]]
    changes = [(change, random.uniform(1 - x, 1 + x)) for change, x in factors if x]
    if config.hue:
        changes.append((_hue, random.uniform(-config.hue, config.hue)))
    for index in random.permutation(len(changes)):
        change, value = changes[index]
        pair = change(pair, value).clamp(0, 1)
    return pair


def _brightness(pair: Tensor, factor: float) -> Tensor:
    return factor * pair


def _contrast(pair: Tensor, factor: float) -> Tensor:
    """About the pair's mean grey."""
    grey = torch.einsum("c,nchw->", RGB_TO_YIQ[0], pair) / pair[:, 0].numel()
    return factor * pair + (1 - factor) * grey


def _saturation(pair: Tensor, factor: float) -> Tensor:
    grey = torch.einsum("c,nchw->nhw", RGB_TO_YIQ[0], pair)[:, None]
    return factor * pair + (1 - factor) * grey


def _hue(pair: Tensor, turns: float) -> Tensor:
    cosine, sine = math.cos(2 * math.pi * turns), math.sin(2 * math.pi * turns)
    turn = torch.tensor([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    return torch.einsum("dc,nchw->ndhw", YIQ_TO_RGB @ turn @ RGB_TO_YIQ, pair)
