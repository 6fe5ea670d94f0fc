"""What every command shares with the terminal: options, errors, progress, results."""

import functools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any, TypeVar

import typer

from mtanimate.errors import MTAnimateError


class Precision(str, Enum):
    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class Backend(str, Enum):
    torch = "torch"
    onnx = "onnx"
    openvino = "openvino"


class Mode(str, Enum):
    relative = "relative"
    absolute = "absolute"


class Estimator(str, Enum):
    motion_transformer = "motion-transformer"
    fomm = "fomm"
    mraa = "mraa"
    monkey_net = "monkey-net"


Command = TypeVar("Command", bound=Callable[..., None])

DEVICE = typer.Option("auto", help="auto, cpu, cuda, cuda:N or mps.")
QUIET = typer.Option(False, "--quiet", help="No progress, no remarks.")
JSON = typer.Option(False, "--json", help="One JSON object on stdout, nothing else there.")
DEBUG = typer.Option(False, "--debug", help="A traceback where something fails.")


def reports_errors(command: Command) -> Command:
    """Errors as one line on stderr: exit 2 for wrong input, 1 for a failure, 130 for Ctrl-C.

    `command` must take `debug`; with it a traceback is shown instead.
    """

    @functools.wraps(command)
    def wrapped(*args: Any, **options: Any) -> None:
        try:
            command(*args, **options)
            sys.stdout.flush()
        except MTAnimateError as error:
            if options["debug"]:
                raise
            _fail(str(error), error.exit_code)
        except KeyboardInterrupt:
            _fail("interrupted", 130)
        except BrokenPipeError:  # whoever read our output went away: `mtanimate models | head -1`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(1) from None

    return wrapped  # type: ignore[return-value]


def _fail(message: str, code: int) -> None:
    if message:  # none: another worker says it
        print(f"mtanimate: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(code)


def print_json(result: dict[str, Any]) -> None:
    print(json.dumps(result, ensure_ascii=False))


def remark(quiet: bool) -> Callable[[str], None]:
    """A function that says a line on stderr, or nothing."""
    return (lambda line: None) if quiet else (lambda line: print(line, file=sys.stderr, flush=True))


@contextmanager
def progress_bar(what: str, unit: str, quiet: bool) -> Iterator[Callable[..., None]]:
    """Yields update(done, total, note=""): a Rich bar on a terminal, else a plain line every ten seconds."""
    if quiet:
        yield lambda done, total, note="": None
    elif sys.stderr.isatty():
        with _rich_bar(what, unit) as update:
            yield update
    else:
        yield _plain_lines(what, unit)


@contextmanager
def _rich_bar(what: str, unit: str) -> Iterator[Callable[..., None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    ]
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=None, note="")
        started = time.monotonic()

        def update(done: int, total: int, note: str = "") -> None:
            rate = done / max(time.monotonic() - started, 1e-6)
            bar.update(task, completed=done, total=total, note=note or f"{rate:.1f} {unit}/s")

        yield update


def _plain_lines(what: str, unit: str) -> Callable[..., None]:
    started = last = time.monotonic()

    def update(done: int, total: int, note: str = "") -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < 10 and done < total:
            return
        last = now
        rate = done / max(now - started, 1e-6)
        left = (total - done) / max(rate, 1e-6)
        line = f"{what}: {done} of {total} {unit}, {rate:.1f}/s, {left:.0f} s left"
        print(f"{line}, {note}" if note else line, file=sys.stderr, flush=True)

    return update
