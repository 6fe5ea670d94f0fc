"""Squares of a picture: what is cut out of it, never padded and never stretched."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Square:
    """A square of a picture, in pixels: its left and top edges and its side."""

    x: int
    y: int
    side: int

    def cut(self, frames: np.ndarray) -> np.ndarray:
        """(..., H, W, 3) -> (..., side, side, 3), a view."""
        return frames[..., self.y : self.y + self.side, self.x : self.x + self.side, :]


def centred_square(width: int, height: int) -> Square:
    """The largest square in the middle of a picture: nothing is ever stretched."""
    side = min(width, height)
    return Square((width - side) // 2, (height - side) // 2, side)


def square_around(x: float, y: float, side: float, width: int, height: int) -> Square:
    """The square around a point, moved into the picture, and smaller only where the picture is too small for it.

    x, y: the wanted centre, right and down from the picture's top left corner; side, width, height: pixels.
    """
    whole = max(1, min(round(side), width, height))
    left = min(max(round(x - whole / 2), 0), width - whole)
    top = min(max(round(y - whole / 2), 0), height - whole)
    return Square(left, top, whole)
