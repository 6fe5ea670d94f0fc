"""Figure 3 of the paper: a row a token, with the driving picture, its mask, and its attention at each layer."""

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from mtanimate.drawing.colours import token_colours
from mtanimate.drawing.heat import BAR, OPACITY, colour_bar, dimmed, overlay, to_grey
from mtanimate.drawing.motion import draw_keypoints
from mtanimate.drawing.sheets import Label, Sheet
from mtanimate.geometry import resize

_WIDTH, _HEIGHT = 1400, 1120  # pixels that the pictures of a figure may take together
_SHORTEST = 200  # the colour bar
_SMALLEST, _LARGEST = 64, 200  # one of them
_GAP, _LINE, _NUMBERS = 4, 20, 52  # between pictures, of a title, beside rows


@dataclass(frozen=True)
class TokenTable:
    """The figure of these tokens (from 0) of `count`, with a column for each of `titles` after picture and mask.

    The rows are folded into as many blocks side by side as make the pictures largest.
    """

    tokens: list[int]
    count: int
    titles: list[str]

    @property
    def columns(self) -> list[str]:
        return ["driving", "mask", *self.titles]

    @property
    def blocks(self) -> int:
        return max(range(1, len(self.tokens) + 1), key=self._room)

    @property
    def side(self) -> int:
        """Of a picture, in pixels."""
        return min(max(self._room(self.blocks) // 8 * 8, _SMALLEST), _LARGEST)

    def _room(self, blocks: int) -> int:
        return min(_WIDTH // (blocks * len(self.columns)), _HEIGHT // self._deep(blocks))

    def _deep(self, blocks: int) -> int:
        return math.ceil(len(self.tokens) / blocks)

    def sheet(self) -> Sheet:
        """Boxes row by row."""
        above = _LINE * (1 + max(title.count("\n") for title in self.titles)) + 2 * _GAP
        side, deep = self.side, self._deep(self.blocks)
        block_width = _NUMBERS + len(self.columns) * (side + _GAP) + 3 * _GAP
        colours = token_colours(self.count).tolist()
        boxes: list[tuple[int, int]] = []
        labels: list[Label] = []
        for index, token in enumerate(self.tokens):
            block, row = divmod(index, deep)
            left, top = block * block_width + _NUMBERS, above + row * (side + _GAP)
            here = [(left + column * (side + _GAP), top) for column in range(len(self.columns))]
            boxes += here
            labels.append(Label(left - _NUMBERS / 2, top + side / 2, str(token + 1), tuple(colours[token])))
            if row == 0:
                labels.append(Label(left - _NUMBERS / 2, above / 2, "token"))
                labels += [
                    Label(x + side / 2, above / 2, title) for (x, _), title in zip(here, self.columns, strict=True)
                ]
        height = above + deep * (side + _GAP) + 2 * _GAP
        width = self.blocks * block_width
        bar, written = colour_bar(width, above, max(height - above - 3 * _GAP, _SHORTEST), opaque=False)
        return Sheet(width + BAR, max(height, above + _SHORTEST + 10), boxes, labels + written, [bar])

    def pictures(self, driving: np.ndarray, keypoints: Tensor, masks: Tensor, maps: Tensor) -> list[np.ndarray]:
        """What goes into the sheet's boxes.

        driving: uint8 RGB (side, side, 3). keypoints: (K, 2) in [-1, 1]. masks: (K, h, w), the parts'.
        maps: (titles, K, rows, columns), attention to the patches as a multiple of an even look.
        """
        grey, colours = to_grey(driving), token_colours(self.count)
        weights = resize(masks[None].float(), (self.side, self.side))[0]
        pictures: list[np.ndarray] = []
        for token in self.tokens:
            pictures.append(draw_keypoints(driving, keypoints[token : token + 1], colours[token : token + 1]))
            pictures.append(_tinted(grey, weights[token], colours[token]))
            pictures += list(overlay(grey, maps[:, token]))
        return pictures


def _tinted(grey: np.ndarray, weight: Tensor, colour: Tensor) -> np.ndarray:
    """A picture (H, W) in grey, darkened where a mask (H, W) is 0 and in the token's colour where it is 1."""
    tint = (OPACITY * 255 * weight[..., None] * colour).cpu().numpy()
    return dimmed(grey)[..., None] + tint.astype(np.uint8)
