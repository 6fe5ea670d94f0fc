"""What a run writes for people: log.jsonl, TensorBoard, pictures."""

import json
import os
from pathlib import Path
from typing import Any

from mtanimate.drawing.scenes import draw_scene
from mtanimate.errors import InputError
from mtanimate.files import replacing
from mtanimate.training.objective import Scene
from mtanimate.video import write_image


class Journal:
    """An object a line in `log.jsonl`; the same numbers to TensorBoard where asked for; `pictures/STEP.png`.

    Raises InputError where TensorBoard is asked for and not installed.
    """

    def __init__(self, folder: Path, tensorboard: bool) -> None:
        self.folder = folder
        self.file = folder / "log.jsonl"
        self.board = _tensorboard(folder) if tensorboard else None

    def resume(self, step: int) -> None:
        """Forget lines after `step`: a run that was killed goes on from a state before them."""
        if not self.file.exists():
            return
        kept = [line for line in self.file.read_text("utf-8").splitlines() if _step_of(line) <= step]
        with replacing(self.file) as partial:
            partial.write_text("".join(f"{line}\n" for line in kept), "utf-8")

    def write(self, entry: dict[str, Any]) -> None:
        """entry: with `step`. Raises OSError where the disk is full; then no half of a line is left."""
        whole = self.file.stat().st_size if self.file.exists() else 0
        try:
            with self.file.open("a", encoding="utf-8") as log:
                log.write(json.dumps(entry) + "\n")
        except OSError:
            os.truncate(self.file, whole)
            raise
        if self.board is not None:
            for name, value in entry.items():
                if name != "step" and isinstance(value, (int, float)):
                    self.board.add_scalar(name, value, entry["step"])

    def draw(self, scene: Scene, step: int) -> None:
        """Raises MTAnimateError where the picture cannot be written."""
        few = scene.first(4)
        picture = draw_scene(few.source, few.driving, few.source_motion, few.driving_motion, few.dense, few.prediction)
        write_image(self.folder / "pictures" / f"{step:07d}.png", picture)
        if self.board is not None:
            self.board.add_image("scene", picture, step, dataformats="HWC")


def _step_of(line: str) -> float:
    """A line that was cut off by a crash is after everything."""
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return float("inf")


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError("training.tensorboard=true needs TensorBoard: pip install 'mtanimate[tensorboard]'") from None
    return SummaryWriter(str(folder / "tensorboard"))
