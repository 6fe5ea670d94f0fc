"""The source's side of a frame: its square is driven, and pasted back into the whole picture."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mtanimate.animation.retargeting import MotionTransfer, RetargetedMotion
from mtanimate.errors import InputError
from mtanimate.faces.detection import Square, resize_frames
from mtanimate.inference.predictor import Predictor
from mtanimate.inference.prefetch import download, prefetch, side_stream, synchronize, to_frames
from mtanimate.models.motion import Motion
from mtanimate.video.footage import Footage

# In [0, 1]. A network's tint is smaller: where frame and source differ by more, they show different things.
_MOST_TINT = 10 / 255


class Paste:
    """Pastes animated squares into the picture they were cut from, without a seam.

    Args:
        picture: uint8 RGB (H, W, 3).
        square: Within the picture.
        feather: The width over which the square's edges fade into the picture, as a share of its side, above 0. An edge
            that lies on the picture's own edge does not fade.
        earlier: Squares that are pasted before this one. A pixel of several squares goes to the one in which it lies
            deepest.
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
        self._mixed = weights < 1  # (side, side): the pixels that are blended; all others are the frame's alone
        self._weights = weights[self._mixed][:, None]

    def __call__(self, frames: Tensor, onto: np.ndarray | None = None) -> np.ndarray:
        """Paste frames; outside of the square the pictures stay the same to the bit.

        Args:
            frames: (B, 3, R, R) in [0, 1].
            onto: Pictures, uint8 (B, H, W, 3), with the earlier squares in them, which are written to in place. None
                means copies of the picture.

        Returns:
            uint8 RGB (B, H, W, 3).
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
        """How much brighter frames (B, 3, R, R) are than the source along the fading edges: (B, 3, 1, 1).

        Most of a square's rim is background, which should keep its colour. The median ignores what moves there.
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
    """uint8 (R, R, 3) -> (side, side, 3), anti-aliased where it shrinks. Bytes take a tenth of the time of floats."""
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


@dataclass(frozen=True)
class Driven:
    """Frames on their way from the network into pictures.

    Attributes:
        sources: The source as the network saw it, uint8 (1 or B, 3, R, R).
        pictures: What it was cut out of, uint8 (1 or B, H, W, 3).
        subjects: The driven frames of each subject, (B, 3, R, R) in [0, 1], on the network's device.
    """

    sources: Tensor
    pictures: np.ndarray
    subjects: list[Tensor]


class SourceRenderer(Protocol):
    """A source, ready to be driven.

    Attributes:
        rest: The motion of the source's first picture, of its first subject: batch 1, on the CPU.
        predicts: The picture (1, 3, R, R) whose background `backgrounds` predicts; None where it predicts none.
        length: How many frames it can give; None means as many as are asked for.
        width: Of a result, in pixels.
        height: Of a result, in pixels.
    """

    rest: Motion
    predicts: Tensor | None
    length: int | None
    width: int
    height: int

    def drive(self, frames: slice, transfer: MotionTransfer, background: Tensor | None) -> Driven:
        """The source in these frames of the driver's sequence. Each frame is asked for once, in order.

        background: (B, 3, 3), as `backgrounds` gives it; None where the background stands still.
        """

    def compose(self, driven: Driven) -> np.ndarray:
        """The results of what `drive` gave, in the same order: uint8 RGB (B, height, width, 3).

        It may run in another thread, beside the network.
        """

    def backgrounds(self, driving: Tensor) -> Tensor | None:
        """The background's motion in driving frames, uint8 (B, 3, R, R), as `Predictor.predict_background`."""


class StillRenderer:
    """Renders a picture.

    Args:
        picture: uint8 RGB (H, W, 3).
        squares: Of its subjects.
        paste: Whether results are whole pictures, or the first subject's square alone. None means whole pictures
            where that square is not the whole picture.
        lock: Keep the source's background where it is, as `Predictor.drive` does.
    """

    def __init__(
        self, predictor: Predictor, picture: np.ndarray, squares: list[Square], *, paste: bool | None, lock: bool
    ) -> None:
        self.predictor, self.picture, self.lock = predictor, picture, lock
        if paste is None:
            paste = squares[0].side < max(picture.shape[:2])
        resolution = predictor.resolution
        self.sources = [predictor.encode(resize_frames(square.cut(picture[None]), resolution)) for square in squares]
        self.pastes = (
            [Paste(picture, square, earlier=squares[:index]) for index, square in enumerate(squares)] if paste else []
        )
        self.rest = _checked(self.sources[0].motion.to("cpu"))
        self.predicts = self.sources[0].pictures if predictor.network.config.moves_background else None
        self.length: int | None = None
        self.height, self.width = picture.shape[:2] if paste else (resolution, resolution)

    def drive(self, frames: slice, transfer: MotionTransfer, background: Tensor | None) -> Driven:
        subjects = []
        for source in self.sources if self.pastes else self.sources[:1]:
            rest = source.motion.to("cpu")
            motion = transfer.onto(rest, rest, frames)
            subjects.append(self.predictor.drive(source, motion, background, lock=self.lock))
        synchronize(self.predictor.network.device)
        return Driven(self.sources[0].pictures, self.picture[None], subjects)

    def compose(self, driven: Driven) -> np.ndarray:
        with side_stream(self.predictor.network.device):
            if not self.pastes:
                return to_frames(driven.subjects[0])
            canvas: np.ndarray | None = None
            for paste, subject in zip(self.pastes, driven.subjects, strict=True):
                canvas = paste(subject, onto=canvas)
            assert canvas is not None
            return canvas

    def backgrounds(self, driving: Tensor) -> Tensor | None:
        return None if self.predicts is None else self.predictor.predict_background(self.sources[0], driving)


class VideoRenderer:
    """Renders a source video, read in step: its frame n is driven by the motion of frame n.

    square: Of its subject, in all frames. paste, lock: as `StillRenderer` takes them.
    """

    def __init__(
        self, predictor: Predictor, footage: Footage, square: Square, *, paste: bool | None, lock: bool
    ) -> None:
        if paste is None:
            paste = square.side < max(footage.width, footage.height)
        self.predictor, self.square, self.paste, self.lock = predictor, square, paste, lock
        self.length: int | None = footage.frame_count
        self.predicts: Tensor | None = None
        first = next(footage.batches(1))
        self.rest = _checked(predictor.estimate(self._cut(first)).to("cpu"))
        self._shown: Tensor | None = None  # the last frame of the batch before
        resolution = predictor.resolution
        self.height, self.width = first.shape[1:3] if paste else (resolution, resolution)
        self._batches: Iterator[np.ndarray] = footage.batches(predictor.batch_size)

    def drive(self, frames: slice, transfer: MotionTransfer, background: Tensor | None) -> Driven:
        pictures = next(self._batches)[: frames.stop - frames.start]
        squares = self._cut(pictures)
        source = self.predictor.encode(squares)
        source.shown = self._shown
        motion = transfer.onto(source.motion.to("cpu"), self.rest, frames)
        driven = self.predictor.drive(source, motion, None, lock=self.lock)
        self._shown = source.shown
        synchronize(self.predictor.network.device)
        return Driven(squares, pictures, [driven])

    def compose(self, driven: Driven) -> np.ndarray:
        (subject,) = driven.subjects
        with side_stream(self.predictor.network.device):
            if not self.paste:
                return to_frames(subject)
            pairs = zip(driven.pictures, subject, strict=True)
            return np.concatenate([Paste(picture, self.square)(frame[None]) for picture, frame in pairs])

    def _cut(self, frames: np.ndarray) -> Tensor:
        return resize_frames(self.square.cut(frames), self.predictor.resolution)

    def backgrounds(self, driving: Tensor) -> Tensor | None:
        return None


def open_renderer(
    predictor: Predictor, source: np.ndarray | Footage, squares: list[Square], *, paste: bool | None, lock: bool
) -> SourceRenderer:
    """What renders this source, a picture or a video. squares: its subjects, of a video just one.

    Raises InputError where the source's own motion is not finite.
    """
    if isinstance(source, np.ndarray):
        return StillRenderer(predictor, source, squares, paste=paste, lock=lock)
    return VideoRenderer(predictor, source, squares[0], paste=paste, lock=lock)


def _checked(rest: Motion) -> Motion:
    """The same. Raises InputError where it is not finite: nothing can be driven from there."""
    if not rest.is_finite().all():
        raise InputError("the source's motion is not finite: try another --crop, or is the checkpoint damaged?")
    return rest


def render_batches(
    renderer: SourceRenderer, motion: RetargetedMotion, batch_size: int
) -> Generator[tuple[Driven, np.ndarray], None, None]:
    """The frames in batches: as the network gave them, and as results, uint8 (B, H, W, 3)."""

    def drive() -> Generator[Driven, None, None]:
        for first in range(0, motion.frames, batch_size):
            frames = slice(first, min(first + batch_size, motion.frames))
            background = None if motion.background is None else motion.background[frames]
            yield renderer.drive(frames, motion.transfer, background)

    for driven in prefetch(drive()):
        yield driven, renderer.compose(driven)


def side_by_side(
    batches: Iterator[tuple[Driven, np.ndarray]], driving: Iterator[Tensor]
) -> Generator[np.ndarray, None, None]:
    """Source, driving frame and result beside each other: uint8 (B, R, 3 R, 3)."""
    for driven, results in batches:
        seen = next(driving)[: len(results)]
        sources = driven.sources.expand(len(seen), -1, -1, -1)
        inputs = [download(pictures).permute(0, 2, 3, 1).numpy() for pictures in (sources, seen)]
        yield np.concatenate([*inputs, results], axis=2)
