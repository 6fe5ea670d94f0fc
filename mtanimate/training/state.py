"""What a run resumes from: weights, optimiser, running mean, random state, step."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn, optim

from mtanimate.errors import InputError, MTAnimateError


class RunState:
    """The things that change during a run, saved and loaded together.

    The file is torch's format, read with `weights_only=True`: tensors, numbers and containers only.
    """

    def __init__(
        self, model: nn.Module, ema: nn.Module | None, optimizer: optim.Optimizer, generator: torch.Generator
    ) -> None:
        self.model = model
        self.ema = ema
        self.optimizer = optimizer
        self.generator = generator
        self.step = 0
        self.samples = 0

    def save(self, path: Path) -> None:
        """Whole or not at all. Raises MTAnimateError where it cannot be written."""
        content = {
            "model": self.model.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "torch": torch.get_rng_state(),
            "step": self.step,
            "samples": self.samples,
        }
        partial = path.with_suffix(".partial")
        try:
            torch.save(content, partial)
            os.replace(partial, path)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            partial.unlink(missing_ok=True)
            raise MTAnimateError(f"cannot write the run's state '{path}': {error}") from error

    def load(self, path: Path) -> None:
        """Raises InputError where the file is broken or of another network."""
        try:
            content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            self.model.load_state_dict(content["model"])
            if self.ema is not None and content["ema"] is not None:
                self.ema.load_state_dict(content["ema"])
            self.optimizer.load_state_dict(content["optimizer"])
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"cannot resume from '{path}' ({reason}): it is damaged or of another network; choose another --out"
            ) from error
        self.generator.set_state(content["generator"])
        torch.set_rng_state(content["torch"])
        self.step, self.samples = content["step"], content["samples"]
