"""Smooth pictures that move, and files of them."""

from fractions import Fraction
from pathlib import Path

import numpy as np

from mtanimate.video import VideoWriter

FPS = Fraction(30000, 1001)


def moving(count: int = 30, height: int = 48, width: int = 64) -> np.ndarray:
    """uint8 (count, height, width, 3)."""
    n, y, x = np.ogrid[:count, :height, :width]
    planes = (128 + 100 * np.sin((x + 2 * n) / 15 + y / 20 + phase) for phase in (0, 2, 4))
    return np.stack([plane.astype(np.uint8) for plane in planes], axis=-1)


def write(path: Path | str, frames: np.ndarray, fps: Fraction = FPS, **options) -> VideoWriter:
    """The frames as a video, a few at a time."""
    with VideoWriter(path, fps=fps, width=frames.shape[2], height=frames.shape[1], **options) as writer:
        for first in range(0, len(frames), 8):
            writer.write(frames[first : first + 8])
    return writer


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())
