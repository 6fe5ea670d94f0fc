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
from mtanimate.inference.enlargement import MIDDLE, Layers, SourcePixels
from mtanimate.inference.prefetch import to_frames

# In [0, 1]. A network's tint is smaller: where frame and source differ by more, they show different things.
_MOST_TINT = 10 / 255
# Over this share of the side, movement ends at a square's edge, where it is read at the picture's own size. It is wider
# than the fading of colours: moved over a short way, a shoulder would be squeezed.
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
    """

    def __init__(
        self, width: int, height: int, square: Square, feather: float = 0.08, earlier: Sequence[Square] = ()
    ) -> None:
        self._square = square
        self._feather = feather
        self._fading = square.x > 0, square.x + square.side < width, square.y > 0, square.y + square.side < height
        self._shares = [_share(square, other, feather) for other in earlier]

    @cached_property
    def _fading_blend(self) -> "_Blend":
        return _Blend(prod(self._shares, start=self._fade(self._square.side, self._feather)))

    @cached_property
    def _shared_blend(self) -> "_Blend":
        return _Blend(prod(self._shares, start=np.ones((self._square.side, self._square.side), np.float32)))

    def __call__(
        self,
        frames: Tensor | Layers,
        pixels: Sequence[SourcePixels],
        sources: Tensor,
        pictures: np.ndarray,
        onto: np.ndarray | None = None,
    ) -> np.ndarray:
        """Paste frames; outside of the square the pictures stay the same to the bit.

        Args:
            frames: (B, 3, R, R) in [0, 1], or layers.
            pixels: Of layers: the square's, of the one picture of all frames or of each frame's own.
            sources: The square as the network saw it, uint8 (1 or B, 3, R, R).
            pictures: uint8 RGB (1 or B, H, W, 3).
            onto: The pictures, uint8 (B, H, W, 3), with the earlier squares in them, which are written to in place.
                None means copies of `pictures`.

        Returns:
            uint8 RGB (B, H, W, 3).
        """
        blend = self._fading_blend
        if isinstance(frames, Tensor):
            frames = frames.float()
            frames = frames - self._tint(frames, sources)
        else:
            tint = self._tint(frames.prediction, sources)
            frames = replace(frames, painted=frames.painted - tint)
            if pixels[0].side == self._square.side:
                frames, blend = self._faded(frames), self._shared_blend
        if onto is None:
            onto = np.broadcast_to(pictures, (len(frames), *pictures.shape[1:])).copy()
        for old, square in zip(self._square.cut(onto), frames_of(frames, pixels), strict=True):
            blend(old, _resized(square, self._square.side))
        return onto

    def _faded(self, layers: Layers) -> Layers:
        """The layers with edges that show the picture as it is: nothing moves there, and nothing is added."""
        device = layers.gate.device
        seen = torch.from_numpy(self._fade(layers.gate.shape[3], self._feather)).to(device)
        moved = torch.from_numpy(self._fade(layers.movement.shape[3], _ENDS_MOVING)).to(device)
        return replace(
            layers,
            painted=layers.painted * seen + (1 - seen) * MIDDLE,
            gate=layers.gate * seen + (1 - seen),
            movement=layers.movement * moved,
            still=None if layers.still is None else layers.still * seen,
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


def _share(square: Square, other: Square, feather: float) -> np.ndarray:
    """Weights (side, side): 1 where a pixel lies deeper in the square than in the other one, else 0."""
    return _step(0.5 + (_depth(square, square) - _depth(square, other)) / (2 * feather))


def _depth(square: Square, other: Square) -> np.ndarray:
    """How deep a square's pixels lie in the other one: 0 on its border, 0.5 in its middle, below 0 outside."""
    pixels = np.arange(square.side, dtype=np.float32) + 0.5
    x, y = square.x - other.x + pixels, square.y - other.y + pixels
    across, down = np.minimum(x, other.side - x), np.minimum(y, other.side - y)
    return np.minimum(down[:, None], across) / other.side


def _step(depth: np.ndarray) -> np.ndarray:
    """Rises smoothly from 0, at 0 and below, to 1, at 1 and above."""
    depth = np.clip(depth, 0, 1)
    return depth * depth * (3 - 2 * depth)
