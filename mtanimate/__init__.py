"""Animate a still picture with the motion of a driving video, by the Motion Transformer (ECCV 2022).

import mtanimate
mtanimate.animate(source="face.jpg", driving="talk.mp4", out="result.mp4")

animator = mtanimate.load("default", device="auto")  # an nn.Module that carries its configuration
encoded = animator.encode_source(picture)            # once; picture: (1, 3, R, R) in [0, 1]
frames = animator.drive(encoded, animator.estimate_motion(driving))  # often

mtanimate.train("videos/", out="runs/mine", init="default")
mtanimate.evaluate("default", "videos/")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtanimate.animation.animate import Result
    from mtanimate.models.animator import Animator

__version__ = "0.1.0"
__all__ = ["animate", "evaluate", "load", "train"]


def animate(source: Any, driving: Any, out: Any, **options: Any) -> Result:
    """See `mtanimate.animation.animate.animate`, which has all options."""
    from mtanimate.animation.animate import animate as run  # torch is imported when it is needed

    return run(source, driving, out, **options)


def load(checkpoint: str = "default", device: str = "auto") -> Animator:
    """The network of a named checkpoint or a file, in evaluation mode. Raises InputError where there is none."""
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
