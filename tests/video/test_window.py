"""The window, on a display that nobody sees."""

import itertools
import os
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mtanimate.animation.live import run_live
from mtanimate.errors import InputError
from mtanimate.models.motion import Motion
from mtanimate.video.streams import DrivingStream, StreamClosed
from mtanimate.video.window import Window

pytest.importorskip("tkinter", reason="this Python has no tkinter")

SIZE = (320, 240)  # of the screen


@pytest.fixture(scope="module")
def display():
    if shutil.which("Xvfb") is None:
        pytest.skip("Xvfb is not installed")
    reading, writing = os.pipe()
    command = ["Xvfb", "-displayfd", str(writing), "-screen", "0", f"{SIZE[0]}x{SIZE[1]}x24", "-nolisten", "tcp"]
    server = subprocess.Popen(command, pass_fds=[writing], stderr=subprocess.DEVNULL)
    os.close(writing)
    with os.fdopen(reading) as said:
        number = said.readline().strip()
    if not number:
        pytest.skip("Xvfb does not start")
    yield f":{number}"
    server.terminate()
    server.wait()


@pytest.fixture
def window(display, monkeypatch):
    monkeypatch.setenv("DISPLAY", display)
    with Window() as opened:
        yield opened


def halves(height: int, width: int, colour=(250, 20, 90)) -> np.ndarray:
    """Blue above, `colour` below."""
    frame = np.empty((height, width, 3), np.uint8)
    frame[: height // 2], frame[height // 2 :] = (20, 40, 230), colour
    return frame


def screen(display, run_ffmpeg) -> np.ndarray:
    size = f"{SIZE[0]}x{SIZE[1]}"
    arguments = ["-f", "x11grab", "-draw_mouse", "0", "-video_size", size, "-i", display, "-frames:v", "1"]
    raw = run_ffmpeg(*arguments, "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    return np.frombuffer(raw, np.uint8).reshape(SIZE[1], SIZE[0], 3)


def pixels_of(picture: np.ndarray, colour) -> int:
    return int((np.abs(picture.astype(int) - colour).max(axis=-1) < 6).sum())


def test_frames_are_on_the_screen(window, display, run_ffmpeg):
    for colour in [(250, 20, 90), (20, 200, 90)]:
        window.write(halves(100, 120, colour), 0.0)
        seen = screen(display, run_ffmpeg)
        assert pixels_of(seen, (20, 40, 230)) == 50 * 120
        assert pixels_of(seen, colour) == 50 * 120


def test_a_frame_larger_than_the_screen_shrinks(window, display, run_ffmpeg):
    window.write(halves(2000, 2000), 0.0)
    seen = screen(display, run_ffmpeg)
    assert pixels_of(seen, (20, 40, 230)) == pytest.approx(216 * 108, rel=0.05)
    assert pixels_of(seen, (250, 20, 90)) == pytest.approx(216 * 108, rel=0.05)


def press(window, key: str) -> None:
    window._root.focus_force()
    window._root.update()
    window._root.event_generate(f"<KeyPress-{key}>")


def test_r_asks_for_a_new_reference_once(window):
    window.attend()
    assert not window.reference_asked()
    press(window, "q")
    window.attend()
    assert not window.reference_asked()
    press(window, "r")
    window.attend()
    assert window.reference_asked()
    assert not window.reference_asked()


def test_escape_closes(window):
    window.attend()
    press(window, "Escape")
    with pytest.raises(StreamClosed):
        window.write(halves(20, 20), 0.0)


def test_the_windows_button_closes(window):
    window.attend()
    window._root.tk.eval(window._root.protocol("WM_DELETE_WINDOW"))
    with pytest.raises(StreamClosed):
        window.attend()


def test_live_until_escape(display, monkeypatch, run_ffmpeg):
    """The loop shows its results in the window, r makes a frame the reference, Esc ends it."""
    still = Motion(torch.zeros(1, 4, 2), torch.eye(2).expand(1, 4, 2, 2))
    moves = itertools.count()
    predictor = SimpleNamespace(
        resolution=64, estimate=lambda square: Motion(still.keypoints + next(moves), still.affine)
    )
    monkeypatch.setenv("DISPLAY", display)
    window, seen, moved = Window(), [], []

    def drive(frames, transfer, background):
        moved.append(float(transfer.onto(still, still, frames).keypoints[0, 0, 0]))
        if len(moved) == 6:
            seen.append(screen(display, run_ffmpeg))
            press(window, "r")
        if len(moved) == 10:
            press(window, "Escape")

    renderer = SimpleNamespace(drive=drive, compose=lambda driven: halves(64, 64)[None])

    with DrivingStream("lavfi:testsrc2=size=96x64:rate=50") as stream:
        report = run_live(predictor, renderer, stream, window)
    assert moved == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3]
    assert report.frames == 9  # the tenth came when the window was closed
    assert pixels_of(seen[0], (20, 40, 230)) == 32 * 64


@pytest.mark.parametrize("name", ["", ":97531"])
def test_without_a_display(monkeypatch, name):
    monkeypatch.setenv("DISPLAY", name)
    with pytest.raises(InputError, match="--out window: no window can be opened") as error:
        Window()
    assert "\n" not in str(error.value)


def test_without_tkinter(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tkinter", None)
    with pytest.raises(InputError, match="this Python has no tkinter"):
        Window()
