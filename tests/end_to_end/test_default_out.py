"""Where `mtanimate animate` writes without --out: a new file in the current folder, named after its inputs."""

from pathlib import Path

import numpy as np
import pytest
from commands import run_here
from PIL import Image

from mtanimate.cli.animate import default_out
from mtanimate.video import VideoReader, read_image, write_image


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with files to animate in another: faces and drivers of every kind."""
    folder = tmp_path / "elsewhere"
    (folder / "frames.of a walk").mkdir(parents=True)
    for name in ("face.png", "face.v2.png", "other.png", f"{'long' * 30}.png"):
        write_image(folder / name, np.zeros((8, 8, 3), np.uint8))
    pictures = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for name in ("waves.gif", "waves.webp"):
        pictures[0].save(folder / name, save_all=True, append_images=pictures[1:])
    for name in ("talk.mov", "kept.safetensors"):
        (folder / name).touch()
    current = tmp_path / "here"
    current.mkdir()
    monkeypatch.chdir(current)
    return folder


@pytest.mark.parametrize(
    ("source", "driving", "codec", "name"),
    [
        ("face.png", "talk.mov", None, "face-talk.mp4"),
        ("face.png", "kept.safetensors", None, "face-kept.mp4"),
        ("face.png", "frames.of a walk", None, "face-frames.of a walk.mp4"),
        ("face.png", "waves.gif", None, "face-waves.mp4"),
        ("face.png", "waves.webp", None, "face-waves.mp4"),
        ("face.png", "other.png", None, "face-other.png"),
        ("talk.mov", "other.png", None, "talk-other.mp4"),
        ("face.png", "talk.mov", "h265", "face-talk.mp4"),
        ("face.png", "talk.mov", "vp9", "face-talk.webm"),
        ("face.png", "talk.mov", "prores", "face-talk.mov"),
        ("face.png", "talk.mov", "ffv1", "face-talk.mkv"),
        ("face.png", "talk.mov", "gif", "face-talk.gif"),
        ("face.png", "talk.mov", "png", "face-talk"),
        ("face.v2.png", "talk.mov", None, "face.v2-talk.mp4"),
        ("face.v2.png", "talk.mov", "png", "face_v2-talk"),
        ("face.png", "other.png", "gif", "face-other.gif"),
        ("face.png", "nowhere.mp4", None, "face-nowhere.mp4"),
        ("face.png", "talk.mov", "nosuch", "face-talk.mp4"),  # and the codec is refused later
    ],
)
def test_the_name(here, source, driving, codec, name):
    assert default_out(here / source, here / driving, codec, overwrite=False) == Path(name)


def test_a_long_name_is_cut(here):
    source = here / f"{'long' * 30}.png"
    assert len(default_out(source, source, None, overwrite=False).name) < 80


def test_what_is_there_stays_unless_it_may_be_replaced(here):
    names = []
    for _ in range(3):
        names.append(default_out(here / "face.png", here / "talk.mov", None, overwrite=False))
        names[-1].touch()
    assert [path.name for path in names] == ["face-talk.mp4", "face-talk-2.mp4", "face-talk-3.mp4"]
    assert default_out(here / "face.png", here / "talk.mov", None, overwrite=True) == names[0]
    Path("face-other.png").mkdir()  # a folder stands there too
    assert default_out(here / "face.png", here / "other.png", None, overwrite=False).name == "face-other-2.png"


def animate(media, driving, *more):
    files = ["--source", media / "face.png", "--driving", media / driving, "--checkpoint", media / "tiny.safetensors"]
    return run_here("animate", *files, "--crop", "none", "--driving-crop", "none", *more)


def test_the_result_is_written_there_and_named(media, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "face-silent.mp4").write_text("precious")
    done = animate(media, "silent.mp4", "--end", 0.2)
    assert done.returncode == 0, done.stderr
    assert "face-silent-2.mp4" in done.stdout
    assert VideoReader(tmp_path / "face-silent-2.mp4").frame_count == 6
    assert (tmp_path / "face-silent.mp4").read_text() == "precious"
    assert animate(media, "face.png").returncode == 0
    assert read_image(tmp_path / "face-face.png").shape == (64, 64, 3)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("driving", ["-", "webcam:0", "lavfi:testsrc"])
def test_a_stream_needs_an_out(media, tmp_path, monkeypatch, driving):
    monkeypatch.chdir(tmp_path)
    done = run_here("animate", "--source", media / "face.png", "--driving", driving)
    assert done.returncode == 2
    assert "--out" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_no_file_and_no_driving_is_no_name(media, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert animate(media, "tiny.safetensors").returncode == 2
    done = run_here("animate", "--source", media / "face.png")
    assert done.returncode == 2
    assert "--driving" in done.stderr
    done = run_here("animate", "--driving", media / "silent.mp4")
    assert done.returncode == 2
    assert "--source" in done.stderr
    assert not list(tmp_path.iterdir())
