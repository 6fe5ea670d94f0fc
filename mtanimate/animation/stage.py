"""The source on stage: a picture with one subject or several, or a video whose every frame is moved."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from mtanimate.errors import InputError
from mtanimate.models.motion import Motion
from mtanimate.models.performer import Performer
from mtanimate.transfer import beside, settle
from mtanimate.video.crop import resize_frames, to_frames
from mtanimate.video.footage import Footage
from mtanimate.video.pasting import Paste
from mtanimate.video.square import Square

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
    if not rest.finite().all():
        raise InputError("the source's motion is not finite: try another --crop, or is the checkpoint damaged?")
    return rest
