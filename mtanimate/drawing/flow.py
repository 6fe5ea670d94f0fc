"""Dense flow as colours and arrows: which way, and how far, what is seen here has moved."""

import math

import numpy as np
import torch
from torch import Tensor

from mtanimate.drawing.ink import Ink
from mtanimate.geometry import coordinate_grid, resize

FAR = 0.25  # in coordinates: an eighth of the picture; so far and farther has the full colour
_ARROWS = 12  # a side
_NEAR = 0.01  # what moved less has no arrow


def movement(flow: Tensor) -> Tensor:
    """Backward flow (B, h, w, 2), where in the source to read -> how far each place's content moved, in [-1, 1]."""
    return coordinate_grid(flow.shape[1], flow.shape[2], like=flow) - flow


def colour_flow(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """Backward flow (B, h, w, 2) -> (B, 3, *size) in [0, 1]: direction as hue, distance as chroma; still: white."""
    return _colours(resize(movement(flow).permute(0, 3, 1, 2).float(), size))


def draw_arrows(picture: np.ndarray, flow: Tensor) -> np.ndarray:
    """On uint8 RGB (H, W, 3), arrows of a flow (h, w, 2) from where things were in the source to where they are."""
    height, width = picture.shape[:2]
    moved = resize(movement(flow[None]).permute(0, 3, 1, 2).float(), (_ARROWS, _ARROWS))[0].permute(1, 2, 0).cpu()
    ink = Ink(picture)
    for row in range(_ARROWS):
        for column in range(_ARROWS):
            x, y = moved[row, column].tolist()
            if math.hypot(x, y) < _NEAR:
                continue
            head = ((column + 0.5) / _ARROWS * width, (row + 0.5) / _ARROWS * height)
            ink.arrow((head[0] - x * width / 2, head[1] - y * height / 2), head, (40, 40, 40), min(height, width) / 200)
    return ink.picture()


def colour_wheel(side: int) -> np.ndarray:
    """What the colours mean, uint8 RGB (side, side, 3), on white: the rim is `FAR`."""
    grid = coordinate_grid(side, side, like=torch.zeros(())) * 1.05
    inside = grid.norm(dim=-1) <= 1
    colours = _colours((FAR * grid).permute(2, 0, 1)[None])[0].permute(1, 2, 0)
    colours[~inside] = 1
    return (colours * 255).round().to(torch.uint8).numpy()


def _colours(moved: Tensor) -> Tensor:
    """(B, 2, H, W) -> (B, 3, H, W) in [0, 1]. Hues of equal lightness and chroma, by OKLab (Ottosson, 2020)."""
    far = (moved.norm(dim=1) / FAR).clamp_max(1)
    angle = torch.atan2(moved[:, 1], moved[:, 0])
    a, b = 0.13 * far * torch.cos(angle), 0.13 * far * torch.sin(angle)
    light = 1 - 0.28 * far
    long = (light + 0.3963377774 * a + 0.2158037573 * b) ** 3
    middle = (light - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (light - 0.0894841775 * a - 1.2914855480 * b) ** 3
    red = 4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short
    green = -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short
    blue = -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short
    linear = torch.stack([red, green, blue], dim=1).clamp(0, 1)
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp_min(1e-9) ** (1 / 2.4) - 0.055)
