"""Frames a second of `mtanimate animate`, of its network alone, and the command's start.

    python benchmarks/animate_speed.py [--checkpoint default] [--frames 64] [--runs 5] [--driving talk.mp4]

From file to finished file, and the network alone, take turns, in the precision that the command chooses here. The
driving clip is a synthetic 256 x 256 video made on the spot, so that anyone can run it; --driving takes a video of
yours, with its sound. --checkpoint: an exported folder, too. The start is the command on a driving video of one frame,
from the prompt to the finished file. Medians over the runs, after one warm-up run.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from machine import describe
from torch import Tensor

from mtanimate.animation.animate import Result, animate
from mtanimate.inference.engine import PreparedNetwork
from mtanimate.inference.loading import Network, load_network
from mtanimate.inference.predictor import Predictor
from mtanimate.video import VideoWriter, write_image


def moving_gradient(frames: int, side: int = 256) -> np.ndarray:
    y, x = np.mgrid[:side, :side]
    shifted = [np.stack([x + 2 * t, y + t, x + y - t], axis=-1) for t in range(frames)]
    return (127 + 127 * np.sin(np.stack(shifted) / 20)).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--checkpoint", default="default")
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--driving", type=Path)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    print(describe())
    loaded = load_network(options.checkpoint, options.device)
    print(loaded.describe())
    pictures = torch.from_numpy(moving_gradient(options.frames, loaded.resolution)).permute(0, 3, 1, 2).contiguous()
    predictor = Predictor.of(loaded, print)
    network = drive_all(predictor, pictures, predictor.batch_size)
    clip = moving_gradient(options.frames)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_image(folder / "source.png", clip[0])
        for file, frames in (("driving.mp4", clip), ("one.mp4", clip[:1])):
            with VideoWriter(folder / file, fps=Fraction(25), width=256, height=256) as writer:
                writer.write(frames)
        driving = options.driving or folder / "driving.mp4"
        alone, whole = [], []
        for turn in range(options.runs + 1):
            result = file_to_file(
                folder / "source.png", driving, folder / "out.mp4", options.checkpoint, options.device
            )
            seconds = seconds_of(network)
            if turn:
                whole.append(result.frames_per_second)
                alone.append(options.frames / seconds)
        share = statistics.median(one / other for one, other in zip(whole, alone, strict=True))
        print(f"network alone: {statistics.median(alone):.2f} frames/s")
        print(f"file to finished file, after loading: {statistics.median(whole):.2f} frames/s, {share:.0%} of that")

        command = [sys.executable, "-m", "mtanimate", "animate", "--checkpoint", options.checkpoint, "--overwrite"]
        files = {"--source": "source.png", "--driving": "one.mp4", "--out": "one-out.mp4"}
        command += [part for option, file in files.items() for part in (option, str(folder / file))]
        starts = [seconds_of(lambda: subprocess.run(command, check=True, capture_output=True)) for _ in range(4)][1:]
        print(f"from the prompt to a finished video of one frame: {statistics.median(starts):.2f} s")


def file_to_file(source: Path, driving: Path, out: Path, checkpoint: str, device: str) -> Result:
    """Animated as the command does it; its frames a second are those after loading."""
    return animate(source, driving, out, checkpoint=checkpoint, device=device, overwrite=True)


def network_alone(
    network: Network | PreparedNetwork, precision: str, pictures: Tensor, batch: int
) -> Callable[[], Tensor]:
    """pictures: uint8 (T, 3, R, R), the first of which they drive."""
    return drive_all(Predictor(network, precision, print), pictures, batch)


def drive_all(predictor: Predictor, pictures: Tensor, batch: int) -> Callable[[], Tensor]:
    source = predictor.encode(pictures[:1])

    def run() -> Tensor:
        return torch.cat([predictor.drive(source, predictor.estimate(part)) for part in pictures.split(batch)])

    return run


def seconds_of(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
