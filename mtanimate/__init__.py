"""Animate a still picture with the motion of a driving video, by the Motion Transformer (ECCV 2022).

import mtanimate
mtanimate.animate(source="face.jpg", driving="talk.mp4", out="result.mp4")

predictor = mtanimate.Predictor.load("default")
predictor.set_source(picture)        # once; uint8 RGB (H, W, 3)
frames = predictor.predict(driving)  # often; uint8 RGB (B, H, W, 3) -> (B, R, R, 3)

animator = mtanimate.load("default")  # the bare network: an nn.Module that carries its configuration

mtanimate.train("videos/", out="runs/mine", init="default")
mtanimate.evaluate("default", "videos/")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtanimate.animation.animate import Result
    from mtanimate.inference.predictor import Predictor
    from mtanimate.models.animator import Animator

__version__ = "0.1.0"
__all__ = ["Predictor", "animate", "evaluate", "load", "train"]


def __getattr__(name: str) -> Any:
    if name == "Predictor":
        from mtanimate.inference.predictor import Predictor  # torch is imported when it is needed

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def animate(source: Any, driving: Any, out: Any, **options: Any) -> Result:
    """See `mtanimate.animation.animate.animate`, which has all options."""
    from mtanimate.animation.animate import animate as run

    return run(source, driving, out, **options)


def load(checkpoint: str = "default", device: str = "auto") -> Animator:
    """The network of a named checkpoint or of a file, in evaluation mode.

    Args:
        checkpoint: A name from `mtanimate checkpoints list`, or a .safetensors file.
        device: auto, cpu, cuda, cuda:N or mps.

    Raises:
        InputError: There is no such checkpoint, or it is damaged.
    """
    from mtanimate.checkpoints.file import read_checkpoint
    from mtanimate.checkpoints.registry import resolve
    from mtanimate.devices import choose_device

    return read_checkpoint(resolve(checkpoint), choose_device(device)).animator


def train(dataset: Any, **options: Any) -> dict[str, Any]:
    """See `mtanimate.training.train.train` and `plan` beside it, which have all options."""
    from mtanimate.training.train import train as run

    return run(dataset, **options)


def evaluate(checkpoint: str, dataset: Any, **options: Any) -> dict[str, Any]:
    """See `mtanimate.evaluation.evaluate.evaluate`, which has all options."""
    from mtanimate.evaluation.evaluate import evaluate as run

    return run(checkpoint, dataset, **options)
