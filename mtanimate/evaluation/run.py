"""The run over the clips of an evaluation: what is measured, by which network and which detectors."""

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from mtanimate.animation.settings import Mode
from mtanimate.checkpoints.file import read_checkpoint, read_config
from mtanimate.config import ModelConfig
from mtanimate.devices import describe_device
from mtanimate.errors import InputError
from mtanimate.evaluation.clip_results import ClipResult, ResultsFolder
from mtanimate.evaluation.evaluator import Evaluator
from mtanimate.evaluation.samples import SampleFolders
from mtanimate.evaluation.summary import METHOD, PAIRS_METHOD
from mtanimate.files import sha256
from mtanimate.inference.predictor import Predictor
from mtanimate.metrics.detector_pool import DetectorChoice, DetectorPool, MeshDetectorChoice, open_detector
from mtanimate.metrics.detectors import Detector
from mtanimate.metrics.gestures import DEFINITION, GESTURES
from mtanimate.metrics.measures import Lpips, Metric
from mtanimate.models.animator import check_disentangles


class Task(Protocol):
    """One clip, or pair of a source and a clip, to be measured."""

    @property
    def name(self) -> str:
        """Unique in the evaluation; its files are called so."""

    @property
    def files(self) -> list[Path]:
        """What is read, files and folders."""

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
        mode: How motion is transferred.
        gestures: Whether the gestures of faces are measured, too, by the face mesh.
        largest: As `Evaluator.largest`.
    """

    kind: str
    definition: str
    tasks: Sequence[Task]
    metrics: list[Metric]
    mode: Mode
    gestures: bool
    largest: int | None = None


# What becomes of a task: its result, or why it is skipped; and the state of the work, in words.
Outcome = tuple[Task, ClipResult | str, str]
Measuring = Callable[[Sequence[Task]], Generator[Outcome, None, None]]


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
        precision: str,
        device: torch.device,
    ) -> None:
        self.checkpoint, self.plan, self.choice, self.every = checkpoint, plan, choice, every
        self.precision, self.device = precision, device
        if every < 1:
            raise InputError(f"--every {every}: every N-th frame is measured, and N is at least 1")
        needs = {metric.needs for metric in plan.metrics}
        observes = bool(needs & {"landmarks", "descriptors"}) and (choice.detector != "none" or bool(choice.openpose))
        self.detector: Detector | None = open_detector(choice) if observes else None
        self.mesh, self.no_mesh = _open_mesh() if plan.gestures else (None, "")
        self.describes = "descriptors" in needs
        self.lpips = Lpips(self.device) if "lpips" in needs else None
        model = read_config(checkpoint).model
        self.resolution = model.resolution
        if plan.mode == "avd":
            check_disentangles(model)
        if plan.largest is not None:
            _check_largest(plan.largest, model, choice)

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that the results depend on."""
        # Named only where it is not the network's, so that folders of before go on.
        own_size = {} if self.plan.largest is None else {"largest_side": self.plan.largest}
        return own_size | {
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
            "reference": "best" if self.plan.mode == "relative" else None,
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
        values = "generated frames as the network gives them, not rounded, not encoded; detectors see them rounded to "
        values += "8 bits"
        size = f"the centred square of the true frame, {side} x {side}"
        if self.plan.largest is not None:
            values += f"; frames of more than {side} x {side} are all rounded to 8 bits"
            size = (
                f"the source's own centred square, at most {self.plan.largest} x {self.plan.largest}, at least "
                f"{side} x {side}, which the network sees; the centred square of the true frame has the same size,"
            )
        words = {
            "kind": self.plan.definition,
            "frames": "every frame" if self.every == 1 else f"one of {self.every} frames, from the first on",
            "values": f"RGB in [0, 1]; {values}",
            "size": f"{size} by anti-aliased bicubic resizing where it is another size, rounded to 8 bits; pixels are "
            "of this size",
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
        measuring: Measuring,
        progress: Callable[..., None],
        log: Callable[[str], None],
    ) -> tuple[list[ClipResult], list[str]]:
        """The results of all tasks, measured before or now, and for each task that was skipped the reason.

        Both are in the order of the tasks. measuring: Measures those that are left, in any order.
        """
        found = {task.name: _stored(task, results) for task in tasks}
        left = [task for task in tasks if found[task.name] is None]
        before = len(tasks) - len(left)
        if before:
            log(f"{before} of {len(tasks)} videos were measured before")
        progress(before, len(tasks))
        skipped: dict[str, str] = {}
        frames, began = 0, time.monotonic()
        with closing(measuring(left)) as outcomes:
            for done, (task, outcome, state) in enumerate(outcomes, before + 1):
                if isinstance(outcome, str):
                    skipped[task.name] = outcome
                    log(f"skipped: {outcome}")
                else:
                    results.put(outcome)
                    found[task.name] = outcome
                    frames += outcome.frames
                speed = f"{frames / max(time.monotonic() - began, 1e-6):.1f} frames/s"
                progress(done, len(tasks), f"{speed}, {state}" if state else speed)
        measured = [result for task in tasks if (result := found[task.name]) is not None]
        return measured, [skipped[task.name] for task in tasks if task.name in skipped]

    def here(
        self, samples: SampleFolders, processes: int, log: Callable[[str], None], tasks: Sequence[Task]
    ) -> Generator[Outcome, None, None]:
        """Measure tasks in this process. processes: That detect landmarks."""
        if not tasks:
            return
        with ExitStack() as stack:
            evaluator = self.evaluator(stack, samples, processes, log)
            for task in tasks:
                yield task, measured(task, evaluator), ""

    def evaluator(
        self, stack: ExitStack, samples: SampleFolders, processes: int, log: Callable[[str], None]
    ) -> Evaluator:
        """What tasks are measured with, until the stack is closed."""
        animator = read_checkpoint(self.checkpoint, self.device).animator
        performer = Predictor(animator, self.precision, log)
        pool = mesh = None
        if self.detector is not None:
            pool = stack.enter_context(DetectorPool(self.choice, identity=self.describes, processes=processes))
        if self.mesh is not None:
            mesh = stack.enter_context(DetectorPool(MeshDetectorChoice(), identity=False, processes=processes))
        size = f"{self.resolution} x {self.resolution}"
        if (largest := self.plan.largest) is not None:
            size += f", measured at the source's own size, at most {largest} x {largest}"
        log(f"device {describe_device(self.device)}, {self.precision}; {size}")
        return Evaluator(performer, self.plan.mode, pool, mesh, self.lpips, samples, self.every, log, largest)


def measured(task: Task, evaluator: Evaluator) -> ClipResult | str:
    """The task's result, or why it is skipped."""
    try:
        return task.measure(evaluator, task.digest())
    except InputError as error:
        return str(error)


def _stored(task: Task, results: ResultsFolder) -> ClipResult | None:
    return results.get(task.name, task.digest()) if results.holds(task.name) else None


def _check_largest(largest: int, model: ModelConfig, choice: DetectorChoice) -> None:
    """Raises InputError where results of up to this side, in pixels, cannot be rendered or measured."""
    side = f"{model.resolution} x {model.resolution}"
    if largest < model.resolution:
        raise InputError(f"--resolution {largest}: this network makes {side}: give at least that, or auto")
    if not model.generator.skips:
        raise InputError(
            f"--resolution: this network does not pass the source's pixels through its last gate: leave the option out "
            f"to measure it at {side}"
        )
    if choice.stored:
        raise InputError(
            "--resolution: --openpose and --features hold nothing of enlarged frames: leave out either these or this"
        )


def _open_mesh() -> tuple[Detector | None, str]:
    """The face mesh, or the reason why there is none, since the other metrics do not need it."""
    try:
        return open_detector(MeshDetectorChoice()), ""
    except InputError as error:
        return None, str(error)
