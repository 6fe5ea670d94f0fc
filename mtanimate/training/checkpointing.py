"""What a run begins with, resumes from and leaves: weights, the state of a run, and checkpoints."""

import re
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import nn, optim

from mtanimate.checkpoints.file import mismatches, read_checkpoint, write_checkpoint
from mtanimate.config import Config, differences, from_mapping, to_mapping
from mtanimate.data.clips import Split
from mtanimate.errors import InputError, MTAnimateError, OutOfMemory, is_of_memory
from mtanimate.files import replacing
from mtanimate.models.animator import Animator, outline_network
from mtanimate.models.hrnet import HRNet, load_imagenet_weights
from mtanimate.tensors import load, read_weights
from mtanimate.training.metrics import Score, Validation

# Settings that do not change what is learned: they may differ when a run goes on.
FREE = {
    "training.steps",
    "training.epochs",
    "training.log_every",
    "training.checkpoint_every",
    "training.save_every_seconds",
    "training.picture_every",
    "training.keep",
    "training.validation_clips",
    "training.tensorboard",
    "training.compile",
    "data.cache",
    "data.cache_gib",
}

_CHECKPOINT = re.compile(r"step-[0-9]{7,}\.safetensors")


class Checkpointer:
    """Writes `state/last.pt`, the last few `checkpoints/step-*.safetensors`, and `checkpoints/best.safetensors`.

    Each is written completely or not at all. The best checkpoint has the lowest error on held-out clips; where none are
    held out, on some of the clips that are trained on.

    Attributes:
        validation: None before `prepare`, and where there are no clips to validate on.
    """

    def __init__(
        self, folder: Path, config: Config, split: Split, state: "RunState", log: Callable[[str], None]
    ) -> None:
        self.checkpoints, self.state_file = folder / "checkpoints", folder / "state" / "last.pt"
        self.config, self.split, self.state, self.log = config, split, state, log
        self.validation: Validation | None = None
        self._saved = time.monotonic()  # when the state was saved, or the run began

    def prepare(self) -> list[str]:
        """Decode the clips to validate on. Returns a line for each that could not be read."""
        count = self.config.training.validation_clips
        validation = Validation(self.split.test or self.split.train, count, self.config.model.resolution)
        for line in validation.skipped:
            self.log(f"skipped: {line}")
        if validation.clips:
            self.validation = validation
            whose = "held-out people" if self.split.test else "the training clips themselves: no people are held out"
            self.log(f"validation on {len(validation.clips)} clips of {whose}")
        return validation.skipped

    @property
    def path(self) -> Path:
        """The checkpoint of the run's current step."""
        return self.checkpoints / f"step-{self.state.step:07d}.safetensors"

    def score(self) -> Score | None:
        """Validate the weights that a checkpoint would hold now. None without clips to validate on."""
        return self.validation(self.state.averaged) if self.validation else None

    def keep(self, score: Score | None) -> None:
        """Write the state and the checkpoints, and remove old ones.

        Args:
            score: The validation of these weights, if any.

        Raises:
            MTAnimateError: A file could not be written. Older files are unchanged.
        """
        animator = self.state.averaged
        about: dict[str, Any] = {
            "steps": self.state.step,
            "samples": self.state.pairs,
            "identities": len({clip.identity for clip in self.split.train}),
            "clips": len(self.split.train),
            "date": date.today().isoformat(),
        }
        if score is not None:
            about |= {"validation_error": f"{score.error:.5f}", "validation_repeating": f"{score.first_frame:.5f}"}
        # Checkpoints are passed on: they do not name the folders of this machine.
        config = replace(self.config, data=replace(self.config.data, cache="", stills=""))
        write_checkpoint(self.path, animator, config, about)
        if score is not None and score.error <= self.state.best:
            write_checkpoint(self.checkpoints / "best.safetensors", animator, config, about)
            self.state.best = score.error
        self._save()
        # Later ones, of a run that went on from an older state, stay until this run replaces them.
        files = (file for file in self.checkpoints.iterdir() if _CHECKPOINT.fullmatch(file.name))
        kept = sorted(file for file in files if file <= self.path)
        for old in kept[: -self.config.training.keep]:
            old.unlink(missing_ok=True)

    def try_to_keep(self, score: Score | None) -> None:
        """As `keep`, but a full disk is logged only: older files are unchanged, and the run goes on."""
        try:
            self.keep(score)
        except MTAnimateError as error:
            again = self.state.step + self.config.training.checkpoint_every
            self.log(f"not saved at step {self.state.step}: {error} Training goes on; the next try is at step {again}.")

    def save_in_between(self) -> None:
        """Write the state alone, `training.save_every_seconds` after the last time. A full disk is logged only."""
        seconds = self.config.training.save_every_seconds
        if not seconds or time.monotonic() - self._saved < seconds:
            return
        try:
            self._save()
        except MTAnimateError as error:
            self._saved = time.monotonic()
            self.log(
                f"not saved at step {self.state.step}: {error} Training goes on; the next try is in {seconds:g} s."
            )

    def _save(self) -> None:
        self.state.save(self.state_file)
        self._saved = time.monotonic()


class RunState:
    """Everything that changes during a run, saved and loaded together.

    The file has torch's format and is read with `weights_only=True`: tensors, numbers, text and containers only.

    Attributes:
        step: The number of optimiser steps taken.
        pairs: The number of pairs of frames drawn.
        best: The lowest validation error so far.
        saved_with: The settings of the run that saved what was loaded.
    """

    def __init__(
        self,
        config: Config,
        clips: str,
        model: Animator,
        ema: nn.Module | None,
        optimizer: optim.Optimizer,
        scaler: torch.amp.GradScaler,
    ) -> None:
        """The state of a new run.

        Args:
            config: The settings.
            clips: What tells the run's data from other data.
            model: The network that is trained.
            ema: The running mean of its weights, if any.
            optimizer: The optimiser.
            scaler: The gradient scaler.
        """
        self.config = self.saved_with = config
        self.clips = clips
        self.model = model
        self.ema = ema
        self.optimizer = optimizer
        self.scaler = scaler
        self.step = 0
        self.pairs = 0
        self.best = float("inf")

    @property
    def averaged(self) -> Animator:
        """The network that checkpoints hold: the running mean of the weights, where there is one."""
        if self.ema is None:
            return self.model
        assert isinstance(self.ema.module, Animator)
        return self.ema.module

    def save(self, path: Path) -> None:
        """Write the state, completely or not at all. Raises MTAnimateError where it cannot be written."""
        content = {
            "config": to_mapping(self.config),
            "clips": self.clips,
            "model": self.model.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "step": self.step,
            "pairs": self.pairs,
            "best": self.best,
        }
        try:
            with replacing(path) as partial:
                torch.save(content, partial)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
            raise MTAnimateError(f"cannot write the run's state '{path}' ({reason}): is the disk full?") from error

    def load(self, path: Path, *, changed: bool) -> list[str]:
        """Go on from a saved state.

        Args:
            path: The file.
            changed: Whether settings and data may differ; the network may not.

        Returns:
            A line for each difference, "key: there -> here".

        Raises:
            InputError: Something differs that may not, or the file is damaged.
        """
        content = _read(path)
        saved_with = from_mapping(Config, content["config"])
        found = differences(saved_with, self.config)
        lines = [f"{key}: {there} -> {here}" for key, (there, here) in found.items() if key not in FREE]
        if content["clips"] != self.clips:
            lines.append(f"clips: {content['clips']} -> {self.clips}")
        network = [line for line in lines if line.startswith("model.")]
        if network:
            raise InputError(f"'{path}' is of another network ({'; '.join(network)}): choose another --out")
        if lines and not changed:
            raise InputError(
                f"'{path}' is of a run with other settings ({'; '.join(lines)}): "
                f"go on with the new ones by --resume '{path}', or choose another --out"
            )
        self._take(content, path)
        self.saved_with = saved_with
        return lines

    def _take(self, content: dict[str, Any], path: Path) -> None:
        fused = [group.get("fused") for group in self.optimizer.param_groups]
        try:
            self.model.load_state_dict(content["model"])
            if self.ema is not None and content["ema"] is not None:  # without one, the running mean begins now
                self.ema.load_state_dict(content["ema"])
            self.optimizer.load_state_dict(content["optimizer"])
            self.scaler.load_state_dict(content["scaler"])
            torch.set_rng_state(content["torch"])
            if content["cuda"] and len(content["cuda"]) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all(content["cuda"])
        except (ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(f"cannot resume from '{path}' ({reason}): choose another --out") from error
        for group, here in zip(self.optimizer.param_groups, fused, strict=True):
            group["fused"] = here
        self.step, self.pairs, self.best = content["step"], content["pairs"], content["best"]


def is_state(path: Path) -> bool:
    """Whether a file is the state of a run."""
    try:
        _read(path)
    except InputError:
        return False
    return True


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = load(path, "choose another --out")
        missing = {"config", "clips", "model", "optimizer", "step", "pairs", "best", "cuda"} - content.keys()
    except InputError:
        raise
    except Exception as error:  # a damaged file makes torch raise almost anything
        if is_of_memory(error):
            raise OutOfMemory(f"'{path}'") from error
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"cannot resume from '{path}' ({reason}): it is damaged; choose another --out") from error
    if missing:
        raise InputError(f"'{path}' is no state of a run: give RUN/state/last.pt")
    numbers = [isinstance(content[name], int) for name in ("step", "pairs")]
    if not all(numbers) or not isinstance(content["best"], (int, float)):
        raise InputError(f"'{path}' is damaged: its step, pairs and best are not all numbers; choose another --out")
    return content


def make_animator(config: Config, init: Path | None) -> Animator:
    """The network that a run begins with.

    Args:
        config: The run's settings.
        init: A checkpoint whose weights it begins with; the settings may differ where weights do not show it.

    Raises:
        InputError: The network is too large, or the weights do not fit it.
    """
    outline_network(config.model)  # refuses too large a network before its weights are made
    animator = Animator(config.model)
    if config.training.backbone_file:
        file = Path(config.training.backbone_file).expanduser()
        weights = read_weights(file, "ImageNet weights of HRNet", "check --backbone-weights")
        backbone = animator.motion_estimator.backbone
        assert isinstance(backbone, HRNet)  # the configuration refuses the file for others
        load_imagenet_weights(backbone, weights)
    if init is not None:
        weights = read_checkpoint(init).animator.state_dict()
        if config.model.dense_motion.residual:  # zero at first, where the checkpoint has no residual
            fresh = animator.dense_motion.state_dict(prefix="dense_motion.")
            weights = {name: value for name, value in fresh.items() if ".residual." in name} | weights
        mismatched = mismatches(animator.state_dict(), weights)
        if mismatched:
            raise InputError(f"--init {init} has another network: {mismatched}")
        animator.load_state_dict(weights)
    return animator
