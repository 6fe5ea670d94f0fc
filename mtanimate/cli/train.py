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
from typing import TYPE_CHECKING, Any

import typer

from mtanimate.cli.options import (
    DEBUG,
    DEVICE,
    FILES,
    HARDWARE,
    JSON,
    QUIET,
    Estimator,
    Precision,
    checkpoints_here,
    one_of,
    presets,
)
from mtanimate.cli.terminal import console, print_json, progress_bar, put, remark, reports_errors, tell

if TYPE_CHECKING:
    from mtanimate.config import Config

EXAMPLE = "Example: mtanimate train --dataset videos/ --out runs/mine"
SETTINGS = "Settings"
PARTS = ("backbone", "motion_estimator", "dense_motion", "generator", "background_predictor")


@reports_errors
def command(
    dataset: str = typer.Option(
        ...,
        metavar="FOLDER",
        help="A folder of videos; or a preset (vox, taichi, ted, mgif, small...), or a YAML file of settings.",
        autocompletion=presets,
        rich_help_panel=FILES,
    ),
    data: Path | None = typer.Option(
        None,
        metavar="FOLDER",
        help="Where the videos are, for a preset or a YAML file.",
        show_default="data/NAME",
        rich_help_panel=FILES,
    ),
    out: Path | None = typer.Option(
        None, metavar="FOLDER", help="The folder of the run.", show_default="runs/PRESET-DATE", rich_help_panel=FILES
    ),
    init: str | None = typer.Option(
        None,
        metavar="NAME",
        help="Start from the weights of this checkpoint: a name or a file.",
        autocompletion=checkpoints_here,
        rich_help_panel=FILES,
    ),
    backbone_weights: Path | None = typer.Option(
        None, metavar="FILE", help="ImageNet weights for the HRNet backbone.", rich_help_panel=FILES
    ),
    resume: str = typer.Option(
        "auto",
        metavar="FILE",
        help="auto: continue from the run's last state; none; or a file with a state.",
        autocompletion=one_of("auto", "none"),
        rich_help_panel=FILES,
    ),
    checkpoint_every: int | None = typer.Option(
        None, metavar="N", min=1, help="Write a checkpoint every N steps.", rich_help_panel=FILES
    ),
    preset: str | None = typer.Option(
        None,
        metavar="NAME",
        help="The settings to start from.",
        show_default="small",
        autocompletion=presets,
        rich_help_panel=SETTINGS,
    ),
    estimator: Estimator | None = typer.Option(
        None,
        metavar="NAME",
        help=f"What estimates the motion: {', '.join(each.value for each in Estimator)}.",
        show_default="the preset's",
        rich_help_panel=SETTINGS,
    ),
    resolution: int | None = typer.Option(
        None, metavar="N", min=64, help="Side of the training pictures, in pixels.", rich_help_panel=SETTINGS
    ),
    steps: int | None = typer.Option(
        None, metavar="N", min=1, help="Optimiser steps in all.", rich_help_panel=SETTINGS
    ),
    epochs: int | None = typer.Option(
        None, metavar="N", min=1, help="Instead of --steps: passes over the data.", rich_help_panel=SETTINGS
    ),
    batch_size: int | None = typer.Option(
        None, metavar="N", min=1, help="Pairs of frames in a step, of all GPUs together.", rich_help_panel=SETTINGS
    ),
    freeze: list[str] = typer.Option(
        [],
        metavar="PART",
        help="A part that is not trained, e.g. generator. May be repeated.",
        autocompletion=one_of(*PARTS),
        rich_help_panel=SETTINGS,
    ),
    seed: int | None = typer.Option(
        None, metavar="N", min=0, help="Seed of weights, order and augmentation.", rich_help_panel=SETTINGS
    ),
    settings: list[str] = typer.Option(
        [],
        "--set",
        metavar="KEY=VALUE",
        help="Any setting, e.g. training.learning_rate=1e-4. May be repeated.",
        rich_help_panel=SETTINGS,
    ),
    print_config: bool = typer.Option(
        False,
        "--print-config",
        help="Print all settings as YAML, ready for --dataset FILE.yaml, and train nothing.",
        rich_help_panel=SETTINGS,
    ),
    device: str = DEVICE,
    gpus: int | None = typer.Option(
        None, metavar="N", min=1, help="How many GPUs of this machine to train on.", rich_help_panel=HARDWARE
    ),
    precision: Precision | None = typer.Option(
        None,
        metavar="auto|fp32|bf16|fp16",
        help="Number format of the network.",
        show_default="auto",
        rich_help_panel=HARDWARE,
    ),
    compile: bool = typer.Option(
        False, "--compile", help="Use torch.compile: minutes at the start, faster steps.", rich_help_panel=HARDWARE
    ),
    workers: int | None = typer.Option(
        None,
        metavar="N",
        min=0,
        help="Processes that decode videos, for each GPU.",
        show_default="auto",
        rich_help_panel=HARDWARE,
    ),
    json: bool = JSON,
    quiet: bool = QUIET,
    debug: bool = DEBUG,
) -> None:
    """Train a Motion Transformer or a baseline on your videos.

    The same command continues where it was stopped.
    """
    from mtanimate.devices import check_gpus
    from mtanimate.training.distribution import run_workers
    from mtanimate.training.train import choose_config, plan, train

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
    if print_config:
        _print_config(choose_config(dataset, **{key: chosen[key] for key in CHOICES}).config, json)
        return
    if gpus is not None and "RANK" not in os.environ:
        plan(dataset, **chosen)  # a mistake is reported once, not by every worker
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


CHOICES = ("data", "preset", "estimator", "settings", "init")  # what decides on the settings


def _print_config(config: "Config", json: bool) -> None:
    """All settings on standard output: a YAML file for `--dataset`, or a JSON object."""
    import yaml

    from mtanimate.config import to_mapping

    values = to_mapping(config)
    if json:
        print_json(values)
        return
    for line in yaml.safe_dump(values, sort_keys=False).splitlines():
        put(line)


SMOOTH = 0.95  # of the running means of the losses


@dataclass(frozen=True)
class Display:
    """The functions that `train` reports to."""

    progress: Callable[[int, int], None]
    report: Callable[[Any], None]
    log: Callable[[str], None]


@contextmanager
def training_display(quiet: bool) -> Iterator[Display]:
    """A live table on a terminal, else a plain line every ten seconds; nothing if `quiet`."""
    if quiet or not sys.stderr.isatty():
        with progress_bar("reading clips", "clips", quiet) as progress:
            yield Display(progress, (lambda at: None) if quiet else _plain(), remark(quiet))
    else:
        with _live() as display:
            yield display


class Smoothed:
    """Rows of text: running means of the losses, and the latest value of everything else."""

    def __init__(self) -> None:
        self.losses: dict[str, float] = {}

    def rows(self, at: Any) -> list[tuple[str, str]]:
        """at: a `mtanimate.training.run.Progress`."""
        for name, value in at.losses.items():
            if math.isfinite(value):  # a skipped step may have terms that are not
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
