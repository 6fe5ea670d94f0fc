"""The animated square goes back into the full picture."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mtanimate.errors import InputError
from mtanimate.faces.detection import Square, resize_frames
from mtanimate.inference.predictor import Performer
from mtanimate.inference.prefetch import beside, settle, to_frames
from mtanimate.models.motion import Motion
from mtanimate.video.footage import Footage

# Of [0, 1]. A network's tint is smaller: where frame and source differ by more, something else is to be seen.
_MOST_TINT = 10 / 255


class Paste:
    """Pastes animated squares into the picture they were cut from, without a seam.

    picture: uint8 RGB (H, W, 3). square: within the picture. feather: of the square's side, above 0, how wide its edges
    fade into the picture; where the square ends with the picture, they do not.
    earlier: squares that are pasted before this one; each pixel of several goes to the one it lies deepest in.
    """

    def __init__(
        self, picture: np.ndarray, square: Square, feather: float = 0.08, earlier: Sequence[Square] = ()
    ) -> None:
        height, width = picture.shape[:2]
        self._picture = picture
        self._square = square
        self._feather = feather
        self._source: Tensor | None = None  # the square as the network sees it, made when its size is known
        across = _fade(square.side, feather, square.x > 0, square.x + square.side < width)
        down = _fade(square.side, feather, square.y > 0, square.y + square.side < height)
        weights = down[:, None] * across
        for other in earlier:
            weights *= _share(square, other, feather)
        self._mixed = weights < 1  # (side, side): the pixels that are neither all frame nor worth a computation
        self._weights = weights[self._mixed][:, None]

    def __call__(self, frames: Tensor, onto: np.ndarray | None = None) -> np.ndarray:
        """Frames (B, 3, R, R) in [0, 1] -> pictures uint8 (B, H, W, 3), the same to the bit outside of the square.

        onto: pictures uint8 (B, H, W, 3) that have the earlier squares in them; this one is written into them.
        """
        pictures = np.repeat(self._picture[None], len(frames), axis=0) if onto is None else onto
        frames = frames.float()
        small = to_frames(frames - self._tint(frames))
        for old, frame in zip(self._square.cut(pictures), small, strict=True):
            new = _resized(frame, self._square.side)
            edge = old[self._mixed].astype(np.float32)
            new[self._mixed] = np.rint(edge + self._weights * (new[self._mixed] - edge))
            old[...] = new
        return pictures

    def _tint(self, frames: Tensor) -> Tensor:
        """By how much (B, 3, R, R) are brighter than the source along the fading edges, (B, 3, 1, 1): the median.

        Most of a square's rim is background, which should stay as it was; what moves there does not count.
        """
        resolution = frames.shape[-1]
        if self._source is None or self._source.shape[-1] != resolution:
            self._source = resize_frames(self._square.cut(self._picture)[None], resolution)
        source = self._source.to(frames.device).float() / 255
        rim = max(1, round(resolution * self._feather))
        ring = torch.ones(resolution, resolution, dtype=torch.bool, device=frames.device)
        ring[rim : resolution - rim, rim : resolution - rim] = False
        tint = (frames - source)[:, :, ring].median(dim=2).values
        return tint.clamp(-_MOST_TINT, _MOST_TINT)[:, :, None, None]


def _resized(frame: np.ndarray, side: int) -> np.ndarray:
    """uint8 (R, R, 3) -> (side, side, 3), anti-aliased where it shrinks: in bytes, a tenth of the time of floats."""
    image = torch.from_numpy(frame).permute(2, 0, 1)[None]
    resized = F.interpolate(image, (side, side), mode="bicubic", align_corners=False, antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def _fade(side: int, feather: float, start: bool, end: bool) -> np.ndarray:
    """Weights (side,): from 0 to 1 over the feather, at the start and at the end if they are to fade."""
    pixels = np.arange(side, dtype=np.float32) + 0.5
    width = max(1, feather * side)
    weights = np.ones(side, np.float32)
    for fades, depth in ((start, pixels), (end, side - pixels)):
        if fades:
            weights *= _step(depth / width)
    return weights


def _share(square: Square, other: Square, feather: float) -> np.ndarray:
    """Weights (side, side): 1 where a pixel lies deeper in the square than in the other one, 0 where less deep."""
    return _step(0.5 + (_depth(square, square) - _depth(square, other)) / (2 * feather))


def _depth(square: Square, other: Square) -> np.ndarray:
    """How deep the pixels of a square lie in the other one: 0 on its border, 0.5 in its middle, below 0 outside."""
    pixels = np.arange(square.side, dtype=np.float32) + 0.5
    x, y = square.x - other.x + pixels, square.y - other.y + pixels
    across, down = np.minimum(x, other.side - x), np.minimum(y, other.side - y)
    return np.minimum(down[:, None], across) / other.side


def _step(depth: np.ndarray) -> np.ndarray:
    """Smoothly from 0 (at 0 and below) to 1 (at 1 and above)."""
    depth = np.clip(depth, 0, 1)
    return depth * depth * (3 - 2 * depth)


# What drives a source of that motion at rest, for these frames: direct(motion of the pictures, at rest, frames).
Direct = Callable[[Motion, Motion, slice], Motion]


@dataclass(frozen=True)
class Driven:
    """Frames on their way from the network into pictures.

    sources: uint8 (1 or B, 3, R, R), as the network saw them; pictures: uint8 (1 or B, H, W, 3), where they were cut
    from. subjects: what became of each, (B, 3, R, R) in [0, 1], on the network's device.
    """

    sources: Tensor
    pictures: np.ndarray
    subjects: list[Tensor]


class Stage(Protocol):
    """rest: the motion of the first picture (of its first subject), batch 1, on the CPU. width, height: of the result.
    length: how many frames it can give; None: as many as are asked for. predicts: the picture (1, 3, R, R) whose
    background `backgrounds` predicts; None where it predicts none."""

    rest: Motion
    predicts: Tensor | None
    length: int | None
    width: int
    height: int

    def drive(self, part: slice, direct: Direct, background: Tensor | None) -> Driven:
        """The frames of these numbers; each once, in their order."""

    def compose(self, driven: Driven) -> np.ndarray:
        """Of what `drive` gave, in the same order, the results: uint8 (B, height, width, 3). In a thread of its own it
        goes on beside the network."""

    def backgrounds(self, driving: Tensor) -> Tensor | None:
        """For driving frames uint8 (B, 3, R, R), as `Performer.predict_background`."""


class StillStage:
    """A picture, uint8 (H, W, 3). squares: of its subjects. paste: results are whole pictures, else the first square;
    None: whole where the square is not the whole."""

    def __init__(
        self, performer: Performer, picture: np.ndarray, squares: list[Square], *, paste: bool | None, lock: bool
    ) -> None:
        self.performer, self.picture, self.lock = performer, picture, lock
        if paste is None:
            paste = squares[0].side < max(picture.shape[:2])
        resolution = performer.animator.config.resolution
        self.sources = [performer.encode(resize_frames(square.cut(picture[None]), resolution)) for square in squares]
        self.pastes = (
            [Paste(picture, square, earlier=squares[:index]) for index, square in enumerate(squares)] if paste else []
        )
        self.rest = _usable(self.sources[0].motion.to("cpu"))
        self.predicts = self.sources[0].pictures if performer.animator.config.background else None
        self.length: int | None = None
        self.height, self.width = picture.shape[:2] if paste else (resolution, resolution)

    def drive(self, part: slice, direct: Direct, background: Tensor | None) -> Driven:
        subjects = []
        for source in self.sources if self.pastes else self.sources[:1]:
            rest = source.motion.to("cpu")
            subjects.append(self.performer.drive(source, direct(rest, rest, part), background, lock=self.lock))
        settle(self.performer.animator.device)
        return Driven(self.sources[0].pictures, self.picture[None], subjects)

    def compose(self, driven: Driven) -> np.ndarray:
        with beside(self.performer.animator.device):
            if not self.pastes:
                return to_frames(driven.subjects[0])
            canvas: np.ndarray | None = None
            for paste, subject in zip(self.pastes, driven.subjects, strict=True):
                canvas = paste(subject, onto=canvas)
            assert canvas is not None
            return canvas

    def backgrounds(self, driving: Tensor) -> Tensor | None:
        return self.performer.predict_background(self.sources[0], driving)


class MovingStage:
    """A source video, read in step: frame n is driven by the motion of frame n. square: where its subject is."""

    def __init__(
        self, performer: Performer, footage: Footage, square: Square, *, paste: bool | None, lock: bool
    ) -> None:
        if paste is None:
            paste = square.side < max(footage.width, footage.height)
        self.performer, self.square, self.paste, self.lock = performer, square, paste, lock
        self.resolution = performer.animator.config.resolution
        self.length: int | None = footage.frame_count
        self.predicts: Tensor | None = None
        first = next(footage.batches(1))
        self.rest = _usable(performer.estimate(self._cut(first)).to("cpu"))
        self._shown: Tensor | None = None  # the last frame of the batch before
        self.height, self.width = first.shape[1:3] if paste else (self.resolution, self.resolution)
        self._batches: Iterator[np.ndarray] = footage.batches(performer.batch_size)

    def drive(self, part: slice, direct: Direct, background: Tensor | None) -> Driven:
        frames = next(self._batches)[: part.stop - part.start]
        squares = self._cut(frames)
        source = self.performer.encode(squares)
        source.shown = self._shown
        driven = self.performer.drive(source, direct(source.motion.to("cpu"), self.rest, part), None, lock=self.lock)
        self._shown = source.shown
        settle(self.performer.animator.device)
        return Driven(squares, frames, [driven])

    def compose(self, driven: Driven) -> np.ndarray:
        (subject,) = driven.subjects
        with beside(self.performer.animator.device):
            if not self.paste:
                return to_frames(subject)
            pairs = zip(driven.pictures, subject, strict=True)
            return np.concatenate([Paste(frame, self.square)(one[None]) for frame, one in pairs])

    def _cut(self, frames: np.ndarray) -> Tensor:
        return resize_frames(self.square.cut(frames), self.resolution)

    def backgrounds(self, driving: Tensor) -> Tensor | None:
        return None


def _usable(rest: Motion) -> Motion:
    """The same. Raises InputError where it is not finite: nothing can be driven from there."""
    if not rest.is_finite().all():
        raise InputError("the source's motion is not finite: try another --crop, or is the checkpoint damaged?")
    return rest
