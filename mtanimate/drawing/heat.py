"""Attention as colour: one scale for every map of every figure."""

import numpy as np
import torch
from matplotlib import colormaps
from torch import Tensor

from mtanimate.drawing.sheets import Label
from mtanimate.geometry import resize

# Attention as a multiple of what an even look at all tokens gives each. Fixed, so that tokens, layers, frames and
# figures can be compared; in powers of two, since maps reach from nearly even to one patch alone.
LOWEST, HIGHEST = -2, 4
_TICKS = {-2: "¼ or less", -1: "½", 0: "1", 1: "2", 2: "4", 3: "8", 4: "16 or more"}
OPACITY = 0.6  # of the colours over a grey picture, whose face must stay visible
BAR, _STRIP, _TALL = 140, 18, 420  # pixels: the colour bar with its labels, without, and how tall it gets
_COLOURS = (colormaps["inferno"](np.arange(256))[:, :3] * 255).round().astype(np.uint8)


def shades(relative: Tensor) -> np.ndarray:
    """Attention relative to an even look, any shape -> places on the colour scale, uint8."""
    place = (torch.log2(relative.clamp_min(1e-9)) - LOWEST) / (HIGHEST - LOWEST)
    return (place.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def paint(relative: Tensor) -> np.ndarray:
    """(..., H, W) -> uint8 RGB (..., H, W, 3), opaque."""
    return _COLOURS[shades(relative)]


def overlay(grey: np.ndarray, relative: Tensor) -> np.ndarray:
    """Maps (N, h, w), resized bilinearly to the picture, uint8 (H, W): colours over it, uint8 RGB (N, H, W, 3).

    A patch's value stands at its centre (Fig. 3: "we reshape and resize the sequence attention values").
    """
    large = resize(relative[:, None].float(), (grey.shape[0], grey.shape[1]))[:, 0]
    colours = (_COLOURS * OPACITY).astype(np.uint8)
    return colours[shades(large)] + dimmed(grey)[..., None]


def dimmed(grey: np.ndarray) -> np.ndarray:
    """What is left of a picture, uint8 (H, W), for colours to be added to."""
    return ((1 - OPACITY) * grey).astype(np.uint8)


def colour_bar(left: int, top: int, height: int, *, opaque: bool) -> tuple[tuple[int, int, np.ndarray], list[Label]]:
    """The scale as a picture with its left and top, and what is written at it: `BAR` pixels wide in all.

    opaque: as `paint` has it, else as `overlay` over a middle grey.
    """
    height = min(height, _TALL)
    powers = torch.linspace(HIGHEST, LOWEST, height)
    scale = torch.exp2(powers)[:, None].expand(height, _STRIP)
    strip = paint(scale) if opaque else overlay(np.full((height, _STRIP), 128, np.uint8), scale[None])[0]
    labels = [
        Label(left + _STRIP + 6, top + (height - 1) * (HIGHEST - power) / (HIGHEST - LOWEST), text, align="left")
        for power, text in _TICKS.items()
    ]
    name = Label(left + BAR - 14, top + height / 2, "attention (1: an even look)", turned=True)
    return (left, top, strip), [*labels, name]


def to_grey(picture: np.ndarray) -> np.ndarray:
    """uint8 RGB (H, W, 3) -> its brightness, uint8 (H, W)."""
    return (picture @ np.array([0.299, 0.587, 0.114])).round().astype(np.uint8)
