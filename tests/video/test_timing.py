"""When frames are shown, whether the rate is_variable, and which frames lie in a stretch of time."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtanimate.errors import InputError
from mtanimate.video import VideoReader, write_image
from mtanimate.video.footage import FrameFolder
from mtanimate.video.timing import frames_between, is_variable

X264 = ("-pix_fmt", "yuv420p", "-preset", "ultrafast")
NTSC = Fraction(30000, 1001)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", X264),
        ("a.mkv", X264),
        ("a.ts", ("-c:v", "mpeg2video", "-bf", "2")),
        ("a.avi", ("-c:v", "mpeg4", "-bf", "2")),  # which has times for some frames only
        ("a.gif", ()),
    ],
)
def test_a_constant_rate(make_video, name: str, options) -> None:
    reader = VideoReader(make_video(name, seconds=2, rate="25", options=options))
    assert (reader.fps, reader.variable, len(reader.times)) == (25, False, 50)
    assert max(abs(time - Fraction(n, 25)) for n, time in enumerate(reader.times)) <= Fraction(1, 1000)


@pytest.mark.parametrize(("name", "step"), [("a.mp4", 0), ("a.mkv", Fraction(1, 2000)), ("a.ts", 0)])
def test_a_varying_rate(make_video, name: str, step: Fraction) -> None:
    kept = "select='gt(n,50)+not(mod(n,3))'"
    reader = VideoReader(make_video(name, seconds=4, options=(*X264, "-vf", kept, "-fps_mode", "vfr")))
    expected = [Fraction(n, 25) for n in range(100) if n > 50 or n % 3 == 0]
    assert reader.variable
    assert all(abs(time - true) <= step for time, true in zip(reader.times, expected, strict=True))


def test_where_the_picture_begins_on_the_files_clock(make_video, run_ffmpeg, tmp_path: Path) -> None:
    path = make_video("a.mp4", sound=1, options=X264)
    assert VideoReader(path).sound_offset == 0
    late = ["-itsoffset", "0.52", "-i", path, "-i", path, "-map", "0:v", "-map", "1:a", "-c", "copy"]
    for name in ("late.mp4", "late.mkv", "late.ts"):
        run_ffmpeg(*late, tmp_path / name)
        reader = VideoReader(tmp_path / name)
        assert float(reader.sound_offset) == pytest.approx(0.52, abs=0.025)  # the sound's lead-in may count
        assert (reader.times[0], reader.times[-1]) == (0, Fraction(24, 25))


@given(rate=st.sampled_from([24, 25, NTSC, 50, 2 * NTSC]), unit=st.sampled_from([100, 1000, 90000]))
def test_rounded_times_of_a_constant_rate_do_not_vary(rate: Fraction, unit: int) -> None:
    tick = Fraction(1, unit)
    times = [round(n / rate / tick) for n in range(200)]
    assert not is_variable(times, tick, Fraction(rate))
    times[120:] = [time + round(1 / rate / tick) for time in times[120:]]  # one frame is held
    assert is_variable(times, tick, Fraction(rate))


def test_a_single_frame_does_not_vary() -> None:
    assert not is_variable([7], Fraction(1, 25), Fraction(25))


TIMES = [n / NTSC for n in range(300)]


def _between(start: float | None, end: float | None) -> range:
    return frames_between(Path("a.mp4"), TIMES, NTSC, start, end)


def test_frames_between() -> None:
    assert _between(None, None) == _between(0, 1000) == range(300)
    assert _between(1.001, 2.002) == range(30, 60)
    assert _between(0.067, None) == range(2, 300)  # 2 / 29.97, as people type it
    assert _between(0.07, 0.14) == range(3, 5)
    parts = [_between(None, 3.3), _between(3.3, 7), _between(7, None)]
    assert [number for part in parts for number in part] == list(range(300))


@pytest.mark.parametrize(("start", "end"), [(10.01, None), (5, 5), (5, 4), (None, 0), (-1, None), (float("nan"), 3)])
def test_nothing_is_left(start: float | None, end: float | None) -> None:
    with pytest.raises(InputError, match=r"^a\.mp4 shows no frame from \S+ s.*: it is 10\.01 s long") as caught:
        _between(start, end)
    assert "\n" not in str(caught.value)


def test_a_folder_has_the_rate_it_is_given(tmp_path: Path) -> None:
    for number in range(5):
        write_image(tmp_path / f"{number}.png", np.zeros((2, 2, 3), np.uint8))
    folder = FrameFolder(tmp_path)
    assert (folder.fps, folder.variable, folder.sound_offset) == (25, False, 0)
    assert folder.times == [Fraction(n, 25) for n in range(5)]
    assert FrameFolder(tmp_path, fps=NTSC).times[4] == 4 / NTSC
    assert folder.frames_between(0.04, 0.12) == range(1, 3)
    with pytest.raises(InputError, match=r"0\.20 s long"):
        folder.frames_between(0.2, None)
