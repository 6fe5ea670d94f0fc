"""Commands in processes of their own that begin at once: forks of one that has imported what takes seconds."""

import importlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

IMPORTED = [
    *(f"mtanimate.animation.{name}" for name in ("animate", "jobs", "live_streams")),
    *(f"mtanimate.inspection.{name}" for name in ("attention", "inspect")),
    *(f"mtanimate.checkpoints.{name}" for name in ("conversion", "downloading")),
    *(f"mtanimate.evaluation.{name}" for name in ("evaluate", "comparison")),
    *(f"mtanimate.data.{name}" for name in ("preparation", "caching", "packing", "checking")),
    *("mtanimate.cli", "mtanimate.export.export", "mtanimate.training.train"),
    *("typer.rich_utils", "rich.table", "rich.progress", "pydantic.type_adapter", "PIL.PngImagePlugin", "PIL.ImageOps"),
    *("av", "decord", "imageio_ffmpeg", "mtanimate.doctor", "mtanimate.video.footage"),
    "torch._dynamo",  # an optimiser needs it: 3 s
]
_SERVER = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
FORK = multiprocessing.get_context(_SERVER)
FORK.set_forkserver_preload(IMPORTED)


class Running:
    """The command with these arguments, in a session of its own. In a `with` block, after which it is at its end.

    Args:
        cwd: The folder that it runs in.
        env: Its environment; this process's where it is None.
        stdin: The file that it reads as its standard input.
        text: Whether what it writes is text, or bytes.
        barrier: What it waits for before it begins.
    """

    def __init__(
        self,
        *arguments: object,
        cwd: Path | None = None,
        env: dict | None = None,
        stdin: Path | None = None,
        text: bool = True,
        barrier=None,
    ) -> None:
        self._arguments, self._text = list(map(str, arguments)), text
        self._files = tempfile.TemporaryDirectory(prefix="streams-")
        self._streams = [Path(self._files.name) / name for name in ("out", "err")]
        environment = dict(os.environ if env is None else env)
        given = (self._arguments, *map(str, self._streams), cwd, environment, stdin or os.devnull, barrier)
        self.process = FORK.Process(target=_command, args=given)
        self.process.start()

    def end(self, seconds: float = 180) -> subprocess.CompletedProcess:
        """Waits until it is at its end."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, f"it hangs: {self._arguments}"
        written = [file.read_bytes() if file.exists() else b"" for file in self._streams]
        out, err = (content.decode("utf-8") for content in written) if self._text else written
        return subprocess.CompletedProcess(self._arguments, self.process.exitcode, out, err)

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.join()
        self._files.cleanup()


def run(*arguments: object, **options: object) -> subprocess.CompletedProcess:
    """The command with these arguments, to its end; options: as of `Running`."""
    with Running(*arguments, **options) as running:
        return running.end()


def _command(
    arguments: list[str], out: str, err: str, cwd: Path | None, environment: dict[str, str], stdin: Path | str, barrier
) -> None:
    multiprocessing.set_start_method(None, force=True)  # it would be the one by which this process was made
    for name in IMPORTED:  # a spawned process has none of them
        with suppress(ImportError):
            importlib.import_module(name)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    sys.modules["torch"].set_num_threads(int(environment.get("OMP_NUM_THREADS", "1")))
    if hasattr(os, "setsid"):
        os.setsid()
    os.chdir(cwd or os.curdir)
    sys.argv = ["mtanimate", *arguments]
    sys.stdin = open(stdin)  # noqa: SIM115
    for number, name in ((1, out), (2, err)):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    if barrier is not None:
        barrier.wait(60)
    sys.modules["mtanimate.cli"].main()
