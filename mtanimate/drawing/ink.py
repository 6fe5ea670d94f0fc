"""Lines and discs on a picture, with soft edges."""

import math

import numpy as np
from PIL import Image, ImageDraw

Point = tuple[float, float]  # x, y in pixels, from the picture's top left corner; pixel 0's centre is at 0.5
Colour = tuple[int, ...]

_FINE = 3  # drawn so much larger and reduced again: Pillow's shapes have hard edges


class Ink:
    """Draws on a copy of uint8 RGB (H, W, 3)."""

    def __init__(self, picture: np.ndarray) -> None:
        self._under = Image.fromarray(picture)
        self._layer = Image.new("RGBA", (self._under.width * _FINE, self._under.height * _FINE))
        self._draw = ImageDraw.Draw(self._layer)

    def disc(self, centre: Point, radius: float, colour: Colour) -> None:
        self._draw.circle(_fine(centre), radius * _FINE, fill=(*colour, 255))

    def line(self, start: Point, end: Point, colour: Colour, thickness: float) -> None:
        self._draw.line((_fine(start), _fine(end)), fill=(*colour, 255), width=max(1, round(thickness * _FINE)))

    def arrow(self, start: Point, end: Point, colour: Colour, thickness: float) -> None:
        """With its tip at `end`."""
        self.line(start, end, colour, thickness)
        angle = math.atan2(end[1] - start[1], end[0] - start[0])
        wing = min(5 * thickness, 0.6 * math.dist(start, end) + thickness)
        sides = (angle - 0.5, angle + 0.5)
        corners = [(end[0] - wing * math.cos(side), end[1] - wing * math.sin(side)) for side in sides]
        self._draw.polygon([_fine(end), *map(_fine, corners)], fill=(*colour, 255))

    def picture(self) -> np.ndarray:
        """uint8 RGB (H, W, 3)."""
        layer = self._layer.reduce(_FINE)
        return np.array(Image.alpha_composite(self._under.convert("RGBA"), layer).convert("RGB"))


def _fine(point: Point) -> Point:
    return point[0] * _FINE, point[1] * _FINE
