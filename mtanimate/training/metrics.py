"""How fast a run goes, and how much of its time the device waits for data."""

import json
import math
import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mtanimate.config import LossConfig
from mtanimate.data.clips import Clip
from mtanimate.data.pairs import group
from mtanimate.errors import InputError
from mtanimate.faces.detection import square_frames
from mtanimate.files import replacing
from mtanimate.inspection.sheets import draw_scene
from mtanimate.models.animator import Animator
from mtanimate.reading import parse_json, read_bytes
from mtanimate.training.objective import Scene
from mtanimate.training.step import Step
from mtanimate.video import write_image

WINDOW = 20  # steps


class Throughput:
    """Over the last steps: pairs a second, the share of time spent waiting for data, seconds a step."""

    def __init__(self) -> None:
        self._steps: deque[tuple[float, float, int]] = deque(maxlen=WINDOW)
        self._last = time.monotonic()
        self._waited = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self._waited += time.monotonic() - started

    def step(self, pairs: int) -> None:
        """A step with so many pairs has ended."""
        now = time.monotonic()
        self._steps.append((now - self._last, self._waited, pairs))
        self._last, self._waited = now, 0.0

    @property
    def pairs_per_second(self) -> float:
        return sum(pairs for _, _, pairs in self._steps) / self._seconds

    @property
    def data_wait(self) -> float:
        return sum(waited for _, waited, _ in self._steps) / self._seconds

    @property
    def seconds_per_step(self) -> float:
        return self._seconds / max(len(self._steps), 1)

    @property
    def _seconds(self) -> float:
        return max(sum(seconds for seconds, _, _ in self._steps), 1e-9)


class LogEntry:
    """The lines of log.jsonl: means over the steps since the last. weights: of the terms."""

    def __init__(self, weights: LossConfig) -> None:
        self.weights = weights
        self.steps: list[Step] = []
        self.score: Score | None = None

    def add(self, step: Step) -> None:
        self.steps.append(replace(step, scene=None))  # pictures take memory

    def entry(self, number: int, pairs: int, throughput: Throughput, with_score: bool) -> dict[str, Any]:
        """Of each term the mean that was trained on, and without its weight, so that runs of other weights compare.
        Steps that were skipped do not count; `loss` is null where all were."""
        good = [step for step in self.steps if step.taken]
        names = good[-1].terms if good else ()
        terms = {name: sum(step.terms.get(name, 0.0) for step in good) / len(good) for name in names}
        entry: dict[str, Any] = {"step": number, "loss": sum(terms.values()) if good else None, **terms}
        entry |= {f"{name}_unweighted": value / getattr(self.weights, name) for name, value in terms.items()}
        if len(good) < len(self.steps):
            entry["skipped_steps"] = len(self.steps) - len(good)
        if good:
            entry["gradient_norm"] = sum(step.gradient_norm for step in good) / len(good)
        entry |= {
            "samples": pairs,
            "samples_per_second": throughput.pairs_per_second,
            "data_wait": throughput.data_wait,
        }
        if with_score and self.score is not None:
            entry |= {"validation_error": self.score.error, "validation_repeating": self.score.repeating}
        self.steps = []
        return entry


class RunLog:
    """An object a line in `log.jsonl`; the same numbers to TensorBoard where asked for; `pictures/STEP.png`.

    step: that the run is at; what is there of later ones is forgotten, since a run that was killed goes on from
    a state before them. Raises InputError where TensorBoard is asked for and not installed.
    """

    def __init__(self, folder: Path, step: int, tensorboard: bool) -> None:
        self.folder = folder
        self.file = folder / "log.jsonl"
        self.board = _tensorboard(folder, step) if tensorboard else None
        if self.file.exists():
            self._forget(step)

    def _forget(self, step: int) -> None:
        lines = read_bytes(self.file).decode("utf-8", "replace").split("\n")
        kept = [line for line in lines if _step_of(line) <= step]
        with replacing(self.file) as partial:
            partial.write_text("".join(f"{line}\n" for line in kept), "utf-8")

    def write(self, entry: dict[str, Any]) -> None:
        """entry: with `step`; numbers that are not finite, which JSON has not, become null. Raises OSError where the
        disk is full; then no half of a line is left."""
        entry = {name: None if _no_number(value) else value for name, value in entry.items()}
        whole = self.file.stat().st_size if self.file.exists() else 0
        try:
            with self.file.open("a", encoding="utf-8") as log:
                log.write(json.dumps(entry, allow_nan=False) + "\n")
        except OSError:
            os.truncate(self.file, whole)
            raise
        if self.board is not None:
            for name, value in entry.items():
                if name != "step" and isinstance(value, (int, float)):
                    self.board.add_scalar(name, value, entry["step"])

    def close(self) -> None:
        if self.board is not None:
            self.board.close()

    def draw(self, scene: Scene, step: int) -> None:
        """Raises MTAnimateError where the picture cannot be written."""
        few = scene.first(4)
        picture = draw_scene(few.source, few.driving, few.source_motion, few.driving_motion, few.dense, few.prediction)
        write_image(self.folder / "pictures" / f"{step:07d}.png", picture)
        if self.board is not None:
            self.board.add_image("scene", picture, step, dataformats="HWC")


def _no_number(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _step_of(line: str) -> float:
    """A line that was cut off by a crash, or is no line of ours, is after everything."""
    try:
        step = parse_json(line)["step"]
    except (KeyError, TypeError, ValueError):
        return math.inf
    return step if type(step) is int else math.inf


def _tensorboard(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError("training.tensorboard=true needs TensorBoard: pip install 'mtanimate[tensorboard]'") from None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)


FRAMES = 8  # of each clip, evenly spaced


@dataclass(frozen=True)
class Score:
    """Mean |difference| of pixels in [0, 1]: of the prediction, and of repeating the first frame."""

    error: float
    repeating: float


class Validation:
    """Reconstruction of a few clips, fixed at the start: the first frame is the source, others drive it."""

    def __init__(self, clips: list[Clip], count: int, resolution: int) -> None:
        """The first clip of each identity, then the second..., until there are `count`."""
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
        modes = [(module, module.training) for module in animator.modules()]  # frozen parts do not train
        animator.eval()
        errors, repeating = [], []
        for frames in self.clips:
            pictures = frames.to(animator.device) / 255
            source, driving = pictures[:1], pictures[1:]
            motion = animator.estimate_motion(driving)
            background = animator.predict_background(source, driving)
            prediction = animator.drive(animator.encode_source(source), motion, background)
            errors.append((prediction - driving).abs().mean().item())
            repeating.append((source - driving).abs().mean().item())
        for module, training in modes:
            module.training = training
        return Score(sum(errors) / len(errors), sum(repeating) / len(repeating))


def averaged(animator: Animator, ema: nn.Module | None) -> Animator:
    """The network that checkpoints hold: the running mean of the weights, where there is one."""
    if ema is None:
        return animator
    assert isinstance(ema.module, Animator)
    return ema.module


def _some_frames(clip: Clip, resolution: int) -> Tensor:
    """The first frame and up to `FRAMES` later ones: uint8 (N, 3, R, R)."""
    reader = clip.open()
    last = reader.frame_count - 1
    later = sorted({round(last * index / FRAMES) for index in range(1, FRAMES + 1)} - {0})
    return square_frames(reader.frames([0, *later]), resolution)
