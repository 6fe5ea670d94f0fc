"""What a run writes for people: log.jsonl, TensorBoard, pictures."""

import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from mtanimate.config import LossConfig
from mtanimate.drawing.scenes import draw_scene
from mtanimate.errors import InputError
from mtanimate.files import replacing
from mtanimate.reading import parse_json, read_bytes
from mtanimate.training.meter import Meter
from mtanimate.training.objective import Scene
from mtanimate.training.step import Step
from mtanimate.training.validation import Score
from mtanimate.video import write_image


class Log:
    """The lines of log.jsonl: means over the steps since the last. weights: of the terms."""

    def __init__(self, weights: LossConfig) -> None:
        self.weights = weights
        self.steps: list[Step] = []
        self.score: Score | None = None

    def add(self, step: Step) -> None:
        self.steps.append(replace(step, scene=None))  # pictures take memory

    def entry(self, number: int, pairs: int, meter: Meter, with_score: bool) -> dict[str, Any]:
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
        entry |= {"samples": pairs, "samples_per_second": meter.pairs_per_second, "data_wait": meter.data_wait}
        if with_score and self.score is not None:
            entry |= {"validation_error": self.score.error, "validation_repeating": self.score.repeating}
        self.steps = []
        return entry


class Journal:
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
