"""What a run measures and writes down: validation errors, throughput, and the lines of `log.jsonl`."""

import math
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtanimate.config import LossConfig
from mtanimate.data.clips import Clip
from mtanimate.data.pairs import group
from mtanimate.errors import InputError
from mtanimate.faces.detection import square_frames
from mtanimate.files import JsonLines
from mtanimate.inspection.scene import draw_scene
from mtanimate.models.animator import Animator
from mtanimate.training.objective import Scene
from mtanimate.training.step import Step
from mtanimate.video import write_image

_FRAMES = 8  # that each clip is validated on, evenly spaced
_WINDOW = 20  # steps that the throughput is the mean of


@dataclass(frozen=True)
class Score:
    """The result of a validation: mean absolute differences of pixels in [0, 1].

    Attributes:
        error: Of the network's prediction.
        first_frame: Of the first-frame baseline, which repeats the first frame.
    """

    error: float
    first_frame: float


class Validation:
    """Reconstructs a few clips, fixed at the start: the first frame is the source, later ones drive it.

    Attributes:
        clips: uint8 frames (N, 3, R, R) of each clip.
        skipped: Clips that could not be read, and why.
    """

    def __init__(self, clips: list[Clip], count: int, resolution: int) -> None:
        """Decode the frames to validate on.

        Args:
            clips: The clips to choose from: the first one of each identity, then the second one, and so on.
            count: How many to choose.
            resolution: The side of the frames, in pixels.
        """
        by_identity = group(clips)
        rounds = max((len(clips) for clips in by_identity), default=0)
        ordered = [clips[turn] for turn in range(rounds) for clips in by_identity if turn < len(clips)]
        self.clips: list[Tensor] = []
        self.skipped: list[str] = []
        for clip in ordered:
            if len(self.clips) == count:
                break
            try:
                self.clips.append(_some_frames(clip, resolution))
            except InputError as error:
                self.skipped.append(str(error))

    @torch.no_grad()
    def __call__(self, animator: Animator) -> Score:
        """Score a network. Its parts are in training or evaluation mode afterwards as before."""
        modes = [(module, module.training) for module in animator.modules()]  # frozen parts do not train
        animator.eval()
        errors, first_frame = [], []
        for frames in self.clips:
            pictures = frames.to(animator.device) / 255
            source, driving = pictures[:1], pictures[1:]
            motion = animator.estimate_motion(driving)
            background = animator.predict_background(source, driving)
            prediction = animator.drive(animator.encode_source(source), motion, background)
            errors.append((prediction - driving).abs().mean().item())
            first_frame.append((source - driving).abs().mean().item())
        for module, training in modes:
            module.training = training
        return Score(sum(errors) / len(errors), sum(first_frame) / len(first_frame))


def _some_frames(clip: Clip, resolution: int) -> Tensor:
    """The first frame and up to `_FRAMES` later ones: uint8 (N, 3, R, R)."""
    reader = clip.open()
    last = reader.frame_count - 1
    later = sorted({round(last * index / _FRAMES) for index in range(1, _FRAMES + 1)} - {0})
    return square_frames(reader.frames([0, *later]), resolution)


class Throughput:
    """The speed of the last steps, and the share of their time that was spent waiting for data."""

    def __init__(self) -> None:
        self._steps: deque[tuple[float, float, int]] = deque(maxlen=_WINDOW)  # seconds, seconds waited, pairs
        self._last = time.monotonic()
        self._waited = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time in this block as waiting for data."""
        started = time.monotonic()
        try:
            yield
        finally:
            self._waited += time.monotonic() - started

    def step(self, pairs: int) -> None:
        """A step on this many pairs has ended."""
        now = time.monotonic()
        self._steps.append((now - self._last, self._waited, pairs))
        self._last, self._waited = now, 0.0

    @property
    def pairs_per_second(self) -> float:
        return sum(pairs for _, _, pairs in self._steps) / self._seconds

    @property
    def data_wait(self) -> float:
        """The share of the time that was spent waiting for data, in [0, 1]."""
        return sum(waited for _, waited, _ in self._steps) / self._seconds

    @property
    def seconds_per_step(self) -> float:
        return self._seconds / max(len(self._steps), 1)

    @property
    def _seconds(self) -> float:
        return max(sum(seconds for seconds, _, _ in self._steps), 1e-9)


class LogEntry:
    """Collects the steps since the last line of `log.jsonl`, and makes the next line of them.

    Attributes:
        score: The latest validation.
    """

    def __init__(self, weights: LossConfig) -> None:
        """weights: Of the losses."""
        self.score: Score | None = None
        self._weights = weights
        self._steps: list[Step] = []

    def add(self, step: Step) -> None:
        """Add a step."""
        self._steps.append(replace(step, scene=None))  # pictures take memory

    def take(self, number: int, pairs: int, throughput: Throughput, with_score: bool) -> dict[str, Any]:
        """The line of the steps that were added, which are forgotten then.

        Args:
            number: The step that the run is at.
            pairs: The pairs of frames that the run has drawn so far.
            throughput: Of the last steps.
            with_score: Whether the latest validation is part of the line.

        Returns:
            The mean of each loss as it was trained on, and without its weight, so that runs with other weights can be
            compared. Steps that were skipped do not count; `loss` is None where all were.
        """
        good = [step for step in self._steps if step.taken]
        names = good[-1].terms if good else ()
        terms = {name: sum(step.terms.get(name, 0.0) for step in good) / len(good) for name in names}
        entry: dict[str, Any] = {"step": number, "loss": sum(terms.values()) if good else None, **terms}
        entry |= {f"{name}_unweighted": value / getattr(self._weights, name) for name, value in terms.items()}
        if len(good) < len(self._steps):
            entry["skipped_steps"] = len(self._steps) - len(good)
        if good:
            entry["gradient_norm"] = sum(step.gradient_norm for step in good) / len(good)
        entry["samples"] = pairs
        entry |= {"samples_per_second": throughput.pairs_per_second, "data_wait": throughput.data_wait}
        if with_score and self.score is not None:
            entry |= {"validation_error": self.score.error, "validation_repeating": self.score.first_frame}
        self._steps = []
        return entry


class RunLog:
    """A run's `log.jsonl`, with one JSON object per line, and its `pictures`; TensorBoard too, where asked for."""

    def __init__(self, folder: Path, step: int, tensorboard: bool) -> None:
        """Open the log.

        Args:
            folder: The run's folder.
            step: The step that the run is at. Lines of later steps are removed: a run that was killed goes on from a
                state before them.
            tensorboard: Whether to write the same numbers and pictures for TensorBoard.

        Raises:
            InputError: TensorBoard is asked for and not installed.
        """
        self.folder = folder
        self.file = folder / "log.jsonl"
        self._lines = JsonLines(self.file, "train")
        self.board = _tensorboard(folder, step) if tensorboard else None
        if self.file.exists():
            self._lines.keep(lambda entry: _step_of(entry) <= step)

    def write(self, entry: dict[str, Any]) -> None:
        """Add a line.

        Args:
            entry: The line, with `step`. Numbers that are not finite become null, as JSON has none.

        Raises:
            OSError: The disk is full. No part of the line is left then.
        """
        self._lines.append(entry)
        if self.board is not None:
            for name, value in entry.items():
                if name != "step" and isinstance(value, (int, float)) and math.isfinite(value):
                    self.board.add_scalar(name, value, entry["step"])

    def draw(self, scene: Scene, step: int) -> None:
        """Write `pictures/STEP.png` of the first four pairs. Raises MTAnimateError where it cannot be written."""
        few = scene.first(4)
        picture = draw_scene(few.source, few.driving, few.source_motion, few.driving_motion, few.dense, few.prediction)
        write_image(self.folder / "pictures" / f"{step:07d}.png", picture)
        if self.board is not None:
            self.board.add_image("scene", picture, step, dataformats="HWC")

    def close(self) -> None:
        """Write what TensorBoard still holds back."""
        if self.board is not None:
            self.board.close()


def _step_of(entry: Any) -> float:
    """The step of an entry; infinity for an entry without one."""
    try:
        step = entry["step"]
    except (KeyError, TypeError):
        return math.inf
    return step if type(step) is int else math.inf


def _tensorboard(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError("training.tensorboard=true needs TensorBoard: pip install 'mtanimate[tensorboard]'") from None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
