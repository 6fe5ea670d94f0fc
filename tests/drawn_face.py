"""A drawn face that the detector takes for one: nobody's."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

# The detector's box in a drawing of side 1: its centre (x, y) and its side.
FACE = (0.51, 0.58, 0.74)
GREY = (120, 130, 140)


def scene(width: int, height: int, *places: tuple[int, int, int]) -> np.ndarray:
    """uint8 RGB (height, width, 3): a grey wall, and a face at each of the places (left, top, side)."""
    picture = Image.new("RGB", (width, height), GREY)
    for left, top, side in places:
        picture.paste(_face().resize((side, side), Image.Resampling.BICUBIC), (left, top))
    return np.array(picture)


def _face() -> Image.Image:
    picture = Image.new("RGB", (100, 100), GREY)
    draw = ImageDraw.Draw(picture)
    draw.ellipse((14, 0, 86, 98), fill=(90, 60, 45))  # hair
    draw.ellipse((20, 8, 80, 97), fill=(225, 180, 155))
    for x in (36, 64):
        draw.ellipse((x - 8, 41, x + 8, 49), fill=(250, 250, 250))
        draw.ellipse((x - 4, 41, x + 4, 49), fill=(40, 30, 30))
        draw.line((x - 10, 34, x, 31, x + 10, 34), fill=(70, 45, 35), width=4)
    draw.line((50, 46, 47, 62), fill=(190, 140, 115), width=2)
    draw.ellipse((43, 60, 57, 67), fill=(190, 140, 115))
    draw.ellipse((37, 74, 63, 83), fill=(170, 70, 70))
    draw.line((37, 78, 63, 78), fill=(90, 30, 30), width=2)
    return picture.filter(ImageFilter.GaussianBlur(0.8))
