"""Attention of motion tokens to each other, as matrices."""

import math

import numpy as np
from torch import Tensor

from mtanimate.drawing.colours import token_colours
from mtanimate.drawing.heat import BAR, colour_bar, paint
from mtanimate.drawing.sheets import Label, Sheet

_ACROSS = 4  # matrices in a row of the figure
_CELL = 26  # pixels, at least: a token's number stands beside it
_SIDE = 260
_LEFT, _TOP, _APART = 66, 70, 22  # what is written beside a matrix takes


def cell_size(tokens: int) -> int:
    """Pixels of a matrix's element."""
    return max(_CELL, _SIDE // tokens)


def matrix_sheet(tokens: list[int], count: int, titles: list[str]) -> Sheet:
    """A matrix a title: a row for each of these tokens (from 0) of `count`, a column for each token it looks at."""
    cell = cell_size(count)
    width, height = _LEFT + count * cell + _APART, _TOP + len(tokens) * cell + _APART
    colours = [tuple(colour) for colour in token_colours(count).tolist()]
    boxes: list[tuple[int, int]] = []
    labels: list[Label] = []
    for index, title in enumerate(titles):
        row, column = divmod(index, _ACROSS)
        left, top = column * width + _LEFT, row * height + _TOP
        boxes.append((left, top))
        labels.append(Label(left + count * cell / 2, top - 50, f"{title}: looked at"))
        labels.append(Label(left - 52, top + len(tokens) * cell / 2, "token that looks", turned=True))
        for place, token in enumerate(tokens):
            labels.append(Label(left - 22, top + (place + 0.5) * cell, str(token + 1), colours[token]))
        for token in range(count):
            labels.append(Label(left + (token + 0.5) * cell, top - 20, str(token + 1), colours[token]))
    rows = math.ceil(len(titles) / _ACROSS)
    right = min(len(titles), _ACROSS) * width
    bar, written = colour_bar(right, _TOP, max(len(tokens) * cell, 200), opaque=True)
    return Sheet(right + BAR, max(rows * height, _TOP + 220), boxes, labels + written, [bar])


def matrix_pictures(matrices: Tensor, tokens: list[int]) -> list[np.ndarray]:
    """What goes into the sheet's boxes; matrices: (titles, K, K), as multiples of an even look, rows look."""
    cell = cell_size(matrices.shape[2])
    return [painted.repeat(cell, axis=0).repeat(cell, axis=1) for painted in paint(matrices[:, tokens])]
