"""Whether a process that animates all day grows: memory, threads, descriptors and files after 150 animations.

    python benchmarks/soak.py [--frames 100] [--every 15]

60 of videos, 60 of and into other formats, 30 rows of a jobs file, by a tiny network on synthetic clips of 64 x 64;
--frames each: 15,000 in all. Every so many a line is printed, and at last what the second half of each part added.
"""

import argparse
import csv
import gc
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from animate_speed import moving_gradient
from machine import describe
from PIL import Image

import mtanimate
from mtanimate.animation.jobs import run_jobs
from mtanimate.checkpoints.file import write_checkpoint
from mtanimate.config import (
    Config,
    DenseMotionConfig,
    GeneratorConfig,
    HRNetConfig,
    ModelConfig,
    MotionTransformerConfig,
)
from mtanimate.models.animator import Animator
from mtanimate.video import VideoWriter

SIDE = 64
WHOLE: dict[str, Any] = {"crop": "none", "driving_crop": "none", "device": "cpu", "overwrite": True}
DRIVING = ("talk.mp4", "talk.mkv", "talk.webm", "talk.mp4")
OTHERS = (("face.jpg", "frames", "o.gif"), ("face.webp", "talk.gif", "o/"), ("talk.mp4", "talk.webp", "o.mkv"))


@dataclass(frozen=True)
class State:
    """Of this process. memory: MiB resident. files: in the folder, the inputs' and the hidden ones, too."""

    memory: float
    threads: int
    descriptors: int
    children: int
    files: int

    @classmethod
    def now(cls, folder: Path) -> "State":
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        threads = len(os.listdir("/proc/self/task"))
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        files = sum(1 for _ in folder.rglob("*"))
        memory = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
        return cls(memory, threads, len(os.listdir("/proc/self/fd")), len(children), files)

    def __str__(self) -> str:
        return ", ".join(f"{each.name} {getattr(self, each.name):.0f}" for each in fields(self))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--every", type=int, default=15)
    options = parser.parse_args()
    print(describe())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder, options.frames)
        parts: dict[str, tuple[int, Callable[[int], None]]] = {
            "videos": (60, lambda number: of_videos(folder, number)),
            "other formats": (60, lambda number: of_others(folder, number)),
            "jobs": (30 // 5, lambda number: of_jobs(folder)),
        }
        for part, (count, work) in parts.items():
            states = list(soaked(part, count, options.every, folder, work))
            first, last = states[len(states) // 2], states[-1]
            added = (
                f"{each.name} {getattr(last, each.name) - getattr(first, each.name):+.0f}" for each in fields(State)
            )
            print(f"{part}: the second half added {', '.join(added)}", flush=True)
    print(f"Python's threads at last: {[thread.name for thread in threading.enumerate()]}")


def soaked(part: str, count: int, every: int, folder: Path, work: Callable[[int], None]) -> Iterator[State]:
    for number in range(1, count + 1):
        work(number)
        state = State.now(folder)
        if number % every == 0 or number in (1, count):
            print(f"{part} {number}: {state}", flush=True)
        yield state


def of_videos(folder: Path, number: int) -> None:
    driving = folder / DRIVING[number % len(DRIVING)]
    mtanimate.animate(folder / "face.png", driving, folder / "o.mp4", checkpoint=str(folder / "tiny.st"), **WHOLE)


def of_others(folder: Path, number: int) -> None:
    source, driving, out = OTHERS[number % len(OTHERS)]
    given = folder / source, folder / driving, f"{folder}/others/{out}"
    mtanimate.animate(*given, checkpoint=str(folder / "tiny.st"), **WHOLE)


def of_jobs(folder: Path) -> None:
    """Five rows, done anew."""
    (folder / "jobs.csv.report.jsonl").unlink(missing_ok=True)
    with (folder / "jobs.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("source", "driving", "out", "crop", "driving-crop"))
        rows.writerows(("face.png", "talk.mp4", f"job {number}.mp4", "none", "none") for number in range(5))
    report = run_jobs(folder / "jobs.csv", checkpoint=str(folder / "tiny.st"), device="cpu", overwrite=True)
    assert report.done == 5, report


def write_inputs(folder: Path, frames: int) -> None:
    """Videos, pictures and a network; and what the animations make, once, so that only what is too many is counted."""
    shown = np.resize(moving_gradient(25)[:, :SIDE, :SIDE], (frames, SIDE, SIDE, 3))
    for name in (*dict.fromkeys(DRIVING), "talk.gif"):
        with VideoWriter(folder / name, fps=Fraction(25), width=SIDE, height=SIDE) as writer:
            writer.write(shown)
    with VideoWriter(f"{folder}/frames/", fps=Fraction(25), width=SIDE, height=SIDE) as writer:
        writer.write(shown)
    first, *others = (Image.fromarray(frame) for frame in shown)
    first.save(folder / "talk.webp", save_all=True, append_images=others, duration=40)
    for kind in ("png", "jpg", "webp"):
        first.save(folder / f"face.{kind}")
    write_network(folder / "tiny.st")
    (folder / "others").mkdir()
    for number in range(len(OTHERS)):
        of_others(folder, number)
    of_videos(folder, 0)
    of_jobs(folder)


def write_network(path: Path) -> None:
    backbone = HRNetConfig(widths=(), stem_width=8, layer1_width=8, layer1_blocks=1)
    model = ModelConfig(
        resolution=SIDE,
        num_keypoints=4,
        estimator=MotionTransformerConfig(backbone=backbone, dim=32, layers=2, heads=4),
        dense_motion=DenseMotionConfig(block_expansion=8, max_features=16, num_blocks=2),
        generator=GeneratorConfig(block_expansion=8, max_features=16, num_bottleneck_blocks=1),
    )
    torch.manual_seed(0)
    write_checkpoint(path, Animator(model), Config(model), {"steps": 0})


if __name__ == "__main__":
    main()
