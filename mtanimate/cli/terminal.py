"""What commands say on a terminal: results, progress, and errors in one line with an exit code."""

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
from typing import TYPE_CHECKING, Any, NoReturn, TextIO, TypeVar

import typer
from typer.core import TyperGroup

from mtanimate.cli.options import without_types
from mtanimate.errors import MTAnimateError, is_of_memory
from mtanimate.files import to_json
from mtanimate.signals import SignalsAsInterrupt, end_with_parent

if TYPE_CHECKING:
    from rich.console import Console

_USAGE = typer.BadParameter.__bases__  # typer has no public name for all errors of options

# Errors of the system about a path that the user gave, and what to do. All others are failures.
_OF_PATHS = {
    errno.ENOENT: "check the name",
    errno.EACCES: "give yourself the right to read and write it (chmod), or choose another place",
    errno.EPERM: "give yourself the right to read and write it (chmod), or choose another place",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOTDIR: "a part of the path is a file: check the name",
    errno.EISDIR: "name a file in it",
    errno.ELOOP: "a link points to itself: remove it",
    errno.EROFS: "choose another place",
}
_OF_FAILURES = {
    errno.ENOSPC: "free some space or choose another place",
    errno.EDQUOT: "free some space or choose another place",
    errno.EMFILE: "allow more open files (ulimit -n)",
    errno.ENOMEM: "close other programs, or use smaller pictures",
}


def explained(error: Exception) -> tuple[str, int]:
    """The message and the exit code for an error: 2 if the input or an option is wrong, 1 if something failed."""
    if isinstance(error, MTAnimateError):
        return str(error), error.exit_code
    if isinstance(error, _USAGE):
        return error.format_message(), 2  # type: ignore[attr-defined]
    causes = list(_causes(error))  # libraries wrap the system's errors
    if any(map(is_of_memory, causes)):
        return "not enough memory: close other programs, or use smaller pictures or a smaller --batch-size", 1
    for cause in causes:
        if isinstance(cause, OSError) and cause.strerror:
            return _of_the_system(cause)
        if isinstance(cause, RuntimeError) and "home directory" in str(cause):
            return "~ does not lead to a folder (no such user, or HOME is not set): write the path in full", 2
        if isinstance(cause, RecursionError):
            return "something is nested too deeply to be read: --debug shows what", 1
    return f"unexpected {type(error).__name__} ({error}): please report it, with what --debug shows", 1


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _of_the_system(error: OSError) -> tuple[str, int]:
    where = f"'{error.filename}': " if error.filename else ""
    what_to_do = _OF_PATHS.get(error.errno or 0) or _OF_FAILURES.get(error.errno or 0, "--debug shows where")
    return f"{where}{error.strerror}: {what_to_do}", 2 if where and error.errno in _OF_PATHS else 1


_LONGEST_LINE = 2000  # characters

Command = TypeVar("Command", bound=Callable[..., None])


def reports_errors(command: Command) -> Command:
    """A decorator that reports errors as one line on stderr.

    The exit code is 2 for wrong input, 1 for a failure, 128 + the signal's number for Ctrl-C and other signals, and 0
    if the reader of our output has gone (`mtanimate models | head -1`). With the command's option `debug`, a traceback
    comes first.
    """

    @functools.wraps(command)
    def wrapped(*args: Any, **options: Any) -> Any:
        try:
            result = command(*args, **options)
            if sys.stdout is not None:  # None: it is closed
                sys.stdout.flush()
            return result
        except KeyboardInterrupt as error:
            _fail("interrupted", 128 + getattr(error, "number", signal.SIGINT))
        except BrokenPipeError:
            _to_nowhere(sys.stdout)
            raise SystemExit(0) from None
        except SystemExit as ended:  # ours, or Typer or Rich met the broken pipe
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
    """A group of commands. Wrong options are reported in one line, too, and signals end it as Ctrl-C does."""

    def get_params(self, ctx: Any) -> list[Any]:
        return without_types(super().get_params(ctx))

    def main(self, *args: Any, **options: Any) -> Any:
        _prepare_streams()
        end_with_parent()
        with SignalsAsInterrupt() as signals:
            try:
                code = reports_errors(super().main)(*args, **options | {"standalone_mode": False})
            except SystemExit as ended:
                # A failure may come from the signal, too: a child may have got it first.
                raise SystemExit(128 + signals.number if signals.number and ended.code else ended.code) from None
        if code and signals.number:  # it came between our own functions, and Typer made a code of it
            tell("mtanimate: interrupted")
            code = 128 + signals.number
        raise SystemExit(code)


def _prepare_streams() -> None:
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file opened would get its number, and our output
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (kept open); else `print` would use stdout
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may hold bytes that are no text


def _fail(message: str, code: int) -> NoReturn:
    if message:  # empty: another worker reports it, or help was shown
        tell(f"mtanimate: {' '.join(message.split())}")
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        _to_nowhere(sys.stdout)
    raise SystemExit(code)


def tell(line: str) -> None:
    """Prints a line on stderr, without its middle if it is very long: messages quote files of any content. If stderr
    cannot be written, work goes on without it."""
    try:
        print(_shortened(printable(line)), file=sys.stderr, flush=True)
    except OSError:
        _to_nowhere(sys.stderr)


def _shortened(line: str) -> str:
    """Keeps the beginning and the end, which says what to do."""
    return line if len(line) <= _LONGEST_LINE else f"{line[: _LONGEST_LINE - 500]} ... {line[-400:]}"


def _to_nowhere(stream: TextIO) -> None:
    """Discards what is still buffered: Python would try to write it at exit, and fail."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def printable(text: str) -> str:
    """Text that is safe to print: control characters, and what cannot be shown, escaped as in JSON."""
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


def put(line: str) -> None:
    """Prints a line of a result on stdout. All output of commands goes through here, `tell` or `console`, since names
    and notes in it come from files of unknown origin."""
    print(printable(line))


def console(stderr: bool = False) -> "Console":
    """A Rich console for tables. It escapes text as `put` does, and sees no markup in it."""
    from rich.console import Console
    from rich.text import Text

    class Printable(Console):
        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str("\n".join(map(printable, text.split("\n"))), **options)

    return Printable(stderr=stderr, markup=False, emoji=False)


def print_json(result: dict[str, Any]) -> None:
    """Prints one JSON object. Numbers that are not finite become null, as JSON has none."""
    # `put` escapes characters inside of strings only: the result is still JSON.
    put(to_json(result))


def remark(quiet: bool) -> Callable[[str], None]:
    """A function that prints a line on stderr, or nothing if `quiet`."""
    return (lambda line: None) if quiet else tell


Update = Callable[..., None]


def progress_bar(what: str, unit: str, quiet: bool) -> AbstractContextManager[Update]:
    """Yields update(done, total, note=""), which shows a bar on a terminal, else a plain line every ten seconds."""
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


class _Pace:
    """How much is done in a second, since the first look: what was done before that does not count."""

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None

    def at(self, done: int) -> float:
        now = time.monotonic()
        before, since = self._first = self._first or (done, now)
        return (done - before) / max(now - since, 1e-6)


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
        pace = _Pace()

        def update(done: int, total: int, note: str = "") -> None:
            speed = f"{pace.at(done):.1f} {unit}/s"
            bar.update(task, completed=done, total=total, note=f"{speed}, {note}" if note else speed)

        yield update


def _plain_lines(what: str, unit: str) -> Callable[..., None]:
    last, pace = time.monotonic(), _Pace()

    def update(done: int, total: int, note: str = "") -> None:
        nonlocal last
        now, rate = time.monotonic(), pace.at(done)
        if now - last < 10 and done < total:
            return
        last = now
        line = f"{what}: {done} of {total} {unit}"
        if rate:
            line += f", {rate:.1f}/s, {(total - done) / rate:.0f} s left"
        tell(f"{line}, {note}" if note else line)

    return update


class Stages:
    """Speed and remaining time of work in several stages.

    Args:
        shares: the stages by name, in order, each with about how long it takes relative to the others. A stage may be
            left out of the work.
    """

    def __init__(self, shares: Mapping[str, float]) -> None:
        self.shares = shares
        self._stage, self._began = "", 0.0

    def at(self, done: int, total: int, stage: str) -> tuple[float, float]:
        """Units per second in this stage, and seconds left for all stages; both 0 if nothing is done yet."""
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
    """Yields update(done, total, stage), which shows a bar for each stage on a terminal, else a plain line every ten
    seconds, and the time left for all stages. A stage begins with done = 0. shares: as in `Stages`."""
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
