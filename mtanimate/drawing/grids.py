"""Pictures in rows and columns."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

HEADER = 22  # pixels
GAP = 2


def labelled_grid(columns: dict[str, list[np.ndarray]]) -> np.ndarray:
    """Columns of uint8 RGB pictures (H, W, 3) of one size, by their titles -> one picture, titles on top."""
    height, width = next(iter(columns.values()))[0].shape[:2]
    rows = len(next(iter(columns.values())))
    size = (len(columns) * (width + GAP) - GAP, HEADER + rows * (height + GAP) - GAP)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=min(14, width / 8))
    for index, (title, pictures) in enumerate(columns.items()):
        left = index * (width + GAP)
        draw.text((left + width / 2, HEADER / 2), title, fill="black", font=font, anchor="mm")
        for row, picture in enumerate(pictures):
            sheet.paste(Image.fromarray(picture), (left, HEADER + row * (height + GAP)))
    return np.array(sheet)
