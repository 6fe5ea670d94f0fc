"""Pasting: animated squares go back into the picture that they were cut from, without a seam."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from math import prod

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mtanimate.faces.detection import Square
from mtanimate.inference.enlargement import MIDDLE, Layers, SourcePixels, surrounded
from mtanimate.inference.prefetch import to_frames

# In [0, 1]. A network's tint is smaller: where frame and source differ by more, they show different things.
_MOST_TINT = 10 / 255
# Over this share of the side, movement ends around a square. It is wider than the fading of colours: moved over a short
# way, a shoulder would be squeezed.
_ENDS_MOVING = 0.16


class Paste:
    """Pastes the animated squares of one subject.

    Args:
        width, height: Of the whole picture, in pixels.
        square: Within the picture.
        feather: The width over which the square's edges fade into the picture, as a share of its side, above 0. An edge
            that lies on the picture's own edge does not fade.
        earlier: Squares that are pasted before this one. A pixel of several squares goes to the one in which it lies
            deepest.

    Attributes:
        around: The square with what is moved around it, which may reach out of the picture. Layers that are to be
            rendered at the picture's own size take its pixels.
    """

    def __init__(
        self, width: int, height: int, square: Square, feather: float = 0.08, earlier: Sequence[Square] = ()
    ) -> None:
        reach = round(_ENDS_MOVING * square.side)
        self.around = Square(square.x - reach, square.y - reach, square.side + 2 * reach)
        self._square = square
        self._feather = feather
        self._fading = square.x > 0, square.x + square.side < width, square.y > 0, square.y + square.side < height
        self._size = width, height
        self._earlier = earlier

    @cached_property
    def _fading_blend(self) -> "_Blend":
        return _Blend(self._shares(self._square, self._fade(self._square.side, self._feather)))

    @cached_property
    def _shared_blend(self) -> "_Blend":
        return _Blend(self._inside(self._shares(self.around, np.ones((self.around.side,) * 2, np.float32))))

    def _shares(self, region: Square, weights: np.ndarray) -> np.ndarray:
        """The weights of a region's pixels, less what belongs to earlier squares."""
        return prod((_share(region, self._square, other, self._feather) for other in self._earlier), start=weights)

    def _inside(self, around: np.ndarray) -> np.ndarray:
        """(side, side, ...) of `around`: the part that lies within the picture, a view."""
        left, top = max(0, -self.around.x), max(0, -self.around.y)
        width, height = self._size
        return around[top : height - self.around.y, left : width - self.around.x]

    def _of_around(self, picture: np.ndarray) -> np.ndarray:
        """The part of a picture (H, W, 3) that lies in `around`, a view."""
        left, top = max(0, self.around.x), max(0, self.around.y)
        return picture[top : self.around.y + self.around.side, left : self.around.x + self.around.side]

    def __call__(
        self,
        frames: Tensor | Layers,
        pixels: Sequence[SourcePixels],
        sources: Tensor,
        pictures: np.ndarray,
        onto: np.ndarray | None = None,
    ) -> np.ndarray:
        """Paste frames; outside of `around`, and of the square where no layers are given, the pictures stay the same to
        the bit.

        Args:
            frames: (B, 3, R, R) in [0, 1], or layers.
            pixels: Of layers: those of `around`, or of the square at another size; of the one picture of all frames, or
                of each frame's own.
            sources: The square as the network saw it, uint8 (1 or B, 3, R, R).
            pictures: uint8 RGB (1 or B, H, W, 3).
            onto: The pictures, uint8 (B, H, W, 3), with the earlier squares in them, which are written to in place.
                None means copies of `pictures`.

        Returns:
            uint8 RGB (B, H, W, 3).
        """
        if onto is None:
            onto = np.broadcast_to(pictures, (len(frames), *pictures.shape[1:])).copy()
        if isinstance(frames, Tensor):
            frames = frames.float()
            frames = frames - self._tint(frames, sources)
        else:
            frames = replace(frames, painted=frames.painted - self._tint(frames.prediction, sources))
            if pixels[0].side == self.around.side:
                reach = (self.around.side / self._square.side - 1) / 2
                moved = surrounded(self._faded(frames), reach) if reach else self._faded(frames)
                for whole, new in zip(onto, frames_of(moved, pixels), strict=True):
                    self._shared_blend(self._of_around(whole), self._inside(new))
                return onto
        for old, square in zip(self._square.cut(onto), frames_of(frames, pixels), strict=True):
            self._fading_blend(old, _resized(square, self._square.side))
        return onto

    def _faded(self, layers: Layers) -> Layers:
        """The layers with edges that show the picture as it is, but for its movement: nothing is added there."""
        seen = torch.from_numpy(self._fade(layers.gate.shape[3], self._feather)).to(layers.gate.device)
        moves = 1 if layers.still is None else 1 - layers.still
        return replace(
            layers,
            painted=layers.painted * seen + (1 - seen) * MIDDLE,
            gate=layers.gate * seen + (1 - seen) * moves,
        )

    def _fade(self, side: int, feather: float) -> np.ndarray:
        """Weights (side, side) that fall to 0 at the edges that fade."""
        left, right, top, bottom = self._fading
        return _fade(side, feather, top, bottom)[:, None] * _fade(side, feather, left, right)

    def _tint(self, frames: Tensor, sources: Tensor) -> Tensor:
        """How much brighter frames (B, 3, R, R) are than their sources along the fading edges: (B, 3, 1, 1).

        Most of a square's rim is background, which should keep its colour. The median ignores what moves there.
        """
        resolution = frames.shape[-1]
        source = sources.to(frames.device).float() / 255
        rim = max(1, round(resolution * self._feather))
        ring = torch.ones(resolution, resolution, dtype=torch.bool, device=frames.device)
        ring[rim : resolution - rim, rim : resolution - rim] = False
        tint = (frames - source)[:, :, ring].median(dim=2).values
        return tint.clamp(-_MOST_TINT, _MOST_TINT)[:, :, None, None]


def frames_of(frames: Tensor | Layers, pixels: Sequence[SourcePixels]) -> np.ndarray:
    """Frames (B, 3, R, R) in [0, 1], or layers put together at the size of `pixels`: uint8 RGB (B, S, S, 3).

    pixels: One for all frames of the layers, or one for each.
    """
    if isinstance(frames, Tensor):
        return to_frames(frames)
    if len(pixels) == 1:
        return pixels[0].render(frames)
    return np.concatenate([each.render(frames[index : index + 1]) for index, each in enumerate(pixels)])


class _Blend:
    """Puts a square (S, S, 3) over what is there, with weights (S, S)."""

    def __init__(self, weights: np.ndarray) -> None:
        self._mixed = weights < 1  # the pixels that are blended; all others are the square's alone
        self._weights = weights[self._mixed][:, None]

    def __call__(self, old: np.ndarray, new: np.ndarray) -> None:
        if len(self._weights):
            edge = old[self._mixed].astype(np.float32)
            new[self._mixed] = np.rint(edge + self._weights * (new[self._mixed] - edge))
        old[...] = new


def _resized(frame: np.ndarray, side: int) -> np.ndarray:
    """uint8 (R, R, 3) -> (side, side, 3), anti-aliased where it shrinks. Bytes take a tenth of the time of floats."""
    if len(frame) == side:
        return frame
    image = torch.from_numpy(frame).permute(2, 0, 1)[None]
    resized = F.interpolate(image, (side, side), mode="bicubic", align_corners=False, antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def _fade(side: int, feather: float, start: bool, end: bool) -> np.ndarray:
    """Weights (side,) that rise from 0 to 1 over the feather, at the start and at the end where these fade."""
    pixels = np.arange(side, dtype=np.float32) + 0.5
    width = max(1, feather * side)
    weights = np.ones(side, np.float32)
    for fades, depth in ((start, pixels), (end, side - pixels)):
        if fades:
            weights *= _step(depth / width)
    return weights


def _share(region: Square, square: Square, other: Square, feather: float) -> np.ndarray:
    """Weights (side, side) of a region: 1 where a pixel lies deeper in the square than in the other one, else 0."""
    return _step(0.5 + (_depth(region, square) - _depth(region, other)) / (2 * feather))


def _depth(region: Square, other: Square) -> np.ndarray:
    """How deep a region's pixels lie in a square: 0 on its border, 0.5 in its middle, below 0 outside."""
    pixels = np.arange(region.side, dtype=np.float32) + 0.5
    x, y = region.x - other.x + pixels, region.y - other.y + pixels
    across, down = np.minimum(x, other.side - x), np.minimum(y, other.side - y)
    return np.minimum(down[:, None], across) / other.side


def _step(depth: np.ndarray) -> np.ndarray:
    """Rises smoothly from 0, at 0 and below, to 1, at 1 and above."""
    depth = np.clip(depth, 0, 1)
    return depth * depth * (3 - 2 * depth)
