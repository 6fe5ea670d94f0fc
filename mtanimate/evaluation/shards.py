"""A part of an evaluation: every n-th clip, for one of n machines or GPUs."""

import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from mtanimate.errors import InputError, MTAnimateError

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count`, counted from 1."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """`2/4`. Raises InputError for anything else."""
        numbers = re.fullmatch(r"(\d+)/(\d+)", text)
        if not numbers or not 1 <= int(numbers[1]) <= int(numbers[2]):
            raise InputError(f"--shard {text}: expected I/N with I from 1 to N, as 2/4")
        return cls(int(numbers[1]), int(numbers[2]))

    def of(self, items: Sequence[T]) -> list[T]:
        """This part's items: every `count`-th, so that parts of a sorted data set take alike long."""
        return list(items[self.index - 1 :: self.count])


def run_shards(devices: Sequence[str], arguments: Sequence[str], progress: Callable[[], None]) -> None:
    """Run `mtanimate ARGUMENTS` once for each device, with its part of the clips, and wait for all of them.

    progress: called about once a second. Raises MTAnimateError where one of them failed; it has said why.
    """
    count = len(devices)
    processes = []
    for index, device in enumerate(devices, 1):
        own = ["--shard", f"{index}/{count}", "--device", device, "--quiet"]
        processes.append(subprocess.Popen([sys.executable, "-m", "mtanimate", *arguments, *own]))
    try:
        while any(process.poll() is None for process in processes):
            progress()
            time.sleep(1)
    finally:
        for process in processes:
            process.terminate()
    if any(process.wait() for process in processes):
        raise MTAnimateError("a part of the evaluation failed; what is measured is kept, and the same command goes on")
