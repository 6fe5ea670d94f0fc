"""What clips are measured with, and the walk through one clip: decode, generate, look."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from mtanimate.animation.retargeting import choose_reference, transferred
from mtanimate.data.clips import Clip
from mtanimate.evaluation.clip_results import ClipResult
from mtanimate.evaluation.samples import SampleFolders
from mtanimate.faces.detection import square_frames
from mtanimate.inference.predictor import Performer
from mtanimate.inference.prefetch import to_frames
from mtanimate.metrics.detector_pool import DetectorPool, TruthCache
from mtanimate.metrics.detectors import Detections, Frames
from mtanimate.metrics.measures import Sum, added, measure
from mtanimate.models.motion import Motion
from mtanimate.video.footage import Footage


@dataclass(frozen=True)
class DrivenFrames:
    """Some frames of a clip and what the network made of them.

    numbers: of the frames in the clip. driving: uint8 (B, 3, R, R). generated: (B, 3, R, R) in [0, 1]; pictures: the
    same as uint8 (B, R, R, 3).
    """

    numbers: range
    driving: Tensor
    generated: Tensor
    pictures: np.ndarray


class Clock:
    """Seconds spent, by what they were spent on."""

    def __init__(self) -> None:
        self.seconds = {"generation": 0.0, "metrics": 0.0}

    @contextmanager
    def on(self, what: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[what] += time.perf_counter() - started


@dataclass(frozen=True)
class Evaluator:
    """What every clip of an evaluation is measured with.

    relative: the driver's movement since its first frame is added to the source's pose; else the driver's pose is taken
    over, and the background moves as the network predicts. every: of so many frames one is used, from the first on.
    pool: what looks for landmarks and identities; mesh: for the face mesh; None where it is not wanted, or missing.
    """

    performer: Performer
    relative: bool
    pool: DetectorPool | None
    mesh: DetectorPool | None
    lpips: Callable[[Tensor, Tensor], Tensor] | None
    samples: SampleFolders
    every: int
    log: Callable[[str], None]
    cache: TruthCache = field(default_factory=TruthCache)

    @property
    def resolution(self) -> int:
        return self.performer.animator.config.resolution

    def first_frame(self, reader: Footage) -> Tensor:
        """uint8 (1, 3, R, R). Raises InputError for a broken clip."""
        return square_frames(next(reader.batches(1)), self.resolution)

    def drive(self, reader: Footage, source: Tensor, clock: Clock) -> Iterator[DrivenFrames]:
        """The source, uint8 (1, 3, R, R), driven by all frames of the clip, as `animate` does by itself. Raises
        InputError for a broken clip."""
        with clock.on("generation"):
            encoded = self.performer.encode(source)
        whole = self._relative_motion(reader, encoded.motion, clock) if self.relative else None
        done = 0
        for batch in reader.batches(self.performer.batch_size, step=self.every):
            driving = square_frames(batch, self.resolution)
            with clock.on("generation"):
                if whole is not None:
                    motion, background = whole[done : done + len(driving)], None
                else:
                    motion = self.performer.estimate(driving)
                    background = self.performer.predict_background(encoded, driving)
                generated = self.performer.drive(encoded, motion, background)
                pictures = to_frames(generated)
            numbers = range(done * self.every, (done + len(driving)) * self.every, self.every)
            yield DrivenFrames(numbers, driving, generated, pictures)
            done += len(driving)

    def _relative_motion(self, reader: Footage, source: Motion, clock: Clock) -> Motion:
        """Of all frames: the source's own, moved since the frame whose pose, and of faces whose expression, is nearest
        to it."""
        motions = []
        for batch in reader.batches(self.performer.batch_size, step=self.every):
            with clock.on("generation"):
                motions.append(self.performer.estimate(square_frames(batch, self.resolution)))
        motion = Motion.cat(motions)
        number, _ = choose_reference(source, motion, "best")
        return transferred(source, source, motion, motion[number : number + 1], True, 1.0)

    def detect(self, name: str, driven: DrivenFrames) -> Detections | None:
        """What is seen in generated frames; None without a detector."""
        if self.pool is None:
            return None
        return self.pool.detect(Frames(driven.pictures, name, driven.numbers, generated=True))


class TrueDetections:
    """What an pool sees in a clip's true frames, batch after batch: now, or kept from an earlier evaluation."""

    def __init__(
        self, evaluator: Evaluator, pool: DetectorPool | None, name: str, reader: Footage, digest: str
    ) -> None:
        self.evaluator, self.pool, self.name = evaluator, pool, name
        self.parts: list[Detections] = []
        self.kept: Detections | None = None
        self.key = ""
        if pool is not None and not pool.choice.stored:
            self.key = pool.key(digest, "centred square, bicubic", evaluator.resolution, evaluator.every)
            self.kept = evaluator.cache.get(self.key, len(range(0, reader.frame_count, evaluator.every)))

    def of(self, driven: DrivenFrames) -> Detections | None:
        """In the next driving frames; None without an pool."""
        if self.pool is None:
            return None
        if self.kept is not None:
            done = sum(map(len, self.parts))
            seen = self.kept[done : done + len(driven.driving)]
        else:
            pictures = rgb(driven.driving)
            seen = self.pool.detect(Frames(pictures, self.name, driven.numbers, generated=False))
        self.parts.append(seen)
        return seen

    def keep(self) -> None:
        """For the next evaluation. Says so where it cannot."""
        if not self.key or self.kept is not None:
            return
        try:
            self.evaluator.cache.put(self.key, Detections.joined(self.parts))
        except OSError as error:
            self.evaluator.log(f"warning: landmarks are not kept in {self.evaluator.cache.folder} ({error.strerror})")

    @property
    def without_subject(self) -> int:
        return sum(part.without_subject for part in self.parts)


def rgb(frames: Tensor) -> np.ndarray:
    """uint8 (B, 3, R, R) -> uint8 (B, R, R, 3)."""
    return frames.permute(0, 2, 3, 1).contiguous().numpy()


GENERATED, FIRST_FRAME = "generated", "repeating"
DEFINITION = (
    "video reconstruction: the first frame of each clip is the source, every frame drives (the first, too), motion is "
    "absolute; `repeating` is the first frame itself in place of every frame"
)


@dataclass(frozen=True)
class Reconstruction:
    """One clip of the data set. name: its path below it, without extension."""

    name: str
    clip: Clip
    metrics: list[str]

    def digest(self) -> str:
        return self.clip.digest()

    def measure(self, evaluator: Evaluator, digest: str) -> ClipResult:
        """Figures of the reconstruction, and of repeating the first frame. Raises InputError for a broken clip."""
        generated: dict[str, Sum] = {}
        repeating: dict[str, Sum] = {}
        reader = self.clip.open()
        source = evaluator.first_frame(reader)
        truth_seen = TrueDetections(evaluator, evaluator.pool, self.name, reader, digest)
        clock, frames, lost = Clock(), 0, 0
        with evaluator.samples.of(self.name, reader.fps / evaluator.every) as clip_samples:
            for driven in evaluator.drive(reader, source, clock):
                with clock.on("metrics"):
                    device = driven.generated.device
                    truth = driven.driving.to(device).float() / 255
                    first = (source.to(device).float() / 255).expand_as(truth)
                    seen, seen_generated = truth_seen.of(driven), evaluator.detect(self.name, driven)
                    seen_first = truth_seen.parts[0].repeated(len(truth)) if seen else None
                    sums = measure(self.metrics, truth, driven.generated, seen, seen_generated, evaluator.lpips)
                    generated = added(generated, sums)
                    sums = measure(self.metrics, truth, first, seen, seen_first, evaluator.lpips)
                    repeating = added(repeating, sums)
                frames += len(truth)
                lost += seen_generated.without_subject if seen_generated else 0
                clip_samples.add(rgb(source)[0], rgb(driven.driving), driven.pictures, driven.numbers)
        truth_seen.keep()
        series = {GENERATED: generated, FIRST_FRAME: repeating}
        without = {"truth": truth_seen.without_subject, GENERATED: lost} if evaluator.pool else {}
        return ClipResult(self.name, self.clip.identity, digest, frames, series, without, clock.seconds)
