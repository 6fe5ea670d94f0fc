"""What a run leaves to go on from: its state, its latest checkpoints and the best one."""

import re
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from mtanimate.checkpoints.file import write_checkpoint
from mtanimate.config import Config
from mtanimate.data.clips import Split
from mtanimate.errors import MTAnimateError
from mtanimate.training.state import RunState
from mtanimate.training.validation import Score, Validation, averaged

_NAME = re.compile(r"step-[0-9]{7,}\.safetensors")


class Keeper:
    """`state/last.pt`, `checkpoints/step-*.safetensors` (the last few) and `checkpoints/best.safetensors`.

    Each appears whole or not at all. The best has the lowest error on held-out clips; where there are none, on
    the first clips that are trained on, and says so.
    """

    def __init__(self, folder: Path, config: Config, split: Split, state: RunState, say: Callable[[str], None]) -> None:
        self.checkpoints, self.state_file = folder / "checkpoints", folder / "state" / "last.pt"
        self.config, self.split, self.state, self.say = config, split, state, say
        self.validation: Validation | None = None
        self.saved = time.monotonic()  # when the state was, or the run began

    def prepare(self) -> list[str]:
        """Decode the clips to validate on; returns which could not be read, and why."""
        count = self.config.training.validation_clips
        validation = Validation(self.split.test or self.split.train, count, self.config.model.resolution)
        for line in validation.skipped:
            self.say(f"skipped: {line}")
        if validation.clips:
            self.validation = validation
            whose = "held-out people" if self.split.test else "the training clips themselves: no people are held out"
            self.say(f"validation on {len(validation.clips)} clips of {whose}")
        return validation.skipped

    @property
    def path(self) -> Path:
        """The checkpoint of the step that the run is at."""
        return self.checkpoints / f"step-{self.state.step:07d}.safetensors"

    def score(self) -> Score | None:
        """Of the weights that a checkpoint holds now; None without clips to validate on."""
        return self.validation(averaged(self.state.model, self.state.ema)) if self.validation else None

    def keep(self, score: Score | None) -> None:
        """Write state and checkpoints. Raises MTAnimateError where that fails; what is older stays."""
        animator = averaged(self.state.model, self.state.ema)
        about: dict[str, Any] = {
            "steps": self.state.step,
            "samples": self.state.pairs,
            "identities": len({clip.identity for clip in self.split.train}),
            "clips": len(self.split.train),
            "date": date.today().isoformat(),
        }
        if score is not None:
            about |= {"validation_error": f"{score.error:.5f}", "validation_repeating": f"{score.repeating:.5f}"}
        write_checkpoint(self.path, animator, self.config, about)
        if score is not None and score.error <= self.state.best:
            write_checkpoint(self.checkpoints / "best.safetensors", animator, self.config, about)
            self.state.best = score.error
        self._save()
        # Later ones, of a run that goes on from an older state, are replaced as it gets there.
        files = (file for file in self.checkpoints.iterdir() if _NAME.fullmatch(file.name))
        kept = sorted(file for file in files if file <= self.path)
        for old in kept[: -self.config.training.keep]:
            old.unlink(missing_ok=True)

    def try_to_keep(self, score: Score | None) -> None:
        """As `keep`, but where the disk is full the run goes on: what was kept before is whole."""
        try:
            self.keep(score)
        except MTAnimateError as error:
            again = self.state.step + self.config.training.checkpoint_every
            self.say(f"not saved at step {self.state.step}: {error} Training goes on; the next try is at step {again}.")

    def save_in_between(self) -> None:
        """Write the state alone where the last is `training.save_every_seconds` old. A full disk ends no run."""
        seconds = self.config.training.save_every_seconds
        if not seconds or time.monotonic() - self.saved < seconds:
            return
        try:
            self._save()
        except MTAnimateError as error:
            self.saved = time.monotonic()
            self.say(
                f"not saved at step {self.state.step}: {error} Training goes on; the next try is in {seconds:g} s."
            )

    def _save(self) -> None:
        self.state.save(self.state_file)
        self.saved = time.monotonic()
