"""A part of an evaluation: every n-th clip, for one of n machines or GPUs."""

import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from mtanimate.errors import InputError, MTAnimateError
from mtanimate.signals import child_environment

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


def run_shards(devices: Sequence[str], arguments: Sequence[str]) -> None:
    """Run `mtanimate ARGUMENTS` once for each device, with its part of the clips, and wait for all of them.

    The first shows its progress, all say what goes wrong. Raises MTAnimateError where one of them failed.
    """
    processes = []
    for index, device in enumerate(devices, 1):
        own = ["--shard", f"{index}/{len(devices)}", "--device", device, *["--quiet"] * (index > 1)]
        command = [sys.executable, "-m", "mtanimate", *arguments, *own]
        processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, env=child_environment()))
    try:
        codes = [process.wait() for process in processes]
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
    killed = [-code for code in codes if code < 0]
    if killed:
        raise MTAnimateError(
            f"a part of the evaluation was ended by signal {killed[0]}: is memory short? What is measured is kept, "
            " and the same command goes on"
        )
    if any(codes):
        raise MTAnimateError("a part of the evaluation failed; what is measured is kept, and the same command goes on")
