"""Peak memory of `mtanimate animate` against the length of the driving video.

    python benchmarks/animate_memory.py [--checkpoint default] [--seconds 10 300]

Each length runs in a process of its own; the peak is the largest resident set of that process, which ffmpeg's
processes are not part of. The videos are synthetic, 256 x 256, 25 frames a second.
"""

import argparse
import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

from animate_speed import moving_gradient
from machine import describe

from mtanimate.video import VideoWriter, write_image

MEASURED = """
import resource, sys, mtanimate
mtanimate.animate(*sys.argv[1:4], checkpoint=sys.argv[4], overwrite=True)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--checkpoint", default="default")
    parser.add_argument("--seconds", type=int, nargs="+", default=[10, 300])
    options = parser.parse_args()
    print(describe())
    second = moving_gradient(25)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_image(folder / "source.png", second[0])
        for length in options.seconds:
            driving = folder / f"{length}.mp4"
            with VideoWriter(driving, fps=Fraction(25), width=256, height=256) as writer:
                for _ in range(length):
                    writer.write(second)
            arguments = [
                str(folder / "source.png"),
                str(driving),
                str(folder / "out.mp4"),
                options.checkpoint,
            ]
            run = subprocess.run(
                [sys.executable, "-c", MEASURED, *arguments], capture_output=True, text=True, check=True
            )
            print(f"{length} s of driving video: peak {float(run.stdout):.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
