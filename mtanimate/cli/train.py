"""`mtanimate train`."""

import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
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
    console,
    print_json,
    progress_bar,
    put,
    remark,
    reports_errors,
    tell,
)

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
    from mtanimate.training.distribution import run_workers
    from mtanimate.training.train import plan, train

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
            log=display.log,
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


SMOOTH = 0.95  # of the losses that are shown


@dataclass(frozen=True)
class Display:
    """What `train` reports to."""

    progress: Callable[[int, int], None]
    report: Callable[[Any], None]
    log: Callable[[str], None]


@contextmanager
def training_display(quiet: bool) -> Iterator[Display]:
    """A live table on a terminal, else a plain line every ten seconds; nothing where it is quiet."""
    if quiet or not sys.stderr.isatty():
        with progress_bar("reading clips", "clips", quiet) as progress:
            yield Display(progress, (lambda at: None) if quiet else _plain(), remark(quiet))
    else:
        with _live() as display:
            yield display


class Smoothed:
    """Running means of the losses, and the latest of all else, as rows of text."""

    def __init__(self) -> None:
        self.losses: dict[str, float] = {}

    def rows(self, at: Any) -> list[tuple[str, str]]:
        """at: a `mtanimate.training.run.Progress`."""
        for name, value in at.losses.items():
            if math.isfinite(value):  # a step that was skipped has terms that are not
                self.losses[name] = SMOOTH * self.losses.get(name, value) + (1 - SMOOTH) * value
        shown = {name: self.losses[name] for name in at.losses if name in self.losses}
        rows = [("loss", f"{sum(shown.values()):.4f}"), *((name, f"{value:.4f}") for name, value in shown.items())]
        rows.append(("speed", f"{at.samples_per_second:.1f} samples/s"))
        rows.append(("waiting for data", f"{at.data_wait:.0%}"))
        rows.append(("time left", str(timedelta(seconds=round(at.seconds_left)))))
        if at.score is not None:
            ratio = at.score.error / max(at.score.first_frame, 1e-9)
            rows.append(("validation L1", f"{at.score.error:.4f} ({ratio:.2f} of the first-frame baseline)"))
        return rows


def _plain() -> Callable[[Any], None]:
    smoothed, last = Smoothed(), time.monotonic()

    def report(at: Any) -> None:
        nonlocal last
        rows = smoothed.rows(at)
        now = time.monotonic()
        if now - last < 10 and at.step < at.steps:
            return
        last = now
        line = ", ".join(f"{name} {value}" for name, value in rows)
        tell(f"step {at.step} of {at.steps}: {line}")

    return report


@contextmanager
def _live() -> Iterator[Display]:
    from rich.console import Group
    from rich.live import Live
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.table import Table

    screen = console(stderr=True)
    bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=screen)
    task = bar.add_task("reading clips", total=None)
    smoothed = Smoothed()

    with Live(bar, console=screen, refresh_per_second=4) as live:

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        def report(at: Any) -> None:
            bar.update(task, description="step", completed=at.step, total=at.steps)
            table = Table.grid(padding=(0, 2))
            for name, value in smoothed.rows(at):
                table.add_row(name, value)
            live.update(Group(bar, table))

        def log(line: str) -> None:
            screen.print(line, highlight=False)

        yield Display(progress, report, log)
