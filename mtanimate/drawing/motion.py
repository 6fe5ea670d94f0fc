"""Keypoints, local affine frames and part masks as pictures."""

import numpy as np
import torch
from torch import Tensor

from mtanimate.drawing.colours import token_colours
from mtanimate.drawing.ink import Colour, Ink, Point
from mtanimate.geometry import resize
from mtanimate.models.motion import Motion

_WHITE = (255, 255, 255)
_AXIS = 0.16  # in coordinates: how long the axes of a usual part's matrix are drawn


def draw_keypoints(picture: np.ndarray, keypoints: Tensor, colours: Tensor | None = None) -> np.ndarray:
    """Discs on uint8 RGB (H, W, 3) at keypoints (K, 2), (x, y) in [-1, 1]; those outside are drawn at the rim.

    colours: (K, 3) in [0, 1]; by default the tokens' own.
    """
    ink = Ink(picture)
    _discs(ink, keypoints, _rgb(token_colours(len(keypoints)) if colours is None else colours), picture.shape)
    return ink.picture()


def draw_motion(picture: np.ndarray, motion: Motion, scale: float) -> np.ndarray:
    """As `draw_keypoints`, of a motion of batch 1, with the two axes of each matrix: where A takes (1, 0), a thick
    line, and (0, 1), a thin one. Axes that are known up to sign point both ways.

    scale: coordinates a unit of A; see `axis_scale`.
    """
    ink = Ink(picture)
    colours = _rgb(token_colours(motion.keypoints.shape[1]))
    thickness = _radius(picture.shape) / 2
    points, matrices = motion.keypoints[0].clamp(-1, 1).cpu(), scale * motion.affine[0].cpu()
    for point, matrix, colour in zip(points, matrices, colours, strict=True):
        for tip, thick in ((matrix[:, 1], 0.6 * thickness), (matrix[:, 0], thickness)):
            start = _pixel((point - tip if motion.kind == "axes" else point).tolist(), picture.shape)
            end = _pixel((point + tip).tolist(), picture.shape)
            ink.line(start, end, _WHITE, thick + 2)
            ink.line(start, end, colour, thick)
    _discs(ink, motion.keypoints[0], colours, picture.shape, 0.7)
    return ink.picture()


def axis_scale(motion: Motion) -> float:
    """What makes the axes of a usual part of this motion's first picture `_AXIS` long."""
    length = motion.affine[0].norm(dim=-2).median().item()
    return _AXIS / max(length, 1e-6)


def colour_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks (B, K+1, h, w), background first -> (B, 3, *size) in [0, 1]: each pixel the mixture of its parts'
    colours, the background grey."""
    colours = torch.cat([torch.full((1, 3), 0.25), token_colours(masks.shape[1] - 1)]).to(masks)
    return resize(torch.einsum("bkhw,kc->bchw", masks, colours), size)


def _discs(ink: Ink, keypoints: Tensor, colours: list[Colour], shape: tuple[int, ...], size: float = 1) -> None:
    radius = size * _radius(shape)
    for point, colour in zip(keypoints.clamp(-1, 1).tolist(), colours, strict=True):
        centre = _pixel(point, shape)
        ink.disc(centre, radius + 1, _WHITE)
        ink.disc(centre, radius, colour)


def _radius(shape: tuple[int, ...]) -> float:
    return max(2.5, min(shape[:2]) / 45)


def _pixel(point: list[float], shape: tuple[int, ...]) -> Point:
    """-1 and 1 are the centres of the first and the last pixel."""
    return (point[0] + 1) / 2 * (shape[1] - 1) + 0.5, (point[1] + 1) / 2 * (shape[0] - 1) + 0.5


def _rgb(colours: Tensor) -> list[Colour]:
    return [tuple(colour) for colour in (colours * 255).round().int().tolist()]
