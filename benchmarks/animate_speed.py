"""Frames a second of `mtanimate animate`: the network alone, and from file to finished file.

    python benchmarks/animate_speed.py [--checkpoint default] [--frames 64] [--runs 5]

The driving clip is a synthetic 256 x 256 video made on the spot, so that anyone can run it: the work does not
depend on what is in a frame. Medians over the runs, after one warm-up run.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from machine import describe

from mtanimate.animation.animate import animate
from mtanimate.checkpoints.file import read_checkpoint
from mtanimate.checkpoints.registry import resolve
from mtanimate.devices import choose_device
from mtanimate.models.performer import Performer, Source
from mtanimate.video import VideoWriter, write_image


def moving_gradient(frames: int, side: int = 256) -> np.ndarray:
    y, x = np.mgrid[:side, :side]
    shifted = [np.stack([x + 2 * t, y + t, x + y - t], axis=-1) for t in range(frames)]
    return (127 + 127 * np.sin(np.stack(shifted) / 20)).astype(np.uint8)


def median_seconds(run: Callable[[], object], runs: int) -> float:
    run()
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--checkpoint", default="default")
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    print(describe())
    device = choose_device(options.device)
    clip = moving_gradient(options.frames)
    animator = read_checkpoint(resolve(options.checkpoint), device).animator
    side = animator.config.resolution
    tensor = torch.from_numpy(moving_gradient(options.frames, side)).permute(0, 3, 1, 2).contiguous()
    for precision in ("fp32", "bf16"):
        performer = Performer(animator, precision, print)
        source = performer.encode(tensor[:1])

        def network(performer: Performer = performer, source: Source = source) -> None:
            for part in tensor.split(performer.batch_size):
                performer.drive(source, performer.estimate(part))

        print(f"network alone, {precision}: {options.frames / median_seconds(network, options.runs):.2f} frames/s")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_image(folder / "source.png", clip[0])
        with VideoWriter(folder / "driving.mp4", fps=Fraction(25), width=256, height=256) as writer:
            writer.write(clip)
        rates = [
            animate(
                folder / "source.png",
                folder / "driving.mp4",
                folder / "out.mp4",
                checkpoint=options.checkpoint,
                device=options.device,
                overwrite=True,
            ).frames_per_second
            for _ in range(options.runs + 1)
        ][1:]
    print(f"file to finished file, after loading: {statistics.median(rates):.2f} frames/s")


if __name__ == "__main__":
    main()
