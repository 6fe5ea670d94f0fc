"""`mtanimate train`."""

import os
import sys
from pathlib import Path
from typing import Any

import typer

from mtanimate.cli.terminal import (
    DEBUG,
    DEVICE,
    JSON,
    QUIET,
    Estimator,
    Precision,
    print_json,
    put,
    reports_errors,
    tell,
)
from mtanimate.cli.training_display import training_display

EXAMPLE = "Example: mtanimate train --dataset videos/ --out runs/mine"


@reports_errors
def command(
    dataset: str = typer.Option(
        ..., help="A folder of videos, a preset (vox, taichi, ted, mgif, small), or a YAML file of settings."
    ),
    data: Path | None = typer.Option(
        None, help="Where the videos are, for a preset or a YAML file.", show_default="data/NAME"
    ),
    preset: str | None = typer.Option(None, help="The settings to start from.", show_default="small"),
    out: Path | None = typer.Option(None, help="The run's folder.", show_default="runs/PRESET-DATE"),
    estimator: Estimator | None = typer.Option(None, help="What reads the motion.", show_default="the preset's"),
    steps: int | None = typer.Option(None, min=1, help="Optimiser steps in all."),
    epochs: int | None = typer.Option(None, min=1, help="Passes over the data, in place of --steps."),
    batch_size: int | None = typer.Option(None, min=1, help="Pairs of frames a step, of all GPUs together."),
    resolution: int | None = typer.Option(None, min=64, help="Side of the training pictures, in pixels."),
    resume: str = typer.Option("auto", help="auto: go on from the run's last state; none; or a state's file."),
    init: str | None = typer.Option(None, help="Start from the weights of this checkpoint, a file or a name."),
    backbone_weights: Path | None = typer.Option(None, help="ImageNet weights of the HRNet backbone."),
    freeze: list[str] = typer.Option([], help="A part that is not trained, e.g. generator. Repeatable."),
    gpus: int | None = typer.Option(None, min=1, help="GPUs of this machine to train on."),
    workers: int | None = typer.Option(None, min=0, help="Processes that decode, for each GPU.", show_default="auto"),
    precision: Precision | None = typer.Option(None, help="What to compute in.", show_default="auto"),
    compile: bool = typer.Option(False, "--compile", help="torch.compile the network: minutes once, faster steps."),
    checkpoint_every: int | None = typer.Option(None, min=1, help="Steps between two checkpoints."),
    seed: int | None = typer.Option(None, min=0, help="Of weights, order and augmentation."),
    settings: list[str] = typer.Option([], "--set", help="Any setting, e.g. training.learning_rate=1e-4. Repeatable."),
    device: str = DEVICE,
    json: bool = JSON,
    quiet: bool = QUIET,
    debug: bool = DEBUG,
) -> None:
    """Train a Motion Transformer or a baseline on your videos. The same command goes on where it was stopped."""
    from mtanimate.devices import check_gpus
    from mtanimate.training.train import plan, train
    from mtanimate.training.workers import run_workers

    options: dict[str, Any] = {
        "training.steps": steps,
        "training.epochs": epochs,
        "training.batch_size": batch_size,
        "model.resolution": resolution,
        "training.checkpoint_every": checkpoint_every,
        "training.seed": seed,
        "training.precision": precision and precision.value,
        "training.compile": compile or None,
        "training.freeze": freeze or None,
        "training.backbone_file": backbone_weights and str(backbone_weights),
    }
    given = [(key, value) for key, value in options.items() if value is not None]
    if epochs is not None and steps is None:
        given.append(("training.steps", 0))
    chosen: dict[str, Any] = {
        "data": data,
        "preset": preset,
        "out": out,
        "estimator": estimator and estimator.value,
        "settings": [*given, *settings],
        "resume": resume,
        "init": init,
    }
    if gpus is not None and "RANK" not in os.environ:
        plan(dataset, **chosen)  # what is wrong is said once, not by every worker
        check_gpus(gpus)
        if gpus > 1:
            raise SystemExit(run_workers(gpus, sys.argv[1:]))
        device = "cuda" if device == "auto" else device
    first = os.environ.get("RANK", "0") == "0"
    with training_display(quiet or not first) as display:
        result = train(
            dataset,
            device=device,
            workers=workers,
            progress=display.progress,
            report=display.report,
            say=display.say,
            **chosen,
        )
    if json and first:
        print_json(result)
    elif not quiet and first:
        best = result["best_validation_error"]
        score = f"; lowest validation L1 {best:.4f} (best.safetensors)" if best is not None else ""
        put(f"{result['checkpoint']}: {result['steps']} steps, {result['samples']} samples{score}")
        if result["skipped"]:
            tell(f"{len(result['skipped'])} clips could not be read and were skipped")
