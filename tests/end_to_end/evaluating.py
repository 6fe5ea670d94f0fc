"""Small clips, and `mtanimate eval` of them in this process."""

import json
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from commands import run_here
from drawn_face import scene

from mtanimate.metrics import detector_pool
from mtanimate.metrics.detector_pool import open_detector
from mtanimate.video import VideoWriter


def write_clip(path: Path, frames: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, fps=Fraction(25), width=frames.shape[2], height=frames.shape[1]) as writer:
        writer.write(frames)


def moving_face(frames: int, start: int) -> np.ndarray:
    """(frames, 64, 64, 3): a face that wanders to the right."""
    return np.stack([scene(64, 64, (start + t, 4 + t % 3, 50)) for t in range(frames)])


class InThisProcess:
    """Stands in for the pool of processes, each of which takes seconds to begin and to read its networks."""

    opened = staticmethod(cache(open_detector))

    def __init__(self, processes, context, begin, arguments) -> None:
        self.detector = self.opened(*arguments)

    def map(self, detect, *given):
        detector_pool._detector = self.detector
        return map(detect, *given)

    def shutdown(self, cancel_futures) -> None:
        pass


def evaluate(media: Path, clips: Path, out: Path, *options: object) -> dict:
    checkpoint = ["--checkpoint", media / "tiny.safetensors", "--dataset", clips, "--out", out]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detector_pool, "ProcessPoolExecutor", InThisProcess)
        done = run_here("eval", *checkpoint, "--workers", 1, "--json", *options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) | {"stderr": done.stderr}


def figures(result: dict) -> dict:
    """All but what changes from run to run."""
    return {key: value for key, value in result.items() if key not in ("stderr", "milliseconds_per_frame", "out")}
