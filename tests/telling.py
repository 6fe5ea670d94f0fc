"""Videos whose every pixel tells where it is, and whose every frame tells its number."""

from fractions import Fraction
from pathlib import Path

import numpy as np

from mtanimate.video import VideoReader, VideoWriter

WIDTH, HEIGHT = 160, 120
COUNT = 40
# Neighbours differ much, or the encoder would leave the difference out; 17 * 33 is 1 modulo 40.
_ORDER, _BACK = 17, 33


def telling_frames(count: int = COUNT) -> np.ndarray:
    """(count, HEIGHT, WIDTH, 3): red grows to the right, green downwards, blue tells the number (below 40)."""
    frames = np.empty((count, HEIGHT, WIDTH, 3), np.uint8)
    frames[..., 0] = (10 + 1.5 * np.arange(WIDTH))[None, None, :]
    frames[..., 1] = (10 + 1.5 * np.arange(HEIGHT))[None, :, None]
    frames[..., 2] = (20 + 5.8 * (_ORDER * np.arange(count) % COUNT))[:, None, None]
    return frames


def write_telling_video(path: Path, count: int = COUNT, fps: Fraction | int = 25) -> Path:
    with VideoWriter(path, fps=Fraction(fps), width=WIDTH, height=HEIGHT) as writer:
        writer.write(telling_frames(count))
    return path


def told(path: Path) -> tuple[list[int], tuple[float, float, float]]:
    """A clip's frame numbers, and its square as its pixels tell it: left, top, side."""
    reader = VideoReader(path)
    frames = np.concatenate(list(reader.batches(32))).astype(float)
    levels = np.rint((frames[..., 2].mean(axis=(1, 2)) - 20) / 5.8).astype(int)
    numbers = (levels * _BACK % COUNT).tolist()
    middles = (np.arange(reader.width) + 0.5) / reader.width
    across, left = np.polyfit(middles, frames[..., 0].mean(axis=(0, 1)), 1)
    down, top = np.polyfit(middles, frames[..., 1].mean(axis=(0, 2)), 1)
    # a pixel's colour is that of its middle
    return numbers, ((left - 10) / 1.5 + 0.5, (top - 10) / 1.5 + 0.5, (across + down) / 3)
