"""Memory of `mtanimate eval` against the number of videos.

    python benchmarks/eval_memory.py CLIP [--videos 200] [--frames 8] [--checkpoint default]

The data set is the first frames of CLIP, so many times. Every 20 videos it prints the resident memory of the process
and of those that look for landmarks (Linux: /proc).
"""

import argparse
import os
import shutil
import tempfile
from fractions import Fraction
from pathlib import Path

from machine import describe

from mtanimate.evaluation.evaluate import evaluate
from mtanimate.video import VideoReader, VideoWriter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--videos", type=int, default=200)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--checkpoint", default="default")
    options = parser.parse_args()
    print(describe())
    with tempfile.TemporaryDirectory() as name:
        clips = Path(name) / "clips"
        clips.mkdir()
        os.environ["MTANIMATE_CACHE"] = str(Path(name) / "cache")
        frames = next(VideoReader(options.clip).batches(options.frames))
        first = clips / "000.mp4"
        with VideoWriter(first, fps=Fraction(25), width=frames.shape[2], height=frames.shape[1]) as writer:
            writer.write(frames)
        for number in range(1, options.videos):
            shutil.copy(first, clips / f"{number:03d}.mp4")
        evaluate(options.checkpoint, clips, out=Path(name) / "out", progress=report)


def report(done: int, total: int, note: str = "") -> None:
    if done % 20 == 0:
        own, *workers = resident(os.getpid()), *(resident(child) for child in children(os.getpid()))
        print(f"{done} of {total} videos: {own} MiB, workers {' '.join(map(str, workers))} MiB", flush=True)


def resident(process: int) -> int:
    """MiB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS")), 0)


def children(process: int) -> list[int]:
    tasks = Path(f"/proc/{process}/task").iterdir()
    found = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    return sorted(child for child in found if resident(child) > 100)


if __name__ == "__main__":
    main()
