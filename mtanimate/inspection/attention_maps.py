"""Attention maps: computed by the network, and drawn on one colour scale for every figure."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib import colormaps
from torch import Tensor

from mtanimate.geometry import resize
from mtanimate.inspection.drawing import draw_keypoints, token_colours
from mtanimate.inspection.sheets import Label, Sheet
from mtanimate.models.motion import Motion
from mtanimate.models.motion_transformer import MotionTransformer

# The colour scale, in powers of two of uniform attention: maps range from nearly uniform to one patch. It is fixed,
# so that tokens, layers, frames and figures can be compared.
LOWEST, HIGHEST = -2, 4
_TICKS = {-2: "¼ or less", -1: "½", 0: "1", 1: "2", 2: "4", 3: "8", 4: "16 or more"}
OPACITY = 0.6  # of the colours over a grey picture, whose face must stay visible
BAR, _STRIP, _TALL = 140, 18, 420  # pixels: width of the colour bar with labels and without, and its largest height
_COLOURS = (colormaps["inferno"](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
_ACROSS = 4  # matrices in a row of the figure
_CELL = 26  # pixels, at least: a token's number stands beside it
_SIDE = 260
_LEFT, _TOP, _APART = 66, 70, 22  # pixels of the labels beside a matrix, and between matrices
_WIDTH, _HEIGHT = 1400, 1120  # pixels that the pictures of a figure may take together
_SHORTEST = 200  # pixels of the colour bar
_SMALLEST, _LARGEST = 64, 200  # pixels of one picture
_GAP, _LINE, _NUMBERS = 4, 20, 52  # pixels between pictures, of a line of a title, of a row's number


@torch.inference_mode()
def estimate_with_attention(estimator: MotionTransformer, image: Tensor) -> tuple[Motion, Tensor]:
    """Estimates motion and keeps the attention.

    Rows attend, columns are attended to: M motion tokens first, then N image tokens, row by row. Q = M + N; with
    separate attention (Eq. 5-6), Q = M. A row sums to 1.

    Args:
        estimator: a Motion Transformer.
        image: (B, 3, R, R) in [0, 1].

    Returns:
        The motion, and the probabilities of every layer (B, L, heads, Q, M + N).
    """
    layers: list[Tensor] = []
    motion = estimator(image, layers)
    return motion, torch.stack(layers, dim=1).float()


def attention_rollout(probabilities: Tensor) -> Tensor:
    """Attention rollout (Abnar and Zuidema, 2020) up to each layer.

    Heads are averaged, half of each layer is the residual path, A' = (A + I) / 2, and layers are multiplied, the later
    from the left. Rows sum to 1.

    Args:
        probabilities: (B, L, heads, S, S).

    Returns:
        (B, L, S, S).
    """
    mean = probabilities.mean(dim=2)
    steps = (mean + torch.eye(mean.shape[-1], device=mean.device)) / 2
    rolled = [steps[:, 0]]
    for layer in range(1, steps.shape[1]):
        rolled.append(steps[:, layer] @ rolled[-1])
    return torch.stack(rolled, dim=1)


def part_rows(matrices: Tensor, parts: int, motion_tokens: int) -> Tensor:
    """How each part attends, the mean of its tokens (two in `release`).

    Args:
        matrices: (..., Q, S).
        parts: the number of parts K.
        motion_tokens: the number of motion tokens M.

    Returns:
        (..., K, S).
    """
    return matrices[..., :motion_tokens, :].unflatten(-2, (-1, parts)).mean(dim=-3)


def image_maps(rows: Tensor, motion_tokens: int) -> Tensor:
    """Attention to the patches of a square picture.

    Args:
        rows: (..., K, M + N).
        motion_tokens: the number of motion tokens M.

    Returns:
        (..., K, n, n), as a multiple of uniform attention, 1 / (M + N).
    """
    patches = rows[..., motion_tokens:] * rows.shape[-1]
    side = math.isqrt(patches.shape[-1])
    return patches.unflatten(-1, (side, side))


def part_matrices(rows: Tensor, parts: int, motion_tokens: int) -> Tensor:
    """Attention of parts to parts, for each the mean over its tokens (two in `release`).

    Args:
        rows: (..., K, M + N).
        parts: the number of parts K.
        motion_tokens: the number of motion tokens M.

    Returns:
        (..., K, K), as a multiple of uniform attention, 1 / (M + N).
    """
    return rows[..., :motion_tokens].unflatten(-1, (-1, parts)).mean(dim=-2) * rows.shape[-1]


def shades(relative: Tensor) -> np.ndarray:
    """Attention relative to uniform attention, any shape, as uint8 positions on the colour scale."""
    place = (torch.log2(relative.clamp_min(1e-9)) - LOWEST) / (HIGHEST - LOWEST)
    return (place.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def paint(relative: Tensor) -> np.ndarray:
    """Colours attention (..., H, W) opaquely: uint8 RGB (..., H, W, 3)."""
    return _COLOURS[shades(relative)]


def overlay(grey: np.ndarray, relative: Tensor) -> np.ndarray:
    """Lays attention maps in colour over a grey picture.

    A patch's value stands at its centre (Fig. 3: "we reshape and resize the sequence attention values").

    Args:
        grey: uint8 (H, W).
        relative: (N, h, w), relative to uniform attention.

    Returns:
        uint8 RGB (N, H, W, 3).
    """
    large = resize(relative[:, None].float(), (grey.shape[0], grey.shape[1]))[:, 0]
    colours = (_COLOURS * OPACITY).astype(np.uint8)
    return colours[shades(large)] + dimmed(grey)[..., None]


def dimmed(grey: np.ndarray) -> np.ndarray:
    """The share of a grey picture, uint8 (H, W), that colours are added to."""
    return ((1 - OPACITY) * grey).astype(np.uint8)


def colour_bar(left: int, top: int, height: int, *, opaque: bool) -> tuple[tuple[int, int, np.ndarray], list[Label]]:
    """The colour scale with its labels, `BAR` pixels wide in all.

    Args:
        left: in pixels.
        top: in pixels.
        height: in pixels.
        opaque: as in `paint`; else as in `overlay`, over a middle grey.

    Returns:
        Left, top and pixels of the bar; and its labels.
    """
    height = min(height, _TALL)
    powers = torch.linspace(HIGHEST, LOWEST, height)
    scale = torch.exp2(powers)[:, None].expand(height, _STRIP)
    strip = paint(scale) if opaque else overlay(np.full((height, _STRIP), 128, np.uint8), scale[None])[0]
    labels = [
        Label(left + _STRIP + 6, top + (height - 1) * (HIGHEST - power) / (HIGHEST - LOWEST), text, align="left")
        for power, text in _TICKS.items()
    ]
    name = Label(left + BAR - 14, top + height / 2, "attention (1: an even look)", turned=True)
    return (left, top, strip), [*labels, name]


def to_grey(picture: np.ndarray) -> np.ndarray:
    """The brightness of uint8 RGB (H, W, 3): uint8 (H, W)."""
    return (picture @ np.array([0.299, 0.587, 0.114])).round().astype(np.uint8)


def cell_size(tokens: int) -> int:
    """Pixels of a matrix's element."""
    return max(_CELL, _SIDE // tokens)


def matrix_sheet(tokens: list[int], count: int, titles: list[str]) -> Sheet:
    """The layout of one matrix for each title.

    Args:
        tokens: that attend, from 0: the rows.
        count: the number of tokens: the columns.
        titles: of the matrices.
    """
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
    """The pictures of `matrix_sheet`; matrices: (titles, K, K), rows attend, as a multiple of uniform attention."""
    cell = cell_size(matrices.shape[2])
    return [painted.repeat(cell, axis=0).repeat(cell, axis=1) for painted in paint(matrices[:, tokens])]


@dataclass(frozen=True)
class TokenTable:
    """A table with a row for each token: driving picture, mask, and an attention map for each title.

    Rows are folded into as many blocks side by side as make the pictures largest.

    Attributes:
        tokens: of the rows, from 0.
        count: the number of all tokens.
        titles: of the attention maps.
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
        """The side of a picture, in pixels."""
        return min(max(self._room(self.blocks) // 8 * 8, _SMALLEST), _LARGEST)

    def _room(self, blocks: int) -> int:
        return min(_WIDTH // (blocks * len(self.columns)), _HEIGHT // self._deep(blocks))

    def _deep(self, blocks: int) -> int:
        return math.ceil(len(self.tokens) / blocks)

    def sheet(self) -> Sheet:
        """The layout; boxes row by row."""
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
        """The pictures of the sheet's boxes.

        Args:
            driving: uint8 RGB (side, side, 3).
            keypoints: (K, 2), (x, y) in [-1, 1].
            masks: (K, h, w), of the parts.
            maps: (titles, K, rows, columns), attention to the patches as a multiple of uniform attention.
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
    """A grey picture (H, W), dark where a mask (H, W) is 0 and in the token's colour where it is 1."""
    tint = (OPACITY * 255 * weight[..., None] * colour).cpu().numpy()
    return dimmed(grey)[..., None] + tint.astype(np.uint8)
