"""Every error as one line for users, and the exit code that goes with it."""

import errno
import functools
import io
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any, NoReturn, TextIO, TypeVar

import typer
from typer.core import TyperGroup

from mtanimate.errors import MTAnimateError, is_of_memory
from mtanimate.files import to_json
from mtanimate.reading import MAX_PIXELS as _MAX_PIXELS
from mtanimate.signals import SignalsAsInterrupt, end_with_parent

if TYPE_CHECKING:
    from rich.console import Console

_USAGE = typer.BadParameter.__bases__  # typer has no public name for all errors of options

# What the system says of a path that the user gave, and what to do. Whatever else it says is a failure.
_OF_PATHS = {
    errno.ENOENT: "check the name",
    errno.EACCES: "allow it to be read and written (chmod), or choose another place",
    errno.EPERM: "allow it to be read and written (chmod), or choose another place",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOTDIR: "a part of the path is a file: check the name",
    errno.EISDIR: "name a file in it",
    errno.ELOOP: "a link leads to itself: mend it",
    errno.EROFS: "choose another place",
}
_OF_FAILURES = {
    errno.ENOSPC: "free some space or choose another place",
    errno.EDQUOT: "free some space or choose another place",
    errno.EMFILE: "allow more open files (ulimit -n)",
    errno.ENOMEM: "close other programs, or take smaller pictures",
}


def explained(error: Exception) -> tuple[str, int]:
    """What to say and the exit code: 2 where the input or an option is wrong, 1 where something failed."""
    if isinstance(error, MTAnimateError):
        return str(error), error.exit_code
    if isinstance(error, _USAGE):
        return error.format_message(), 2  # type: ignore[attr-defined]
    causes = list(_causes(error))  # libraries wrap what the system said
    if any(map(is_of_memory, causes)):
        return "memory is short: close other programs, or take smaller pictures and a smaller --batch-size", 1
    for cause in causes:
        if isinstance(cause, OSError) and cause.strerror:
            return _of_the_system(cause)
        if isinstance(cause, RuntimeError) and "home directory" in str(cause):
            return "~ leads to no folder, there is no such user or no HOME: write the path in full", 2
        if isinstance(cause, RecursionError):
            return "something is nested too deeply to be read: --debug shows where", 1
    return f"unexpected {type(error).__name__} ({error}): please report it, with what --debug shows", 1


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _of_the_system(error: OSError) -> tuple[str, int]:
    where = f"'{error.filename}': " if error.filename else ""
    what_to_do = _OF_PATHS.get(error.errno or 0) or _OF_FAILURES.get(error.errno or 0, "--debug shows where")
    return f"{where}{error.strerror}: {what_to_do}", 2 if where and error.errno in _OF_PATHS else 1


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


_LONGEST_LINE = 2000  # characters

Command = TypeVar("Command", bound=Callable[..., None])

DEVICE = typer.Option("auto", help="auto, cpu, cuda, cuda:N or mps.")
QUIET = typer.Option(False, "--quiet", help="No progress, no remarks.")
JSON = typer.Option(False, "--json", help="One JSON object on stdout, nothing else there.")
MAX_PIXELS = typer.Option(_MAX_PIXELS, min=1, help="Refuse pictures, and videos' frames, of more.")
DEBUG = typer.Option(False, "--debug", help="A traceback where something fails.")


def reports_errors(command: Command) -> Command:
    """Errors as one line on stderr: exit 2 for wrong input, 1 for a failure, 128 + the signal for Ctrl-C and its like;
    0 where whoever read our output went away (`mtanimate models | head -1`).

    With the option `debug` of `command` a traceback is shown before it.
    """

    @functools.wraps(command)
    def wrapped(*args: Any, **options: Any) -> Any:
        try:
            result = command(*args, **options)
            if sys.stdout is not None:  # it is closed
                sys.stdout.flush()
            return result
        except KeyboardInterrupt as error:
            _fail("interrupted", 128 + getattr(error, "number", signal.SIGINT))
        except BrokenPipeError:
            _to_nowhere(sys.stdout)
            raise SystemExit(0) from None
        except SystemExit as ended:  # of ours, or where Typer and Rich met the broken pipe themselves
            if not isinstance(ended.__context__, BrokenPipeError):
                raise
            _to_nowhere(sys.stdout)
            raise SystemExit(0) from None
        except Exception as error:
            if options.get("debug"):
                traceback.print_exc()
            _fail(*explained(error))

    return wrapped  # type: ignore[return-value]


class Group(TyperGroup):
    """The whole command: what is wrong with its options, too, is said in one line; signals end it as Ctrl-C does."""

    def main(self, *args: Any, **options: Any) -> Any:
        _prepare_streams()
        end_with_parent()
        with SignalsAsInterrupt() as signals:
            try:
                code = reports_errors(super().main)(*args, **options | {"standalone_mode": False})
            except SystemExit as ended:
                # A failure that came of the signal, as where a child got it first, is its end, too.
                raise SystemExit(128 + signals.number if signals.number and ended.code else ended.code) from None
        raise SystemExit(code)


def _prepare_streams() -> None:
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: a file that is opened would get its number, and what is printed
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (as long as the process), or `print` takes stdout
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be text


def _fail(message: str, code: int) -> NoReturn:
    if message:  # none: another worker says it, or help was shown
        tell(f"mtanimate: {' '.join(message.split())}")
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        _to_nowhere(sys.stdout)
    raise SystemExit(code)


def tell(line: str) -> None:
    """A line on stderr, its middle left out where it is very long: strangers' files are quoted in it. Where it cannot
    be written nobody reads it, and the work goes on."""
    try:
        print(_shortened(printable(line)), file=sys.stderr, flush=True)
    except OSError:
        _to_nowhere(sys.stderr)


def _shortened(line: str) -> str:
    """Beginning and end are kept: the end says what to do."""
    return line if len(line) <= _LONGEST_LINE else f"{line[: _LONGEST_LINE - 500]} ... {line[-400:]}"


def _to_nowhere(stream: TextIO) -> None:
    """What is still to be written to it goes nowhere: Python would try once more, and fail, when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def printable(text: str) -> str:
    """Text from anywhere as a terminal may get it: what it would obey, or cannot show, as JSON escapes it."""
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


def put(line: str) -> None:
    """A line of a result, on stdout. All that a command prints goes through here, `tell` or `console`: names and
    notes come out of strangers' files."""
    print(printable(line))


def console(stderr: bool = False) -> "Console":
    """Rich's, for tables: it shows text as `put` does, and takes nothing in it for markup."""
    from rich.console import Console
    from rich.text import Text

    class Printable(Console):
        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str("\n".join(map(printable, text.split("\n"))), **options)

    return Printable(stderr=stderr, markup=False, emoji=False)


def print_json(result: dict[str, Any]) -> None:
    """One object; numbers that are not finite, which JSON has not, become null."""
    # What is escaped once more is inside of a string, and stays JSON.
    put(to_json(result))


def remark(quiet: bool) -> Callable[[str], None]:
    """A function that says a line on stderr, or nothing."""
    return (lambda line: None) if quiet else tell


Update = Callable[..., None]


def progress_bar(what: str, unit: str, quiet: bool) -> AbstractContextManager[Update]:
    """Yields update(done, total, note=""): a Rich bar on a terminal, else a plain line every ten seconds."""
    return _shown(quiet, lambda: _rich_bar(what, unit), lambda: _plain_lines(what, unit))


@contextmanager
def _shown(
    quiet: bool, rich: Callable[[], AbstractContextManager[Update]], plain: Callable[[], Update]
) -> Iterator[Update]:
    if quiet:
        yield lambda done, total, text="": None
    elif sys.stderr.isatty():
        with rich() as update:
            yield update
    else:
        yield plain()


@contextmanager
def _rich_bar(what: str, unit: str) -> Iterator[Callable[..., None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    ]
    with Progress(*columns, console=console(stderr=True)) as bar:
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
        tell(f"{line}, {note}" if note else line)

    return update


class Stages:
    """How fast a work of several stages goes, and how long it takes still.

    shares: about how long each takes beside the others, by their names, in their order. Some may be left out.
    """

    def __init__(self, shares: Mapping[str, float]) -> None:
        self.shares = shares
        self._stage, self._began = "", 0.0

    def at(self, done: int, total: int, stage: str) -> tuple[float, float]:
        """Units a second in this stage, and seconds left of the whole; both 0 where nothing is done yet."""
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._began = stage, now
        spent = now - self._began
        if not done:
            return 0.0, 0.0
        names = list(self.shares)
        later = sum(self.shares[name] for name in names[names.index(stage) + 1 :]) / self.shares[stage]
        whole = spent * total / done
        return done / max(spent, 1e-6), whole - spent + later * whole


def staged_progress(shares: Mapping[str, float], unit: str, quiet: bool) -> AbstractContextManager[Update]:
    """Yields update(done, total, stage): a Rich bar a stage on a terminal, else a plain line every ten seconds; with
    the time left of the whole. shares: as in `Stages`. A stage begins with done = 0."""
    stages = Stages(shares)
    return _shown(quiet, lambda: _rich_stages(stages, unit), lambda: _plain_stages(stages, unit))


@contextmanager
def _rich_stages(stages: Stages, unit: str) -> Iterator[Callable[[int, int, str], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}")]
    with Progress(*columns, console=console(stderr=True)) as bar:
        tasks: dict[str, TaskID] = {}

        def update(done: int, total: int, stage: str) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, note="")
            rate, left = stages.at(done, total, stage)
            note = f"{unit}, {rate:.1f}/s, {timedelta(seconds=round(left))} left in all" if done else unit
            bar.update(tasks[stage], completed=done, total=total, note=unit if done == total else note)

        yield update


def _plain_stages(stages: Stages, unit: str) -> Callable[[int, int, str], None]:
    last = time.monotonic()

    def update(done: int, total: int, stage: str) -> None:
        nonlocal last
        rate, left = stages.at(done, total, stage)
        now = time.monotonic()
        at_the_end = done == total and stage == list(stages.shares)[-1]
        if not done or (now - last < 10 and not at_the_end):
            return
        last = now
        tell(f"{stage}: {done} of {total} {unit}, {rate:.1f}/s, {left:.0f} s left in all")

    return update
