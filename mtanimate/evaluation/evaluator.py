"""What every clip of an evaluation is measured with, and the run over the clips."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from mtanimate.animation.retargeting import choose_reference, transferred
from mtanimate.checkpoints.file import read_checkpoint, read_config
from mtanimate.devices import Precision, choose_device, choose_precision, describe_device
from mtanimate.errors import InputError
from mtanimate.evaluation.clip_results import ClipResult, ResultsFolder
from mtanimate.evaluation.samples import SampleFolders
from mtanimate.evaluation.summary import METHOD, PAIRS_METHOD
from mtanimate.faces.detection import square_frames
from mtanimate.files import sha256
from mtanimate.inference.predictor import Predictor
from mtanimate.inference.prefetch import to_frames
from mtanimate.metrics.detector_pool import DetectorChoice, DetectorPool, MeshDetectorChoice, TruthCache, open_detector
from mtanimate.metrics.detectors import Detections, Detector, Frames
from mtanimate.metrics.gestures import DEFINITION, GESTURES
from mtanimate.metrics.measures import Lpips, Metric
from mtanimate.models.motion import Motion
from mtanimate.video.footage import Footage


@dataclass(frozen=True)
class DrivenFrames:
    """A batch of a driving clip's frames and what the network generated from them.

    Attributes:
        numbers: The frames' numbers in the clip, from 0.
        driving: The driving frames, uint8 (B, 3, R, R).
        generated: The generated frames, float (B, 3, R, R) in [0, 1].
        pictures: The generated frames as uint8 (B, R, R, 3).
    """

    numbers: range
    driving: Tensor
    generated: Tensor
    pictures: np.ndarray


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
        relative: Whether the driver's movement since a reference frame is added to the source's pose. Otherwise the
            driver's pose is taken over, and the background moves as the network predicts.
        pool: Detects landmarks and identities; None where there is no detector.
        mesh: Detects the face mesh; None where gestures are not measured.
        lpips: The LPIPS network; None where it is not asked for.
        samples: Where pictures and videos of the results are kept.
        every: One of this many frames is used, from the first on.
        log: Gets warnings.
        cache: Detections in true frames, kept between evaluations.
    """

    predictor: Predictor
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
        return self.predictor.network.config.resolution

    def first_frame(self, reader: Footage) -> Tensor:
        """The clip's first frame, uint8 (1, 3, R, R). Raises InputError for a broken clip."""
        return square_frames(next(reader.batches(1)), self.resolution)

    def drive(self, reader: Footage, source: Tensor, clock: Clock) -> Iterator[DrivenFrames]:
        """Drive the source by all frames of the clip that are used, as `animate` does.

        Args:
            reader: The driving clip.
            source: uint8 (1, 3, R, R).
            clock: Counts the time of generation.

        Yields:
            The frames in batches, in their order.

        Raises:
            InputError: The clip is broken.
        """
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
            yield DrivenFrames(numbers, driving, generated, pictures)
            done += len(driving)

    def detect(self, name: str, driven: DrivenFrames) -> Detections | None:
        """What is detected in generated frames of the clip `name`; None without a detector."""
        if self.pool is None:
            return None
        return self.pool.detect(Frames(driven.pictures, name, driven.numbers, generated=True))

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


class TrueDetections:
    """Detections in a clip's true frames, batch after batch. They come from the cache where it has them.

    Args:
        evaluator: Names the cache, the resolution and the frames that are used.
        pool: The detector; None where there is none.
        name: The clip's name below the data set.
        reader: The clip.
        digest: The SHA-256 of its files.
    """

    def __init__(
        self, evaluator: Evaluator, pool: DetectorPool | None, name: str, reader: Footage, digest: str
    ) -> None:
        self.evaluator, self.pool, self.name = evaluator, pool, name
        self.batches: list[Detections] = []
        self._cached: Detections | None = None
        self._key = ""
        if pool is not None and not pool.choice.stored:
            self._key = pool.key(digest, "centred square, bicubic", evaluator.resolution, evaluator.every)
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
    """uint8 (B, 3, R, R) -> uint8 (B, R, R, 3)."""
    return frames.permute(0, 2, 3, 1).contiguous().numpy()


class Task(Protocol):
    """One clip, or pair of a source and a clip, to be measured."""

    @property
    def name(self) -> str:
        """Unique in the evaluation; its files are called so."""

    def digest(self) -> str:
        """The SHA-256 of its files' content."""

    def measure(self, evaluator: Evaluator, digest: str) -> ClipResult:
        """Drive the source and measure the result. Raises InputError for a broken clip or picture."""


@dataclass(frozen=True)
class EvaluationPlan:
    """What is measured.

    Attributes:
        kind: A short name, which is part of results and of the default folder's name.
        definition: The same in words.
        tasks: The clips, or the pairs.
        metrics: What is measured of each.
        relative: Whether motion is transferred relatively.
        gestures: Whether the gestures of faces are measured, too, by the face mesh.
    """

    kind: str
    definition: str
    tasks: Sequence[Task]
    metrics: list[Metric]
    relative: bool
    gestures: bool


class EvaluationRun:
    """A checkpoint and what it is measured with. The network is loaded only when there is something to measure.

    Attributes:
        detector: Detects landmarks and identities; None where the metrics do not need it, or none is wanted.
        mesh: Detects the face mesh; None where gestures are not measured.
        no_mesh: Why the planned gestures cannot be measured; empty otherwise.

    Raises:
        InputError: A detector or its package is missing, or the options do not fit together.
    """

    def __init__(
        self,
        checkpoint: Path,
        plan: EvaluationPlan,
        choice: DetectorChoice,
        every: int,
        precision: Precision,
        device: str,
    ) -> None:
        self.checkpoint, self.plan, self.choice, self.every = checkpoint, plan, choice, every
        if every < 1:
            raise InputError(f"--every {every}: every N-th frame is measured, and N is at least 1")
        self.device = choose_device(device)
        self.precision = choose_precision(precision, self.device)
        needs = {metric.needs for metric in plan.metrics}
        observes = bool(needs & {"landmarks", "descriptors"}) and (choice.detector != "none" or bool(choice.openpose))
        self.detector: Detector | None = open_detector(choice) if observes else None
        self.mesh, self.no_mesh = _open_mesh() if plan.gestures else (None, "")
        self.describes = "descriptors" in needs
        self.lpips = Lpips(self.device) if "lpips" in needs else None
        self.resolution = read_config(checkpoint).model.resolution

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that the results depend on."""
        return {
            "kind": self.plan.kind,
            "checkpoint": sha256(self.checkpoint),
            "resolution": self.resolution,
            "every": self.every,
            "metrics": [metric.name for metric in self.plan.metrics],
            "precision": self.precision,
            "subject": self.detector and self.detector.subject,
            "detector": self.detector and self.detector.name,
            "identity": self.detector and self.describes and self.detector.identity,
            "lpips": self.lpips and self.lpips.name,
            "mesh": self.mesh and self.mesh.name,
            "reference": "best" if self.plan.relative else None,
        }

    @property
    def reasons(self) -> dict[str, str]:
        """Why a metric cannot be measured, by its name."""
        if self.detector is None:
            seen = [metric.name for metric in self.plan.metrics if metric.needs in ("landmarks", "descriptors")]
            return dict.fromkeys(seen, "no detector: --detector none")
        if self.detector.identity is None:
            unknown = [metric.name for metric in self.plan.metrics if metric.needs == "descriptors"]
            return dict.fromkeys(unknown, self.detector.no_identity)
        return {}

    def definitions(self) -> dict[str, str]:
        """What the figures in the result mean."""
        side = self.resolution
        words = {
            "kind": self.plan.definition,
            "frames": "every frame" if self.every == 1 else f"one of {self.every} frames, from the first on",
            "values": "RGB in [0, 1]; generated frames as the network gives them, not rounded, not encoded; detectors "
            "see them rounded to 8 bits",
            "size": f"the centred square of the true frame, {side} x {side} by anti-aliased bicubic resizing where it "
            "is another size, rounded to 8 bits; pixels are of this size",
            "mean": "a video's figure is over its frames, `metrics` the mean over videos, `over_frames` over all "
            "frames of all videos together",
            "interval": METHOD,
            "precision": self.precision,
        }
        if self.detector is not None:
            words["detector"] = self.detector.name
            words["missing"] = (
                "a landmark missing in either frame does not count for AKD; one missing in the generated frame alone "
                "counts for MKR; a frame without a subject, true or generated, does not count for AED; a video where "
                "nothing is left has no figure and does not count in the mean (`without_subject` counts frames)"
            )
            if self.describes and self.detector.identity:
                words["identity"] = self.detector.identity
        if self.lpips is not None:
            words["lpips network"] = self.lpips.name
        if self.mesh is not None:
            words |= {"mesh": self.mesh.name, "gestures": DEFINITION, "gestures.interval": PAIRS_METHOD}
            words |= {f"gestures.{name}": gesture.definition for name, gesture in GESTURES.items()}
        return words | {metric.name: metric.definition for metric in self.plan.metrics}

    def measure(
        self,
        tasks: Sequence[Task],
        results: ResultsFolder,
        samples: SampleFolders,
        workers: int,
        progress: Callable[..., None],
        log: Callable[[str], None],
    ) -> tuple[list[ClipResult], list[str]]:
        """The results of all tasks, measured before or now, and for each task that was skipped the reason."""
        measured: list[ClipResult] = []
        skipped: list[str] = []
        digests = {task.name: task.digest() for task in tasks}
        left = [task for task in tasks if results.get(task.name, digests[task.name]) is None]
        if len(left) < len(tasks):
            log(f"{len(tasks) - len(left)} of {len(tasks)} videos were measured before")
        with ExitStack() as stack:
            evaluator = self._evaluator(stack, samples, workers, log) if left else None
            frames, seconds = 0, 0.0
            for done, task in enumerate(tasks, 1):
                result = results.get(task.name, digests[task.name])
                if result is None:
                    assert evaluator is not None
                    try:
                        result = task.measure(evaluator, digests[task.name])
                    except InputError as error:
                        skipped.append(str(error))
                        log(f"skipped: {error}")
                        continue
                    results.put(result)
                    frames, seconds = frames + result.frames, seconds + sum(result.seconds.values())
                measured.append(result)
                progress(done, len(tasks), f"{frames / seconds:.1f} frames/s" if seconds else "")
        return measured, skipped

    def _evaluator(
        self, stack: ExitStack, samples: SampleFolders, workers: int, log: Callable[[str], None]
    ) -> Evaluator:
        animator = read_checkpoint(self.checkpoint, self.device).animator
        performer = Predictor(animator, self.precision, log)
        pool = mesh = None
        if self.detector is not None:
            pool = stack.enter_context(DetectorPool(self.choice, identity=self.describes, processes=workers))
        if self.mesh is not None:
            mesh = stack.enter_context(DetectorPool(MeshDetectorChoice(), identity=False, processes=workers))
        log(f"device {describe_device(self.device)}, {self.precision}; {self.resolution} x {self.resolution}")
        return Evaluator(performer, self.plan.relative, pool, mesh, self.lpips, samples, self.every, log)


def _open_mesh() -> tuple[Detector | None, str]:
    """The face mesh, or the reason why there is none, since the other metrics do not need it."""
    try:
        return open_detector(MeshDetectorChoice()), ""
    except InputError as error:
        return None, str(error)
