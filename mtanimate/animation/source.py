"""The source's side of a frame: its square is driven, and pasted back into the whole picture."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from mtanimate.animation.pasting import Paste, frames_of
from mtanimate.animation.retargeting import MotionTransfer, RetargetedMotion
from mtanimate.errors import InputError
from mtanimate.faces.detection import Square, resize_frames
from mtanimate.faces.framing import LARGEST_SIDE, parse_resolution
from mtanimate.inference.enlargement import Layers, SourcePixels
from mtanimate.inference.predictor import Predictor
from mtanimate.inference.prefetch import download, prefetch, side_stream, synchronize
from mtanimate.models.motion import Motion
from mtanimate.video.footage import Footage


@dataclass(frozen=True)
class Driven:
    """Frames on their way from the network into pictures.

    Attributes:
        pictures: What the subjects were cut out of, uint8 (1 or B, H, W, 3).
        sources: Each subject as the network saw it, uint8 (1 or B, 3, R, R).
        subjects: The driven frames of each subject, on the network's device: (B, 3, R, R) in [0, 1], or layers where
            they are made at another size.
    """

    pictures: np.ndarray
    sources: list[Tensor]
    subjects: list[Tensor | Layers]


class SourceRenderer(Protocol):
    """A source, ready to be driven.

    Attributes:
        rest: The motion of the source's first picture, of its first subject: batch 1, on the CPU.
        predicts: The picture (1, 3, R, R) whose background `backgrounds` predicts; None where it predicts none.
        length: How many frames it can give; None means as many as are asked for.
        width: Of a result, in pixels.
        height: Of a result, in pixels.
        side: Of the first subject's square in the results, in pixels, before it is pasted.
    """

    rest: Motion
    predicts: Tensor | None
    length: int | None
    width: int
    height: int
    side: int

    def drive(self, frames: slice, transfer: MotionTransfer, background: Tensor | None) -> Driven:
        """The source in these frames of the driver's sequence. Each frame is asked for once, in order.

        background: (B, 3, 3), as `backgrounds` gives it; None where the background stands still.
        """

    def compose(self, driven: Driven) -> np.ndarray:
        """The results of what `drive` gave, in the same order: uint8 RGB (B, height, width, 3).

        It may run in another thread, beside the network.
        """

    def unmoved(self, driven: Driven) -> np.ndarray:
        """The first subject's square as it is in the source: uint8 RGB (1 or B, side, side, 3)."""

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
        largest: As `result_side` takes it.
    """

    def __init__(
        self,
        predictor: Predictor,
        picture: np.ndarray,
        squares: list[Square],
        *,
        paste: bool | None,
        lock: bool,
        largest: int,
    ) -> None:
        self.predictor, self.picture, self.lock = predictor, picture, lock
        height, width = picture.shape[:2]
        if paste is None:
            paste = squares[0].side < max(height, width)
        squares = squares if paste else squares[:1]
        self.square = squares[0]
        sides = [result_side(predictor, square, largest, paste) for square in squares]
        self.side = sides[0]
        self.height = height if paste else self.side
        self.width = width if paste else self.side
        self.sources = [
            predictor.encode(resize_frames(square.cut(picture[None]), predictor.resolution)) for square in squares
        ]
        pastes = [Paste(width, height, square, earlier=squares[:index]) for index, square in enumerate(squares)]
        self.pastes = pastes if paste else []
        self.pixels = [
            source_pixels(predictor, picture[None], square, side, pasted if paste else None)
            for square, side, pasted in zip(squares, sides, pastes, strict=True)
        ]
        self.rest = _checked(self.sources[0].motion.to("cpu"))
        self.predicts = self.sources[0].pictures if predictor.network.config.moves_background else None
        self.length: int | None = None

    def drive(self, frames: slice, transfer: MotionTransfer, background: Tensor | None) -> Driven:
        subjects: list[Tensor | Layers] = []
        for source, pixels in zip(self.sources, self.pixels, strict=True):
            rest = source.motion.to("cpu")
            drive = self.predictor.drive_layers if pixels else self.predictor.drive
            subjects.append(drive(source, transfer.onto(rest, rest, frames), background, lock=self.lock))
        synchronize(self.predictor.network.device)
        return Driven(self.picture[None], [source.pictures for source in self.sources], subjects)

    def compose(self, driven: Driven) -> np.ndarray:
        with side_stream(self.predictor.network.device):
            if not self.pastes:
                return frames_of(driven.subjects[0], self.pixels[0])
            canvas: np.ndarray | None = None
            each = zip(self.pastes, driven.subjects, self.pixels, driven.sources, strict=True)
            for paste, subject, pixels, sources in each:
                canvas = paste(subject, pixels, sources, driven.pictures, canvas)
            assert canvas is not None
            return canvas

    def unmoved(self, driven: Driven) -> np.ndarray:
        return squares_of(self.square, driven.pictures, self.side)

    def backgrounds(self, driving: Tensor) -> Tensor | None:
        return None if self.predicts is None else self.predictor.predict_background(self.sources[0], driving)


class VideoRenderer:
    """Renders a source video, read in step: its frame n is driven by the motion of frame n.

    square: Of its subject, in all frames. paste, lock, largest: as `StillRenderer` takes them.
    """

    def __init__(
        self, predictor: Predictor, footage: Footage, square: Square, *, paste: bool | None, lock: bool, largest: int
    ) -> None:
        if paste is None:
            paste = square.side < max(footage.width, footage.height)
        self.predictor, self.square, self.lock = predictor, square, lock
        self.length: int | None = footage.frame_count
        self.predicts: Tensor | None = None
        first = next(footage.batches(1))
        height, width = first.shape[1:3]
        self.rest = _checked(predictor.estimate(self._cut(first)).to("cpu"))
        self.paste = Paste(width, height, square) if paste else None
        self.side = result_side(predictor, square, largest, paste)
        self._layered = in_layers(predictor, square, self.side, self.paste)
        self.height = height if paste else self.side
        self.width = width if paste else self.side
        self._shown: Tensor | Layers | None = None  # the last frame of the batch before
        self._batches: Iterator[np.ndarray] = footage.batches(predictor.batch_size)

    def drive(self, frames: slice, transfer: MotionTransfer, background: Tensor | None) -> Driven:
        pictures = next(self._batches)[: frames.stop - frames.start]
        squares = self._cut(pictures)
        source = self.predictor.encode(squares)
        source.shown = self._shown
        drive = self.predictor.drive_layers if self._layered else self.predictor.drive
        driven = drive(source, transfer.onto(source.motion.to("cpu"), self.rest, frames), None, lock=self.lock)
        self._shown = source.shown
        synchronize(self.predictor.network.device)
        return Driven(pictures, [squares], [driven])

    def compose(self, driven: Driven) -> np.ndarray:
        (subject,), (sources,) = driven.subjects, driven.sources
        with side_stream(self.predictor.network.device):
            pixels = source_pixels(self.predictor, driven.pictures, self.square, self.side, self.paste)
            if self.paste is None:
                return frames_of(subject, pixels)
            return self.paste(subject, pixels, sources, driven.pictures)

    def unmoved(self, driven: Driven) -> np.ndarray:
        return squares_of(self.square, driven.pictures, self.side)

    def _cut(self, frames: np.ndarray) -> Tensor:
        return resize_frames(self.square.cut(frames), self.predictor.resolution)

    def backgrounds(self, driving: Tensor) -> Tensor | None:
        return None


def largest_side(resolution: str, predictor: Predictor) -> int:
    """The largest side of a square, in pixels, as `--resolution` says.

    Raises InputError where it is smaller than the network's.
    """
    largest, least = parse_resolution(resolution), predictor.resolution
    if largest < least:
        raise InputError(f"--resolution {largest}: this network makes {least} x {least}: give at least that, or auto")
    return largest


def describe_size(renderer: SourceRenderer, square: Square) -> str:
    """What a user is told of the size at which a square is rendered."""
    side, own = renderer.side, square.side
    if side == own:
        return f"the square is rendered at its own size, {side} x {side}"
    what = f"the square of {own} x {own} is rendered at {side} x {side}"
    return f"{what}: --resolution {own} keeps all of it" if LARGEST_SIDE <= side < own else what


def result_side(predictor: Predictor, square: Square, largest: int, pasted: bool = False) -> int:
    """The side at which a square is rendered, in pixels: its own, but no smaller than the network's.

    largest: The largest side, in pixels. pasted: Into a whole picture, which has no use for more than its own.
    """
    if not predictor.layered:
        return predictor.resolution
    side = min(square.side, largest)
    return side if pasted else max(side, predictor.resolution)


def in_layers(predictor: Predictor, square: Square, side: int, paste: Paste | None) -> bool:
    """Whether a square of this `result_side` is made of `Layers`; if not, it is the network's own picture."""
    return predictor.layered and (side != predictor.resolution or (paste is not None and side == square.side))


def source_pixels(
    predictor: Predictor, pictures: np.ndarray, square: Square, side: int, paste: Paste | None
) -> list[SourcePixels]:
    """The pixels of the square in each picture, for `Layers`; none where it is the network's own picture.

    side: From `result_side`. paste: What the square is pasted by. At its own size, what surrounds it is rendered, too.
    """
    if not in_layers(predictor, square, side, paste):
        return []
    if paste is not None and side == square.side:
        square, side = paste.around, paste.around.side
    return [SourcePixels(picture, square, side, predictor.network.device) for picture in pictures]


def squares_of(square: Square, pictures: np.ndarray, side: int) -> np.ndarray:
    """The square of pictures (B, H, W, 3), resized: uint8 (B, side, side, 3)."""
    return resize_frames(square.cut(pictures), side).permute(0, 2, 3, 1).numpy()


def open_renderer(
    predictor: Predictor,
    source: np.ndarray | Footage,
    squares: list[Square],
    *,
    paste: bool | None,
    lock: bool,
    largest: int = LARGEST_SIDE,
) -> SourceRenderer:
    """What renders this source, a picture or a video. squares: its subjects, of a video just one.

    paste, lock, largest: As `StillRenderer` takes them.

    Raises InputError where the source's own motion is not finite.
    """
    if isinstance(source, np.ndarray):
        return StillRenderer(predictor, source, squares, paste=paste, lock=lock, largest=largest)
    return VideoRenderer(predictor, source, squares[0], paste=paste, lock=lock, largest=largest)


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
    renderer: SourceRenderer, batches: Iterator[tuple[Driven, np.ndarray]], driving: Iterator[Tensor]
) -> Generator[np.ndarray, None, None]:
    """Source, driving frame and result beside each other: uint8 (B, side, 3 side, 3).

    driving: The squares of the driving frames, (B, 3, side, side), in batches.
    """
    for driven, results in batches:
        seen = download(next(driving)[: len(results)]).permute(0, 2, 3, 1).numpy()
        sources = np.broadcast_to(renderer.unmoved(driven), results.shape)
        yield np.concatenate([sources, seen, results], axis=2)
