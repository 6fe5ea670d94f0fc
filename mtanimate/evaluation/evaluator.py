"""What clips are measured with, and the walk through one clip: decode, generate, look."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from mtanimate.animation.retargeting import choose_reference, transferred
from mtanimate.data.clips import Clip
from mtanimate.evaluation.rows import Row
from mtanimate.evaluation.samples import Keeping
from mtanimate.faces.detection import square_frames
from mtanimate.inference.predictor import Predictor
from mtanimate.inference.prefetch import to_frames
from mtanimate.metrics.detectors import Frames
from mtanimate.metrics.measures import Sum, added, measure
from mtanimate.metrics.observer import Observer, Seen, TruthCache
from mtanimate.models.motion import Motion
from mtanimate.video.footage import Footage


@dataclass(frozen=True)
class Driven:
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
class Bench:
    """What every clip of an evaluation is measured with.

    relative: the driver's movement since its first frame is added to the source's pose; else the driver's pose is taken
    over, and the background moves as the network predicts. every: of so many frames one is used, from the first on.
    observer: what looks for landmarks and identities; mesh: for the face mesh; None where it is not wanted, or missing.
    """

    predictor: Predictor
    relative: bool
    observer: Observer | None
    mesh: Observer | None
    lpips: Callable[[Tensor, Tensor], Tensor] | None
    keeping: Keeping
    every: int
    log: Callable[[str], None]
    cache: TruthCache = field(default_factory=TruthCache)

    @property
    def resolution(self) -> int:
        return self.predictor.network.config.resolution

    def first_frame(self, reader: Footage) -> Tensor:
        """uint8 (1, 3, R, R). Raises InputError for a broken clip."""
        return square_frames(next(reader.batches(1)), self.resolution)

    def drive(self, reader: Footage, source: Tensor, clock: Clock) -> Iterator[Driven]:
        """The source, uint8 (1, 3, R, R), driven by all frames of the clip, as `animate` does by itself. Raises
        InputError for a broken clip."""
        with clock.on("generation"):
            encoded = self.predictor.encode(source)
        whole = self._relative_motion(reader, encoded.motion, clock) if self.relative else None
        done = 0
        for batch in reader.batches(self.predictor.batch_size, step=self.every):
            driving = square_frames(batch, self.resolution)
            with clock.on("generation"):
                if whole is not None:
                    motion, background = whole[done : done + len(driving)], None
                else:
                    motion = self.predictor.estimate(driving)
                    background = self.predictor.predict_background(encoded, driving)
                generated = self.predictor.drive(encoded, motion, background)
                pictures = to_frames(generated)
            numbers = range(done * self.every, (done + len(driving)) * self.every, self.every)
            yield Driven(numbers, driving, generated, pictures)
            done += len(driving)

    def _relative_motion(self, reader: Footage, source: Motion, clock: Clock) -> Motion:
        """Of all frames: the source's own, moved since the frame whose pose, and of faces whose expression, is nearest
        to it."""
        motions = []
        for batch in reader.batches(self.predictor.batch_size, step=self.every):
            with clock.on("generation"):
                motions.append(self.predictor.estimate(square_frames(batch, self.resolution)))
        motion = Motion.cat(motions)
        number, _ = choose_reference(source, motion, "best")
        return transferred(source, source, motion, motion[number : number + 1], True, 1.0)

    def look(self, name: str, driven: Driven) -> Seen | None:
        """What is seen in generated frames; None without a detector."""
        if self.observer is None:
            return None
        return self.observer.look(Frames(driven.pictures, name, driven.numbers, generated=True))


class Sightings:
    """What an observer sees in a clip's true frames, batch after batch: now, or kept from an earlier evaluation."""

    def __init__(self, bench: Bench, observer: Observer | None, name: str, reader: Footage, digest: str) -> None:
        self.bench, self.observer, self.name = bench, observer, name
        self.parts: list[Seen] = []
        self.kept: Seen | None = None
        self.key = ""
        if observer is not None and not observer.choice.stored:
            self.key = observer.key(digest, "centred square, bicubic", bench.resolution, bench.every)
            self.kept = bench.cache.get(self.key, len(range(0, reader.frame_count, bench.every)))

    def of(self, driven: Driven) -> Seen | None:
        """In the next driving frames; None without an observer."""
        if self.observer is None:
            return None
        if self.kept is not None:
            done = sum(map(len, self.parts))
            seen = self.kept[done : done + len(driven.driving)]
        else:
            pictures = rgb(driven.driving)
            seen = self.observer.look(Frames(pictures, self.name, driven.numbers, generated=False))
        self.parts.append(seen)
        return seen

    def keep(self) -> None:
        """For the next evaluation. Says so where it cannot."""
        if not self.key or self.kept is not None:
            return
        try:
            self.bench.cache.put(self.key, Seen.joined(self.parts))
        except OSError as error:
            self.bench.log(f"warning: landmarks are not kept in {self.bench.cache.folder} ({error.strerror})")

    @property
    def without_subject(self) -> int:
        return sum(part.without_subject for part in self.parts)


def rgb(frames: Tensor) -> np.ndarray:
    """uint8 (B, 3, R, R) -> uint8 (B, R, R, 3)."""
    return frames.permute(0, 2, 3, 1).contiguous().numpy()


GENERATED, REPEATING = "generated", "repeating"
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

    def measure(self, bench: Bench, digest: str) -> Row:
        """Figures of the reconstruction, and of repeating the first frame. Raises InputError for a broken clip."""
        generated: dict[str, Sum] = {}
        repeating: dict[str, Sum] = {}
        reader = self.clip.open()
        source = bench.first_frame(reader)
        truth_seen = Sightings(bench, bench.observer, self.name, reader, digest)
        clock, frames, lost = Clock(), 0, 0
        with bench.keeping.of(self.name, reader.fps / bench.every) as album:
            for driven in bench.drive(reader, source, clock):
                with clock.on("metrics"):
                    device = driven.generated.device
                    truth = driven.driving.to(device).float() / 255
                    first = (source.to(device).float() / 255).expand_as(truth)
                    seen, seen_generated = truth_seen.of(driven), bench.look(self.name, driven)
                    seen_first = truth_seen.parts[0].repeated(len(truth)) if seen else None
                    sums = measure(self.metrics, truth, driven.generated, seen, seen_generated, bench.lpips)
                    generated = added(generated, sums)
                    sums = measure(self.metrics, truth, first, seen, seen_first, bench.lpips)
                    repeating = added(repeating, sums)
                frames += len(truth)
                lost += seen_generated.without_subject if seen_generated else 0
                album.add(rgb(source)[0], rgb(driven.driving), driven.pictures, driven.numbers)
        truth_seen.keep()
        series = {GENERATED: generated, REPEATING: repeating}
        without = {"truth": truth_seen.without_subject, GENERATED: lost} if bench.observer else {}
        return Row(self.name, self.clip.identity, digest, frames, series, without, clock.seconds)
