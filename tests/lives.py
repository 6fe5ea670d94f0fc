"""Trainings in processes of their own, which can be killed."""

import json
import multiprocessing
import os
import signal
import sys
import threading
from pathlib import Path

import torch
import yaml
from forks import FORK

from mtanimate.checkpoints.file import read_checkpoint
from mtanimate.config import Config, to_mapping
from mtanimate.errors import MTAnimateError
from mtanimate.training.train import train


def write_settings(path: Path, config: Config) -> Path:
    """A YAML file that `--dataset` takes."""
    path.write_text(yaml.safe_dump(to_mapping(config)), "utf-8")
    return path


class Life:
    """One process that trains. at_event: it kills itself before its so manyeth file operation in `out`.

    limit: the largest file it may write, in bytes. double: it computes in float64. environment: variables of its own.
    options: of `train`. What it returns goes to result.json beside `out`.
    """

    def __init__(
        self,
        out: Path,
        *,
        at_event: int = 0,
        limit: int = 0,
        double: bool = False,
        environment: dict | None = None,
        **options,
    ) -> None:
        self.lines = FORK.SimpleQueue()
        self.began = FORK.Event()
        arguments = (str(out), at_event, limit, double, environment or {}, self.lines, self.began, options)
        self.process = FORK.Process(target=_live, args=arguments)
        self.process.start()

    def end(self) -> int:
        """Its exit code: below zero, ended by that signal."""
        self.process.join(120)
        assert self.process.exitcode is not None
        return self.process.exitcode

    def said(self) -> list[str]:
        """Its remarks, and the error that ended it, since the last time."""
        lines = []
        while not self.lines.empty():
            lines.append(self.lines.get())
        return lines

    def kill(self) -> None:
        self.process.kill()


def _live(out, at_event, limit, double, environment, lines, began, options):
    multiprocessing.set_start_method(None, force=True)  # it would be the one by which this process was made
    os.environ.update(environment)
    if double:
        torch.set_default_dtype(torch.float64)
        torch.Tensor.float = torch.Tensor.double
    torch.set_num_threads(1)
    if at_event:
        _die_at(out, at_event)
    if limit:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    def report(at):
        began.set()

    options = {"device": "cpu", **options}
    try:
        result = train(out=out, report=report, log=lines.put, **options)
        (Path(out).parent / "result.json").write_text(json.dumps(result), "utf-8")
    except MTAnimateError as error:
        lines.put(str(error))
        sys.exit(error.exit_code)


def _die_at(folder: str, number: int) -> None:
    count = 0

    def hook(event, arguments):
        nonlocal count
        named = arguments and isinstance(arguments[0], (str, os.PathLike)) and str(arguments[0]).startswith(folder)
        if named and event in ("open", "os.rename", "os.remove", "os.truncate", "os.mkdir"):
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
                threading.Event().wait()

    sys.addaudithook(hook)


# What a run left


def log(folder: Path) -> list[dict]:
    """Its lines without times, which differ."""
    entries = [json.loads(line) for line in (folder / "log.jsonl").read_text("utf-8").splitlines()]
    return [{k: v for k, v in entry.items() if k not in ("samples_per_second", "data_wait")} for entry in entries]


def load_all(folder: Path) -> int:
    """Read every checkpoint and the state that there are; how many they are."""
    files = sorted((folder / "checkpoints").glob("[!.]*"))
    for file in files:
        read_checkpoint(file)
    states = sorted((folder / "state").glob("[!.]*"))
    for file in states:
        torch.load(file, weights_only=True)
    return len(files) + len(states)


def differing(first, second, where="") -> list[str]:
    """Where two nested containers of tensors, numbers and text differ, to the bit."""
    if isinstance(first, dict) and isinstance(second, dict):
        found = [f"{where}.{key} is in one only" for key in first.keys() ^ second.keys()]
        return found + [
            x for key in first.keys() & second.keys() for x in differing(first[key], second[key], f"{where}.{key}")
        ]
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)) and len(first) == len(second):
        return [
            x
            for i, (one, other) in enumerate(zip(first, second, strict=True))
            for x in differing(one, other, f"{where}[{i}]")
        ]
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return [] if torch.equal(first, second) else [where]
    return [] if first == second else [f"{where}: {first!r}, {second!r}"]


def assert_same_end(first: Path, second: Path) -> None:
    """Two runs' logs, states and checkpoints are the same to the bit, and neither left anything half written."""
    assert log(first) == log(second)
    one, other = (torch.load(run / "state" / "last.pt", weights_only=True) for run in (first, second))
    assert differing(one, other) == []
    names = [sorted(file.name for file in (run / "checkpoints").iterdir()) for run in (first, second)]
    assert names[0] == names[1]
    for name in names[0]:
        read = [read_checkpoint(run / "checkpoints" / name).animator.state_dict() for run in (first, second)]
        assert differing(*read) == []
    for run in (first, second):
        assert list(run.rglob(".*")) == []
