"""A training run on the terminal: what it does, how well, how fast, how long still."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from mtanimate.cli.terminal import console, progress_bar, remark, tell

SMOOTH = 0.95  # of the losses that are shown


@dataclass(frozen=True)
class Display:
    """What `train` reports to."""

    progress: Callable[[int, int], None]
    report: Callable[[Any], None]
    say: Callable[[str], None]


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
        """at: a `mtanimate.training.run.Report`."""
        for name, value in at.losses.items():
            if math.isfinite(value):  # a step that was skipped has terms that are not
                self.losses[name] = SMOOTH * self.losses.get(name, value) + (1 - SMOOTH) * value
        shown = {name: self.losses[name] for name in at.losses if name in self.losses}
        rows = [("loss", f"{sum(shown.values()):.4f}"), *((name, f"{value:.4f}") for name, value in shown.items())]
        rows.append(("speed", f"{at.samples_per_second:.1f} samples/s"))
        rows.append(("waiting for data", f"{at.data_wait:.0%}"))
        rows.append(("time left", str(timedelta(seconds=round(at.seconds_left)))))
        if at.score is not None:
            ratio = at.score.error / max(at.score.repeating, 1e-9)
            rows.append(("validation L1", f"{at.score.error:.4f} ({ratio:.2f} of repeating the first frame)"))
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

        def say(line: str) -> None:
            screen.print(line, highlight=False)

        yield Display(progress, report, say)
