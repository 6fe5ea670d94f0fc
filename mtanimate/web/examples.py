"""Examples that are computed here: the portrait that ships, and a clip in which it moves by warps alone."""

from fractions import Fraction
from math import pi
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mtanimate.files import replacing
from mtanimate.inspection.subject import PORTRAIT
from mtanimate.video import VideoWriter, read_image

_FPS, _SECONDS = 25, 4
# In the portrait, from -1 to 1 as `grid_sample` counts: the middle of the face, and the lower lip.
_FACE, _LIP = (0.0, 0.0), (0.0, 0.36)


def example_photo(folder: Path) -> Path:
    """The portrait that ships: Eileen Collins, photographed by NASA (public domain)."""
    path = folder / "portrait.jpg"
    if not path.exists():
        with replacing(path) as partial:
            partial.write_bytes(PORTRAIT.read_bytes())
    return path


def example_clip(folder: Path) -> Path:
    """A clip of the portrait whose head rolls, turns and nods, and whose mouth opens."""
    path = folder / "nod-and-talk.mp4"
    if not path.exists():
        picture = torch.from_numpy(read_image(PORTRAIT)).permute(2, 0, 1)[None].float()
        height, width = picture.shape[2:]
        with VideoWriter(path, fps=Fraction(_FPS), width=width, height=height, overwrite=True) as writer:
            for number in range(_FPS * _SECONDS):
                writer.write(_frame(picture, 2 * pi * number / (_FPS * _SECONDS)))
    return path


def _frame(picture: Tensor, phase: float) -> np.ndarray:
    """The portrait (1, 3, H, W) at a phase of its movement, from 0 to 2 pi: uint8 (1, H, W, 3). At 0 it is at rest."""
    roll, turn, nod = 0.16 * np.sin(phase), 0.09 * np.sin(2 * phase), 0.06 * np.sin(phase) * np.sin(2 * phase)
    mouth = 0.05 * np.sin(3 * phase) ** 2
    cos, sin = np.cos(roll), np.sin(roll)
    affine = torch.tensor([[[cos, -sin, -turn / 2], [sin, cos, nod / 2]]], dtype=torch.float32)
    grid = F.affine_grid(affine, list(picture.shape), align_corners=False)
    x, y = grid[..., 0], grid[..., 1]
    # The middle of a face that turns or nods moves farther than its rim.
    near = torch.exp(-((x - _FACE[0]) ** 2 + (y - _FACE[1]) ** 2) / (2 * 0.3**2))
    below = torch.exp(-((x - _LIP[0]) ** 2 / (2 * 0.22**2) + (y - _LIP[1] - 0.12) ** 2 / (2 * 0.13**2)))
    moved = torch.stack([x - turn * near, y + nod * near - mouth * below], dim=-1)
    frame = F.grid_sample(picture, moved, mode="bicubic", padding_mode="border", align_corners=False)
    return frame.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
