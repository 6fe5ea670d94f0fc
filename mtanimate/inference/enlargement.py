"""Results at the source's own size: its detail is warped once more, with the photograph's own pixels.

Flow and occlusion are smooth maps in normalised coordinates, so nothing ties them to the network's resolution. A result
has its shades and shapes from the network's picture, enlarged, and its detail from the source, read through the flow at
full size. Detail is left out where the source is hidden, and where the flow stretches it too far.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mtanimate.faces.detection import Square
from mtanimate.geometry import CPU, coordinate_grid, resize
from mtanimate.inference.prefetch import download
from mtanimate.models.dense_motion import DenseMotion

MARGIN = 0.25  # of a square's side: how far around it the photograph may be read
# Singular values of the flow's Jacobian, which says how far what is read moves for a step in the result. Between the
# two of each pair detail fades: from magnified skin (below 1) and from skin pressed together (above 1).
_MAGNIFIED, _PRESSED = (0.25, 0.5), (4.0, 2.5)
# Between these values of the occlusion, detail fades in. A network opens its gate only so far as a whole patch fits,
# which colours need more than detail.
_SEEN = (0.2, 0.6)
MIDDLE = 128 / 255  # source pixels count from here, so that the network's part is never negative
_CACHED = 32768  # pixels that a CPU works on at once
_NOTHING = 1e-8  # of a weight
_BEYOND = 2  # knots of a spline beyond its first and last value


@dataclass(frozen=True)
class Layers:
    """Frames, taken apart so that they can be put together at any size: painted + gate * (warp(source) - MIDDLE).

    Attributes:
        prediction: What the network gave, (B, 3, R, R) in [0, 1].
        painted: The network's part, (B, 3, R, R) in [0, 1].
        gate: The share of the source's detail, (B, 1, R, R) in [0, 1].
        movement: From each place of the result to the place that is read, in widths of the square: (B, 2, h, w),
            (x, y).
        inset: The place of the first of `movement`'s columns and rows, in widths of the square. The last lies as far
            from the other edge.
        still: The share of the source that stays where it is, added likewise, (B, 1, R, R) in [0, 1]; None for none.
    """

    prediction: Tensor
    painted: Tensor
    gate: Tensor
    movement: Tensor
    inset: float
    still: Tensor | None = None

    def __len__(self) -> int:
        return len(self.gate)

    def __getitem__(self, part: slice | list[int]) -> "Layers":
        return self.each(lambda tensor: tensor[part])

    def to(self, device: torch.device) -> "Layers":
        return self.each(lambda tensor: tensor.to(device))

    def each(self, function: Callable[[Tensor], Tensor]) -> "Layers":
        """Applies a function to every tensor."""
        changed = {name: function(tensor) for name, tensor in self._tensors().items()}
        return replace(self, **changed)  # type: ignore[arg-type]

    @staticmethod
    def cat(parts: "list[Layers]") -> "Layers":
        """Concatenates frames of one network."""
        each = [part._tensors() for part in parts]
        joined = {name: torch.cat([tensors[name] for tensors in each]) for name in each[0]}
        return replace(parts[0], **joined)  # type: ignore[arg-type]

    def _tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}


def take_apart(picture: Tensor, prediction: Tensor, motion: DenseMotion, still: Tensor | None = None) -> Layers:
    """The layers of what a network made that passes the source's pixels through its last gate.

    Args:
        picture: The source that was driven, (1 or B, 3, R, R) in [0, 1].
        prediction: What the network made of it, (B, 3, R, R) in [0, 1].
        motion: The dense motion that it was made with.
        still: As `Layers.still`.
    """
    side = prediction.shape[3]
    movement, inset = _movement(motion, side)
    detail = _smoothness(movement.detach())  # in training its gradient would not be finite where nothing bends
    if motion.occlusion is not None:
        seen = resize(motion.occlusion.float(), (movement.shape[2], movement.shape[3]))
        detail = detail * _between(seen, *_SEEN)
    gate = resize(detail, (side, side))
    # With an open gate, what remains is how the network shades the source: 0 where it copies it.
    shade = _blurred(prediction - motion.warp(picture.expand_as(prediction)))
    painted = prediction + gate * (shade + MIDDLE - prediction)
    if still is None:
        return Layers(prediction, painted, gate, movement, inset)
    moved = 1 - still
    shown = still * picture + moved * prediction
    return Layers(shown, moved * painted + still * MIDDLE, moved * gate, movement, inset, still)


def at_rest(picture: Tensor, like: Layers) -> Layers:
    """The layers of a source (1, 3, R, R) that does not move."""
    nothing = like[:1].each(torch.zeros_like)
    painted, gate = torch.full_like(picture, MIDDLE), torch.ones_like(nothing.gate)
    return replace(nothing, prediction=picture, painted=painted, gate=gate)


def surrounded(layers: Layers, reach: float) -> Layers:
    """The layers of a larger square, whose rim shows what surrounds the source's square.

    What moves at the square's edge takes its surroundings along, the less the farther away they are, so that hair that
    reaches out of the square is not torn.

    Args:
        layers: Of the square.
        reach: The width of the rim, in widths of the square, above 0.
    """
    side, count = layers.gate.shape[3], layers.movement.shape[3]
    step = (1 - 2 * layers.inset) / (count - 1)
    more = math.ceil((reach + layers.inset) / step)
    places = layers.inset + step * torch.arange(-more, count + more, device=layers.gate.device)
    taken = _between(torch.maximum(-places, places - 1), reach, 0)
    rim, whole = [round(reach * side)] * 4, 1 + 2 * reach
    outside = 1 - F.pad(torch.ones_like(layers.gate), rim)
    still = None if layers.still is None else F.pad(layers.still, rim, mode="replicate")
    return replace(
        layers,
        painted=F.pad(layers.painted, rim, value=MIDDLE),
        gate=F.pad(layers.gate, rim) + outside * (1 if still is None else 1 - still),
        movement=F.pad(layers.movement, [more] * 4, mode="replicate") * (taken[:, None] * taken) / whole,
        inset=(reach + layers.inset - more * step) / whole,
        still=still,
    )


def _blurred(pictures: Tensor) -> Tensor:
    """Pictures (B, 3, R, R) without what is finer than about two pixels."""
    size = (pictures.shape[2], pictures.shape[3])
    return resize(F.avg_pool2d(pictures, 2, ceil_mode=True, count_include_pad=False), size)


def _movement(motion: DenseMotion, side: int) -> tuple[Tensor, float]:
    """A flow of a network of this side, as `Layers.movement` and `Layers.inset`."""
    flow = motion.flow.float().permute(0, 3, 1, 2).contiguous()
    count = flow.shape[2]
    # Exact flows are corner to corner between the centres of the outermost pixels, others edge to edge.
    inset = 0.5 / side if motion.exact else 0.5 / count
    read = (flow + 1) / 2
    read = (read * (side - 1) + 0.5) / side if motion.exact else read
    places = (coordinate_grid(count, count, like=flow).permute(2, 0, 1) + 1) / 2
    return read - (inset + places * (1 - 2 * inset)), inset


def _smoothness(movement: Tensor) -> Tensor:
    """How much of the source's detail a movement (B, 2, h, w) leaves as it is: (B, 1, h, w) in [0, 1].

    Where the flow magnifies much, pores become stains, and where it folds, a lash is seen twice.
    """
    step = movement.shape[2] - 1
    padded = F.pad(movement, (1, 1, 1, 1), mode="replicate")
    across = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]) * (step / 2)
    down = (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]) * (step / 2)
    a, b, c, d = across[:, 0] + 1, down[:, 0], across[:, 1], down[:, 1] + 1
    # The singular values of [[a, b], [c, d]], the smaller one negative where the flow folds.
    rotation, other = torch.hypot(a + d, b - c) / 2, torch.hypot(a - d, b + c) / 2
    smaller, larger = rotation - other, rotation + other
    return (_between(smaller, *_MAGNIFIED) * _between(larger, *_PRESSED))[:, None]


def _between(values: Tensor, none: float, full: float) -> Tensor:
    """Rises smoothly from 0 at `none` to 1 at `full`."""
    share = ((values - none) / (full - none)).clamp(0, 1)
    return share * share * (3 - 2 * share)


class SourcePixels:
    """A source's square and what surrounds it, at the size of the result.

    Args:
        picture: uint8 RGB (H, W, 3).
        square: Within the picture.
        side: Of the result, in pixels. Where the square is larger, the picture is reduced.
        device: Of the layers that are rendered. Only CUDA renders there; all others render on the CPU.
    """

    def __init__(self, picture: np.ndarray, square: Square, side: int, device: torch.device = CPU) -> None:
        height, width = picture.shape[:2]
        reach = round(MARGIN * square.side)
        left, top = max(square.x - reach, 0), max(square.y - reach, 0)
        right, bottom = min(square.x + square.side + reach, width), min(square.y + square.side + reach, height)
        pixels = torch.from_numpy(np.ascontiguousarray(picture[top:bottom, left:right])).permute(2, 0, 1)[None]
        if side != square.side:
            size = (round((bottom - top) * side / square.side), round((right - left) * side / square.side))
            pixels = F.interpolate(pixels, size, mode="bicubic", align_corners=False, antialias=True)
        self.side = side
        self.device = device if device.type == "cuda" else CPU
        self._pixels = pixels.to(self.device).float().sub(255 * MIDDLE).contiguous()
        # A place in widths of the square times `scale` plus `start` is a coordinate of what is sampled.
        scale = [2 * square.side / (right - left), 2 * square.side / (bottom - top)]
        start = [2 * (square.x - left) / (right - left) - 1, 2 * (square.y - top) / (bottom - top) - 1]
        self._scale = torch.tensor(scale, device=self.device)[:, None, None]
        centres = (torch.arange(side, device=self.device) + 0.5) / side
        x, y = (centres * scale[axis] + start[axis] for axis in (0, 1))
        self._places = torch.stack([x.expand(side, side), y[:, None].expand(side, side)])

    def render(self, layers: Layers) -> np.ndarray:
        """The frames at this size: uint8 RGB (B, side, side, 3)."""
        here = layers.to(self.device)
        return np.stack([self._frame(here[index : index + 1]) for index in range(len(here))])

    def _frame(self, layers: Layers) -> np.ndarray:
        enlarge = _spline(layers.movement.shape[2], self.side, layers.inset, self.device)
        columns = layers.movement[0] @ enlarge.T * self._scale  # (2, h, side)
        maps = _enlarged(torch.cat([layers.painted, layers.gate], dim=1), self.side)
        still = None if layers.still is None else _enlarged(layers.still, self.side)
        frame = np.empty((self.side, self.side, 3), np.uint8)
        for rows in self._strips():
            grid = torch.baddbmm(self._places[:, rows], enlarge[rows].expand(2, -1, -1), columns)
            read = self._sampled(grid)
            made = torch.addcmul(maps[:3, rows].float(), maps[3:, rows].float(), read, value=1 / 255)
            if still is not None:
                made.addcmul_(still[:, rows].float(), self._sampled(self._places[:, rows]), value=1 / 255)
            whole = download(made.round_().clamp_(0, 255).to(torch.uint8)).numpy()
            for channel in range(3):  # in a quarter of the time of a permuted copy
                frame[rows, :, channel] = whole[channel]
        return frame

    def _sampled(self, grid: Tensor) -> Tensor:
        """The pixels, from -128 to 127, at a grid (2, rows, side): (3, rows, side)."""
        there = grid.permute(1, 2, 0)[None]
        return F.grid_sample(self._pixels, there, padding_mode="border", align_corners=False)[0]

    def _strips(self) -> Iterator[slice]:
        """A CPU works on rows that its cache holds; a GPU on all at once."""
        count = self.side if self.device.type == "cuda" else max(1, _CACHED // self.side)
        for first in range(0, self.side, count):
            yield slice(first, min(first + count, self.side))


def _enlarged(maps: Tensor, side: int) -> Tensor:
    """Maps (1, C, R, R) in [0, 1] -> (C, side, side) from 0 to 255. Bytes take a fifth of the time of floats."""
    maps = maps.clamp(0, 1) * 255
    if maps.device.type == "cpu":
        maps = maps.round().to(torch.uint8)
    return F.interpolate(maps, (side, side), mode="bicubic", align_corners=False, antialias=True)[0]


@lru_cache
def _spline(count: int, side: int, inset: float, device: torch.device) -> Tensor:
    """The matrix that enlarges `count` values to `side` by a cubic spline, which has no kinks: (side, count).

    inset: The place of the first value, below 0.5; the last is at 1 - inset. Beyond them the spline is straight.
    """
    with torch.inference_mode(False):  # cached for all callers
        near = torch.eye(count, dtype=torch.float64) * 4
        near += torch.diag(torch.ones(count - 1, dtype=torch.float64), 1)
        near += torch.diag(torch.ones(count - 1, dtype=torch.float64), -1)
        near[0], near[-1] = 0, 0
        near[0, 0] = near[-1, -1] = 6
        centres = (torch.arange(side, dtype=torch.float64) + 0.5) / side
        places = (centres - inset) / (1 - 2 * inset) * (count - 1)
        knots = torch.arange(-_BEYOND, count + _BEYOND, dtype=torch.float64)
        distance = (places[:, None] - knots).abs()
        inner, outer = 4 - 6 * distance**2 + 3 * distance**3, (2 - distance) ** 3
        weights = torch.where(distance < 1, inner, outer.clamp_min(0))
        straight = torch.eye(len(knots), dtype=torch.float64)[:, _BEYOND:-_BEYOND]
        for step in range(1, _BEYOND + 1):
            for edge, towards, end in ((0, 1, _BEYOND - step), (-1, -2, -_BEYOND - 1 + step)):
                straight[end, edge], straight[end, towards] = 1 + step, -step
        matrix = weights @ straight @ torch.linalg.inv(near)
        # A value's influence falls to a quarter with each cell. Denormal numbers would make products slow.
        return torch.where(matrix.abs() < _NOTHING, 0, matrix).float().to(device)
