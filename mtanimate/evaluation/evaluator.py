"""What every clip of an evaluation is measured with: a network that drives sources, and detectors."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mtanimate.animation.retargeting import choose_reference, transferred
from mtanimate.animation.settings import Mode
from mtanimate.animation.source import result_side
from mtanimate.evaluation.clip_results import ENLARGED, GENERATED
from mtanimate.evaluation.samples import SampleFolders
from mtanimate.faces.detection import centred_square, square_frames
from mtanimate.inference.enlargement import SourcePixels
from mtanimate.inference.predictor import Predictor
from mtanimate.inference.prefetch import to_frames
from mtanimate.metrics.detector_pool import DetectorPool, TruthCache
from mtanimate.metrics.detectors import Detections, Frames
from mtanimate.models.motion import Motion
from mtanimate.video.footage import Footage


@dataclass(frozen=True)
class DrivenSource:
    """A source: its centred square as the network sees it, and at the size at which results are measured.

    Attributes:
        seen: uint8 (1, 3, R, R).
        shown: uint8 (1, 3, S, S); the same where S is R.
        pixels: Renders results of that size; None where S is R.
    """

    seen: Tensor
    shown: Tensor
    pixels: SourcePixels | None

    @property
    def side(self) -> int:
        """S, in pixels."""
        return self.shown.shape[3]


@dataclass(frozen=True)
class GeneratedFrames:
    """A batch of frames of a series.

    Attributes:
        frames: (B, 3, S, S), float in [0, 1] on the network's device or, where they were rendered or enlarged, uint8.
        pictures: The same as uint8 (B, S, S, 3).
    """

    frames: Tensor
    pictures: np.ndarray


@dataclass(frozen=True)
class DrivenFrames:
    """A batch of a driving clip's frames and what was generated from them.

    Attributes:
        numbers: The frames' numbers in the clip, from 0.
        driving: The driving frames, uint8 (B, 3, S, S).
        series: What was generated, `GENERATED` first; with `Evaluator.largest`, also `ENLARGED`.
    """

    numbers: range
    driving: Tensor
    series: dict[str, GeneratedFrames]

    @property
    def pictures(self) -> np.ndarray:
        """The generated frames, uint8 (B, S, S, 3)."""
        return self.series[GENERATED].pictures


class Clock:
    """Seconds spent on generation and on metrics."""

    def __init__(self) -> None:
        self.seconds = {"generation": 0.0, "metrics": 0.0}

    @contextmanager
    def on(self, what: str) -> Iterator[None]:
        """Count the time that the block takes, for `generation` or `metrics`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[what] += time.perf_counter() - started


@dataclass(frozen=True)
class Evaluator:
    """Drives a source by a clip and detects subjects, in the same way for every clip of an evaluation.

    Attributes:
        performer: The network.
        mode: How motion is transferred, as `animate` has it: `absolute` moves the background as the network predicts.
        pool: Detects landmarks and identities; None where there is no detector.
        mesh: Detects the face mesh; None where gestures are not measured.
        lpips: The LPIPS network; None where it is not asked for.
        samples: Where pictures and videos of the results are kept.
        every: One of this many frames is used, from the first on.
        log: Gets warnings.
        largest: The largest side of a source's square, in pixels, which is measured at its own size; None where all is
            measured at the network's resolution.
        cache: Detections in true frames, kept between evaluations.
    """

    predictor: Predictor
    mode: Mode
    pool: DetectorPool | None
    mesh: DetectorPool | None
    lpips: Callable[[Tensor, Tensor], Tensor] | None
    samples: SampleFolders
    every: int
    log: Callable[[str], None]
    largest: int | None = None
    cache: TruthCache = field(default_factory=TruthCache)

    @property
    def resolution(self) -> int:
        return self.predictor.network.config.resolution

    def first_frame(self, reader: Footage) -> DrivenSource:
        """The clip's first frame. Raises InputError for a broken clip."""
        return self.source(next(reader.batches(1))[0])

    def source(self, picture: np.ndarray) -> DrivenSource:
        """A picture, uint8 RGB (H, W, 3)."""
        seen = square_frames(picture[None], self.resolution)
        square = centred_square(picture.shape[1], picture.shape[0])
        side = result_side(self.predictor, square, self.largest or 0)
        if side == self.resolution:
            return DrivenSource(seen, seen, None)
        pixels = SourcePixels(picture, square, side, self.predictor.network.device)
        return DrivenSource(seen, square_frames(picture[None], side), pixels)

    def drive(self, reader: Footage, source: DrivenSource, clock: Clock) -> Iterator[DrivenFrames]:
        """Drive the source by all frames of the clip that are used, as `animate` does.

        Args:
            reader: The driving clip.
            source: From `first_frame` or `source`.
            clock: Counts the time of generation.

        Yields:
            The frames in batches, in their order.

        Raises:
            InputError: The clip is broken.
        """
        with clock.on("generation"):
            encoded = self.predictor.encode(source.seen)
        whole = self._relative_motion(reader, encoded.motion, clock) if self.mode == "relative" else None
        done = 0
        for batch in reader.batches(self.predictor.batch_size, step=self.every):
            driving = square_frames(batch, self.resolution)
            with clock.on("generation"):
                background = None
                motion = self.predictor.estimate(driving) if whole is None else whole[done : done + len(driving)]
                if self.mode == "absolute":
                    background = self.predictor.predict_background(encoded, driving)
                elif self.mode == "avd":
                    motion = self.predictor.disentangle(encoded.motion, motion)
                if source.pixels is None:
                    frames = self.predictor.drive(encoded, motion, background)
                    generated, small = GeneratedFrames(frames, to_frames(frames)), None
                else:
                    layers = self.predictor.drive_layers(encoded, motion, background)
                    generated, small = _of_pictures(source.pixels.render(layers)), layers.prediction
            series = {GENERATED: generated}
            if self.largest is not None:
                series[ENLARGED] = generated if small is None else _of_pictures(_enlarged(small, source.side))
            numbers = range(done * self.every, (done + len(driving)) * self.every, self.every)
            truth = driving if small is None else square_frames(batch, source.side)
            yield DrivenFrames(numbers, truth, series)
            done += len(driving)

    def detect(self, name: str, driven: DrivenFrames, series: str = GENERATED) -> Detections | None:
        """What is detected in generated frames of the clip `name`; None without a detector."""
        if self.pool is None:
            return None
        return self.pool.detect(Frames(driven.series[series].pictures, name, driven.numbers, generated=True))

    def parts(self, frames: Tensor) -> Iterator[slice]:
        """Parts of a batch that together have no more pixels than a batch that the network sees, or of one frame."""
        pixels = self.predictor.batch_size * self.resolution**2
        size = max(1, pixels // (frames.shape[2] * frames.shape[3]))
        return (slice(first, first + size) for first in range(0, len(frames), size))

    def _relative_motion(self, reader: Footage, source: Motion, clock: Clock) -> Motion:
        """The source's motion in every frame: its own pose, moved as the driver has moved since its reference frame.

        The reference is the driving frame whose pose, and in faces whose expression, is nearest to the source's.
        """
        motions = []
        for batch in reader.batches(self.predictor.batch_size, step=self.every):
            with clock.on("generation"):
                motions.append(self.predictor.estimate(square_frames(batch, self.resolution)))
        motion = Motion.cat(motions)
        number, _ = choose_reference(source, motion, "best")
        return transferred(source, source, motion, motion[number : number + 1], True, 1.0)


def _enlarged(frames: Tensor, side: int) -> np.ndarray:
    """(B, 3, R, R) in [0, 1] -> uint8 (B, side, side, 3), one frame at a time."""
    # With `antialias`, which changes nothing else where pictures grow, the kernel is that of Pillow and of `animate`.
    size = (side, side)
    large = (F.interpolate(one, size, mode="bicubic", align_corners=False, antialias=True) for one in frames.split(1))
    return np.concatenate([to_frames(one) for one in large])


def _of_pictures(pictures: np.ndarray) -> GeneratedFrames:
    return GeneratedFrames(torch.from_numpy(pictures).permute(0, 3, 1, 2), pictures)


class TrueDetections:
    """Detections in a clip's true frames, batch after batch. They come from the cache where it has them.

    Args:
        evaluator: Names the cache and the frames that are used.
        pool: The detector; None where there is none.
        name: The clip's name below the data set.
        reader: The clip.
        digest: The SHA-256 of its files.
        side: Of the frames, in pixels.
    """

    def __init__(
        self, evaluator: Evaluator, pool: DetectorPool | None, name: str, reader: Footage, digest: str, side: int
    ) -> None:
        self.evaluator, self.pool, self.name = evaluator, pool, name
        self.batches: list[Detections] = []
        self._cached: Detections | None = None
        self._key = ""
        if pool is not None and not pool.choice.stored:
            self._key = pool.key(digest, "centred square, bicubic", side, evaluator.every)
            self._cached = evaluator.cache.get(self._key, len(range(0, reader.frame_count, evaluator.every)))

    def detect(self, driven: DrivenFrames) -> Detections | None:
        """Detections in the next driving frames; None without a detector."""
        if self.pool is None:
            return None
        if self._cached is not None:
            done = sum(map(len, self.batches))
            found = self._cached[done : done + len(driven.driving)]
        else:
            pictures = rgb(driven.driving)
            found = self.pool.detect(Frames(pictures, self.name, driven.numbers, generated=False))
        self.batches.append(found)
        return found

    def save(self) -> None:
        """Put the whole clip's detections into the cache. Where that fails, the log gets a warning."""
        if not self._key or self._cached is not None:
            return
        try:
            self.evaluator.cache.put(self._key, Detections.joined(self.batches))
        except OSError as error:
            folder = self.evaluator.cache.folder
            self.evaluator.log(f"warning: landmarks are not kept in {folder} ({error.strerror})")

    @property
    def without_subject(self) -> int:
        return sum(batch.without_subject for batch in self.batches)


def rgb(frames: Tensor) -> np.ndarray:
    """uint8 (B, 3, S, S) -> uint8 (B, S, S, 3)."""
    return frames.permute(0, 2, 3, 1).contiguous().numpy()
