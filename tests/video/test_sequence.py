"""A folder of PNG: whole or not at all, and never in the place of somebody's files."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from moving import moving, names, write
from PIL import Image

from mtanimate.errors import InputError, MTAnimateError
from mtanimate.files import CameMeanwhile
from mtanimate.video import VideoReader, VideoWriter, check_output, read_image, write_image
from mtanimate.video.footage import FrameFolder

NOISE = np.random.default_rng(0).integers(0, 256, (12, 35, 51, 3), dtype=np.uint8)


@pytest.mark.parametrize("path", ["{}/a", "{}/v1.2/", "{}/a/"])
def test_what_is_written_is_read_back(tmp_path: Path, path: str) -> None:
    given = path.format(tmp_path)
    writer = write(given, NOISE, codec=None if given.endswith("/") else "png", title="Zoë's ✓", comment="by hand")
    assert not writer.audio
    folder = FrameFolder(given)
    np.testing.assert_array_equal(folder.frames(range(12)), NOISE)
    assert names(Path(given)) == [f"{n:07d}.png" for n in range(12)]
    assert len(names(tmp_path)) == 1
    with Image.open(Path(given) / "0000003.png") as picture:
        assert picture.info == {"Title": "Zoë's ✓", "Comment": "by hand", "Software": "mtanimate"}


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    write(tmp_path / "a", NOISE, codec="png")
    assert len(names(tmp_path / "a")) == 12
    assert names(tmp_path) == ["a"]


def test_an_older_sequence_of_ours_is_replaced_only_when_asked(tmp_path: Path) -> None:
    write(tmp_path / "a", NOISE, codec="png")
    with pytest.raises(InputError, match="exists already"):
        write(tmp_path / "a", NOISE[:3], codec="png")
    assert len(names(tmp_path / "a")) == 12
    write(tmp_path / "a", NOISE[:3], codec="png", overwrite=True)
    assert names(tmp_path / "a") == ["0000000.png", "0000001.png", "0000002.png"]
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("other", ["notes.txt", "0000012.png", ".hidden", "more/0000000.png"])
def test_other_files_are_never_touched(tmp_path: Path, other: str) -> None:
    """A picture of somebody's, too, though its name is like ours."""
    write(tmp_path / "a", NOISE, codec="png")
    file = tmp_path / "a" / other
    file.parent.mkdir(exist_ok=True)
    if file.suffix == ".png":
        write_image(file, NOISE[0])
    else:
        file.write_text("precious")
    before = file.read_bytes()
    with pytest.raises(InputError, match="holds other files"):
        write(tmp_path / "a", NOISE, codec="png", overwrite=True)
    assert file.read_bytes() == before


def test_files_that_come_in_meanwhile_are_kept(tmp_path: Path) -> None:
    write(tmp_path / "a", NOISE, codec="png")

    def rewrite() -> None:
        with VideoWriter(tmp_path / "a", fps=25, width=51, height=35, codec="png", overwrite=True) as writer:
            writer.write(NOISE[:2])
            (tmp_path / "a" / "notes.txt").write_text("precious")

    with pytest.raises(CameMeanwhile):
        rewrite()
    assert (tmp_path / "a" / "notes.txt").read_text() == "precious"
    assert names(tmp_path) == ["a"]
    assert len(names(tmp_path / "a")) == 13


def test_a_file_in_the_folders_place(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("precious")
    with pytest.raises(InputError, match="is a file"):
        check_output(tmp_path / "a", True, "png")


def test_a_break_leaves_what_was_there(tmp_path: Path) -> None:
    write(tmp_path / "a", NOISE, codec="png")

    def break_off() -> None:
        with VideoWriter(tmp_path / "a", fps=25, width=51, height=35, codec="png", overwrite=True) as writer:
            writer.write(NOISE[:2])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_off()
    assert names(tmp_path) == ["a"]
    assert len(names(tmp_path / "a")) == 12


def test_no_frames_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MTAnimateError, match="no frame"):
        write(tmp_path / "a", NOISE[:0], codec="png")
    assert not names(tmp_path)


@pytest.mark.parametrize("name", ["a/", "a.mkv", "a.gif"])
def test_a_full_disk_leaves_nothing(small_disk: Path, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (10, 96, 96, 3), dtype=np.uint8)
    codec = {"a.mkv": "ffv1"}.get(name)
    with pytest.raises(MTAnimateError, match="the disk is full") as caught:
        write(f"{small_disk}/{name}", np.tile(noise, (4, 1, 1, 1)), codec=codec)
    assert caught.value.exit_code == 1
    assert not names(small_disk)


ENDLESS = """
import sys
import numpy as np
from mtanimate.video import VideoWriter
with VideoWriter(sys.argv[1], fps=25, width=64, height=64) as writer:
    while True:
        writer.write(np.zeros((1, 64, 64, 3), np.uint8))
"""


@pytest.mark.parametrize("name", ["a/", "a.mp4", "a.gif"])
def test_a_killed_process_leaves_no_half_file_at_the_place(tmp_path: Path, name: str) -> None:
    process = subprocess.Popen([sys.executable, "-c", ENDLESS, f"{tmp_path}/{name}"])
    deadline = time.monotonic() + 60
    while not any(not file.is_dir() for file in tmp_path.rglob("*")):  # it has begun
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    time.sleep(0.5)  # ffmpeg ends what it has, out of sight
    assert all(left.startswith(".") for left in names(tmp_path))


def test_a_sequence_is_what_the_frames_of_a_lossless_video_are(tmp_path: Path) -> None:
    write(tmp_path / "a.mkv", moving(12), codec="ffv1")
    write(tmp_path / "a", moving(12), codec="png")
    frame = VideoReader(tmp_path / "a.mkv").frames([7])[0]
    np.testing.assert_array_equal(read_image(tmp_path / "a" / "0000007.png"), frame)
