"""A case run as the command runs it, watched, and judged.

On Linux a parent that has imported the package forks a process a case, which saves the seconds of a start; elsewhere,
and for every 50th case, to see that both agree, a case is a fresh `python -m mtanimate`.
"""

import atexit
import ctypes
import gc
import importlib
import io
import os
import pkgutil
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from good_files import run_here

FORKS = sys.platform == "linux"
MOST_MEMORY = 2 << 30  # bytes, of all processes of a command together
GRACE = 3.0  # seconds for processes to go after the command has ended

# By its id where it was forked.
Process = int | subprocess.Popen[bytes]

# A class of Python's in a message is an error that nobody foresaw; so is a request to report one.
UNFORESEEN = re.compile(r"Traceback|please report|(?:^|[\s(:])(?:[A-Z]\w*(?:Error|Exception|Warning)): ")
# Commands whose exit code 1 says that something in their result is bad; the result says what.
JUDGES = (["checkpoints", "verify"], ["data", "check"], ["animate", "--jobs"], ["doctor"])


@dataclass
class Outcome:
    """What became of a case. faults: what must not be, a line each. code: None where it had to be ended."""

    code: int | None
    seconds: float
    memory: int
    stdout: bytes = b""
    stderr: str = ""
    faults: list[str] = field(default_factory=list)


@contextmanager
def unasked() -> Iterator[tuple[str, Callable[[], bool]]]:
    """The address of a server on this machine, and whether it was asked for anything since that was last asked."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)

        def asked() -> bool:
            try:
                server.accept()[0].close()
            except BlockingIOError:
                return False
            return True

        yield f"http://127.0.0.1:{server.getsockname()[1]}", asked


def prepare() -> None:
    """Import what commands import."""
    import mtanimate

    for module in pkgutil.walk_packages(mtanimate.__path__, "mtanimate."):
        importlib.import_module(module.name)
    for name in ("av", "decord", "matplotlib.backends.backend_agg", "PIL.Image", "rich.progress", "rich.table"):
        importlib.import_module(name)
    for name in ("dlib", "onnx"):  # of extras
        with suppress(ImportError):
            importlib.import_module(name)
    with redirect_stderr(io.StringIO()):
        run_here(["animate", "--strength", "much"])  # Typer imports its parsers when they are first used
    gc.freeze()


@contextmanager
def taking_in_orphans() -> Iterator[None]:
    """On Linux, processes whose parent ends become this one's children, so that none is lost sight of."""
    set_child_subreaper = 36
    if FORKS:
        ctypes.CDLL(None).prctl(set_child_subreaper, 1, 0, 0, 0)
    try:
        yield
    finally:
        if FORKS:
            ctypes.CDLL(None).prctl(set_child_subreaper, 0, 0, 0, 0)


def command(arguments: list[str]) -> list[str]:
    """A fresh process of the command."""
    return [sys.executable, "-m", "mtanimate", *arguments]


def forked(work: Callable[[], int], folder: Path, environment: dict[str, str]) -> int:
    """The id of a process that does `work` in `folder`, without input, writing to `stdout` and `stderr` beside it."""
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        os.environ.update(environment)
        sys.modules["__main__"] = sys.modules["mtanimate.__main__"]  # which a pool of processes imports
        for number, name in enumerate((os.devnull, "../stdout", "../stderr")):
            opened = os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(opened, number)
            os.close(opened)
        code = work()
        threading._shutdown()  # as the interpreter does at its end
        atexit._run_exitfuncs()
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def started(arguments: list[str], folder: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """As `forked`, a fresh process of the command."""
    with (folder / "../stdout").open("wb") as stdout, (folder / "../stderr").open("wb") as stderr:
        return subprocess.Popen(
            command(arguments),
            cwd=folder,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )


def run(
    arguments: list[str], folder: Path, *, fresh: bool, longest: float, asked: Callable[[], bool], may_change: bool
) -> Outcome:
    """Run the command in `folder / "work"` and judge it. longest: seconds. may_change: what a run before has left in
    `work` may change."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    environment = {"HOME": str(home), "MTANIMATE_CACHE": str(home / "cache"), "TMPDIR": str(home)}
    before, others = _digests(folder), set(_children(os.getpid()))
    began = time.monotonic()
    if FORKS and not fresh:
        process = forked(lambda: run_here(arguments), folder / "work", environment)
    else:
        process = started(arguments, folder / "work", environment)
    outcome = _watched(process, began, longest)
    outcome.stdout = (folder / "stdout").read_bytes()
    outcome.stderr = (folder / "stderr").read_bytes().decode(errors="backslashreplace")
    outcome.faults += _left_processes(others)
    outcome.faults += _wrong_words(arguments, outcome)
    outcome.faults += _wrong_files(folder, before, may_change)
    if asked():
        outcome.faults.append("it asked for an address that a file names")
    return outcome


def _watched(process: Process, began: float, longest: float) -> Outcome:
    """Wait for a process, or end it where it takes too long or too much memory."""
    number = process if isinstance(process, int) else process.pid
    outcome, looked = Outcome(None, 0.0, 0), 0.0
    while True:
        status = _status(process)
        outcome.seconds = time.monotonic() - began
        if status is not None:
            outcome.code = status
            if status < 0:
                outcome.faults.append(f"ended by signal {-status}")
            return outcome
        if outcome.seconds - looked > 0.05:
            looked = outcome.seconds
            outcome.memory = max(outcome.memory, sum(map(_memory, _family(number))))
        if outcome.memory > MOST_MEMORY or outcome.seconds > longest:
            large = f"it took {outcome.memory >> 20} MiB" if outcome.memory > MOST_MEMORY else ""
            outcome.faults.append(large or f"it had not ended after {longest:.0f} s")
            _end(process)
            return outcome
        time.sleep(0.01)


def _end(process: Process) -> None:
    """At once, with what it has started."""
    if isinstance(process, int) or FORKS:
        for one in reversed(_family(process if isinstance(process, int) else process.pid)):
            with suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
    else:
        process.kill()
    while _status(process) is None:
        time.sleep(0.01)


def _status(process: Process) -> int | None:
    """The exit code, or minus the signal; None while it runs."""
    if not isinstance(process, int):
        return process.poll()
    ended, status = os.waitpid(process, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


def _children(process: int) -> list[int]:
    found: list[int] = []
    for file in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, file.read_text().split())
    return found


def _family(process: int) -> list[int]:
    return [process, *(one for child in _children(process) for one in _family(child))]


def _memory(process: int) -> int:
    """Resident bytes that are its own, without what it shares with the parent that it was forked from."""
    try:
        _, resident, shared, *_ = map(int, Path(f"/proc/{process}/statm").read_text().split())
    except (OSError, ValueError):
        return 0
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")


def _left_processes(others: set[int]) -> list[str]:
    """Processes that are still there a while after the command has ended; they are ended, too. others: of ours that
    were there before. On Linux alone: there all that a command started have become ours."""
    deadline = time.monotonic() + GRACE
    while left := set(_children(os.getpid())) - others:
        for one in left:
            os.waitpid(one, os.WNOHANG)
        if time.monotonic() > deadline:
            break
        time.sleep(0.01)
    faults = []
    for one in left:
        name = Path(f"/proc/{one}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        faults.append(f"a process is left: {name[:200]}")
        os.kill(one, signal.SIGKILL)
        os.waitpid(one, 0)
    return faults


def _wrong_words(arguments: list[str], outcome: Outcome) -> list[str]:
    """What an exit code and what was said have to do with each other, of a command with --quiet."""
    if outcome.code is None or outcome.code < 0:
        return []
    faults = []
    lines = outcome.stderr.splitlines()
    said = outcome.stderr if "-" in arguments else outcome.stderr + outcome.stdout.decode(errors="replace")
    judges = outcome.code == 1 and any(arguments[: len(judge)] == judge for judge in JUDGES)
    if outcome.code not in (0, 1, 2):
        faults.append(f"exit code {outcome.code}")
    expected = () if outcome.code == 0 else (0, 1) if judges else (1,)
    if outcome.code and (len(lines) not in expected or not all(line.startswith("mtanimate: ") for line in lines)):
        faults.append(f"exit code {outcome.code} with {len(lines)} lines on stderr")
    if outcome.code == 0 and lines:
        faults.append(f"exit code 0 with {len(lines)} lines on stderr")
    if UNFORESEEN.search(said):
        faults.append("an error that nobody foresaw")
    if len(max(lines, key=len, default="")) > 3000:
        faults.append("a line longer than 3000 characters")
    if any(not char.isprintable() and char not in "\n\r\t" for char in said):
        faults.append("characters that a terminal obeys")
    return faults


def _digests(folder: Path) -> dict[str, str]:
    """What stands in every file below `work` and `outside`."""
    files = (
        Path(here) / name for top in ("work", "outside") for here, _, names in os.walk(folder / top) for name in names
    )
    return {
        str(file.relative_to(folder)): os.readlink(file) if file.is_symlink() else sha256(file.read_bytes()).hexdigest()
        for file in files
    }


def _wrong_files(folder: Path, before: dict[str, str], may_change: bool) -> list[str]:
    after = _digests(folder)
    kept = [name for name in before if not may_change or Path(name).parts[1] in ("clips", "tiny.safetensors")]
    kept += [name for name in before if name.startswith("outside")]
    faults = [f"{name} has changed" for name in sorted({name for name in kept if after.get(name) != before[name]})]
    new = sorted(set(after) - set(before))
    faults += [f"{name} was made" for name in new if name.startswith("outside")]
    faults += [f"{name} is left, half written" for name in new if Path(name).name.startswith((".", "tmp"))]
    for name in new:
        if name.endswith(".report.jsonl") and UNFORESEEN.search((folder / name).read_text("utf-8", "replace")):
            faults.append(f"an error that nobody foresaw, in {name}")
    made = [path for path in (folder / "outside").iterdir() if path.is_dir()]
    return faults + [f"{path.name} was made outside" for path in made]
