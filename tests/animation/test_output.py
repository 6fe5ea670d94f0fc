"""What a result's form says of who can play it."""

import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mtanimate.animation.results import hard_to_play
from mtanimate.video import VideoWriter
from mtanimate.video.ffmpeg import executable


@pytest.mark.parametrize(
    ("width", "height", "fps", "hard"),
    [
        (256, 256, 30, False),
        (3840, 2160, 60, False),
        (4096, 2304, 30, False),
        (3024, 4032, 30, True),
        (3840, 2160, 120, True),
        (6048, 8064, 25, True),
    ],
)
def test_h264_above_level_5_2_is_said(width: int, height: int, fps: int, hard: bool) -> None:
    said = hard_to_play(Path("o.mp4"), None, width, height, Fraction(fps))
    assert bool(said) == hard
    assert "\n" not in said
    for out, codec in (
        ("o.mp4", "h265"),
        ("o.webm", None),
        ("o", "png"),
        ("o.png", None),
        ("-", None),
        ("o.gif", None),
    ):
        assert hard_to_play(Path(out), codec, width, height, Fraction(fps)) == ""


@pytest.mark.parametrize(("width", "height"), [(3200, 2944), (3200, 2960)])
def test_it_is_said_where_the_file_says_it(tmp_path: Path, width: int, height: int) -> None:
    with VideoWriter(tmp_path / "o.mp4", fps=Fraction(25), width=width, height=height) as writer:
        writer.write(np.zeros((1, height, width, 3), np.uint8))
    command = [executable(), "-loglevel", "trace", "-i", tmp_path / "o.mp4", "-c", "copy", "-bsf:v", "trace_headers"]
    said = subprocess.run([*command, "-f", "null", "-"], capture_output=True, check=True).stderr.decode()
    level = int(next(line for line in said.splitlines() if "level_idc" in line).split("=")[-1])
    assert (level > 52) == bool(hard_to_play(tmp_path / "o.mp4", None, width, height, Fraction(25)))
