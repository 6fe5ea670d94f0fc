"""Animate a still picture with the motion of a driving video, by the Motion Transformer (ECCV 2022).

import mtanimate
mtanimate.animate(source="face.jpg", driving="talk.mp4", out="result.mp4")

predictor = mtanimate.Predictor.load("default")
predictor.set_source(picture)        # once; uint8 RGB (H, W, 3)
frames = predictor.predict(driving)  # often; uint8 RGB (B, H, W, 3) -> (B, R, R, 3)

animator = mtanimate.load("default")  # the bare network: an nn.Module that carries its configuration

mtanimate.train("videos/", out="runs/mine", init="default")
mtanimate.evaluate("default", "videos/")

docs/api.md describes every argument.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mtanimate.errors import InputError, Interrupted, MTAnimateError, OutOfMemory

if TYPE_CHECKING:
    from mtanimate.animation.animate import Result, animate
    from mtanimate.evaluation.evaluate import evaluate
    from mtanimate.inference.predictor import Predictor
    from mtanimate.models.animator import Animator
    from mtanimate.training.train import train

__version__ = "1.0.0"
__all__ = [
    "InputError",
    "Interrupted",
    "MTAnimateError",
    "OutOfMemory",
    "Predictor",
    "Result",
    "animate",
    "evaluate",
    "load",
    "train",
]

# Imported at first use: they import torch, and `mtanimate --help` should not wait for it.
_WHERE = {
    "Predictor": "mtanimate.inference.predictor",
    "Result": "mtanimate.animation.animate",
    "animate": "mtanimate.animation.animate",
    "evaluate": "mtanimate.evaluation.evaluate",
    "train": "mtanimate.training.train",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'mtanimate' has no attribute '{name}'")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def load(checkpoint: str = "default", device: str = "auto") -> Animator:
    """The network of a checkpoint, in evaluation mode.

    Args:
        checkpoint: A name from `mtanimate checkpoints list`, or a `.safetensors` file.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.

    Raises:
        InputError: There is no such checkpoint or device, or the file is damaged.
    """
    from mtanimate.checkpoints.file import read_checkpoint
    from mtanimate.checkpoints.registry import resolve
    from mtanimate.devices import choose_device

    return read_checkpoint(resolve(checkpoint), choose_device(device)).animator
