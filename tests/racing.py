"""Commands in processes of their own that begin at one time; what takes long to import is there already."""

import importlib
import multiprocessing
import os
import sys
from pathlib import Path

IMPORTED = [
    *(f"mtanimate.animation.{name}" for name in ("animate", "jobs", "live_streams")),
    *(f"mtanimate.inspection.{name}" for name in ("attention", "inspect")),
    "mtanimate.checkpoints.conversion",
    *(f"mtanimate.evaluation.{name}" for name in ("evaluate", "comparison")),
    *(f"mtanimate.data.{name}" for name in ("preparation", "caching", "packing")),
    *("mtanimate.export.export", "mtanimate.training.train", "torch._dynamo", "PIL.PngImagePlugin"),
]
_SERVER = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
PROCESSES = multiprocessing.get_context(_SERVER)
PROCESSES.set_forkserver_preload(IMPORTED)


def race(folder: Path, cache: Path, *commands: list[object]) -> list[tuple[int, str]]:
    """Exit code and stderr of each, in the order of the codes. folder: their current one."""
    barrier = PROCESSES.Barrier(len(commands))
    processes = []
    for number, arguments in enumerate(commands):
        said = cache.parent / f"{cache.name}-{number}.txt"
        texts = [str(argument) for argument in arguments]
        processes.append((PROCESSES.Process(target=_run, args=(texts, folder, cache, said, barrier)), said))
    for process, _ in processes:
        process.start()
    ended = []
    for process, said in processes:
        process.join(600)  # an export on a busy machine takes minutes
        if process.exitcode is None:
            process.kill()
            raise AssertionError(f"it hangs: {said.read_text('utf-8')}")
        ended.append((process.exitcode, said.read_text("utf-8")))
    return sorted(ended)


def _run(arguments, folder, cache, said, barrier) -> None:
    for name in IMPORTED:
        importlib.import_module(name)
    from mtanimate.cli import app

    os.chdir(folder)
    os.environ |= {"MTANIMATE_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 2)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
    barrier.wait(60)
    app(arguments)
