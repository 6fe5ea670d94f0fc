"""`mtanimate train`."""

from enum import Enum
from pathlib import Path

import typer

from mtanimate.cli.terminal import (
    DEBUG,
    DEVICE,
    JSON,
    QUIET,
    print_json,
    progress_bar,
    remark,
    reports_errors,
)

EXAMPLE = "Example: mtanimate train --dataset videos/ --preset small --out runs/mine"


class Resume(str, Enum):
    auto = "auto"
    none = "none"


@reports_errors
def command(
    dataset: Path = typer.Option(..., help="A folder of videos, perhaps with train/ and test/ in it."),
    preset: str = typer.Option("small", help="The configuration to start from: small or vox."),
    out: Path | None = typer.Option(None, help="The run's folder.", show_default="runs/PRESET-DATE"),
    steps: int | None = typer.Option(None, min=1, help="Optimiser steps in all."),
    batch_size: int | None = typer.Option(None, min=1, help="Pairs of frames a step."),
    resolution: int | None = typer.Option(None, min=64, help="Side of the training pictures, in pixels."),
    resume: Resume = typer.Option(Resume.auto, help="Go on from the run's last state, where it has one."),
    init: Path | None = typer.Option(None, help="Start from the weights of this checkpoint."),
    settings: list[str] = typer.Option([], "--set", help="Any setting, e.g. training.learning_rate=1e-4."),
    device: str = DEVICE,
    json: bool = JSON,
    quiet: bool = QUIET,
    debug: bool = DEBUG,
) -> None:
    """Train a Motion Transformer on a folder of videos."""
    from mtanimate.training.train import train

    options = {"training.steps": steps, "training.batch_size": batch_size, "model.resolution": resolution}
    given = [f"{key}={value}" for key, value in options.items() if value is not None]
    with progress_bar("training", "steps", quiet) as progress:
        result = train(
            dataset,
            preset=preset,
            out=out,
            settings=[*given, *settings],
            resume=resume.value == "auto",
            init=init,
            device=device,
            progress=progress,
            say=remark(quiet),
        )
    if json:
        print_json(result)
    elif not quiet:
        print(f"{result['checkpoint']}: {result['steps']} steps, {result['samples']} samples")
