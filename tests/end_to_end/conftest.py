"""Real files."""

import os
import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from commands import ffmpeg, moving_disc, tiny_config
from drawn_face import scene
from evaluating import moving_face, write_clip

from mtanimate.checkpoints.file import write_checkpoint
from mtanimate.models.animator import Animator
from mtanimate.video import VideoWriter, write_image


@pytest.fixture(scope="session")
def media(tmp_path_factory) -> Path:
    """A folder with face.png, talk.mp4 (20 frames with sound, 30000/1001), silent.mp4, long.mp4 (600 frames),
    tiny.safetensors (random weights)."""
    folder = tmp_path_factory.mktemp("media files ü")
    write_image(folder / "face.png", moving_disc(1)[0])
    with VideoWriter(folder / "silent.mp4", fps=Fraction(30000, 1001), width=64, height=64) as writer:
        writer.write(moving_disc(20))
    ffmpeg("-f", "lavfi", "-i", "sine=duration=1", "-c:a", "aac", folder / "sound.m4a")
    ffmpeg("-i", folder / "silent.mp4", "-i", folder / "sound.m4a", "-c", "copy", folder / "talk.mp4")
    with VideoWriter(folder / "long.mp4", fps=Fraction(25), width=64, height=64) as writer:
        for _ in range(12):
            writer.write(moving_disc(50))
    config = tiny_config()
    write_checkpoint(folder / "tiny.safetensors", Animator(config.model), config, {"steps": 0})
    return folder


@pytest.fixture(scope="session")
def clips(tmp_path_factory) -> Path:
    """A data set: in `test`, two people's faces, one in a folder of its own, and a disc; in `train`, a file."""
    folder = tmp_path_factory.mktemp("clips") / "talks ü"
    write_clip(folder / "test" / "ann__00.mp4", moving_face(9, 2))
    write_clip(folder / "test" / "more" / "bob__00.mp4", moving_face(7, 6))
    write_clip(folder / "test" / "disc__00.mp4", moving_disc(6))
    write_clip(folder / "train" / "cy__00.mp4", moving_disc(4))
    return folder


@pytest.fixture(scope="session")
def large_clips(tmp_path_factory) -> Path:
    """Two people's faces in 128 x 128."""
    folder = tmp_path_factory.mktemp("large clips")
    for name, start in (("ann__00", 4), ("bob__00", 12)):
        frames = [scene(128, 128, (start + 2 * t, 8 + 2 * (t % 3), 100)) for t in range(4)]
        write_clip(folder / f"{name}.mp4", np.stack(frames))
    return folder


@pytest.fixture
def evaluation_cache(tmp_path_factory, monkeypatch) -> None:
    monkeypatch.setenv("MTANIMATE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def small_disk(tmp_path) -> Path:
    """A file system of 8 KiB; skips where this user cannot mount one."""
    folder = tmp_path / "small disk"
    folder.mkdir()
    if (
        os.name != "posix"
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", folder], capture_output=True).returncode
    ):
        pytest.skip("needs the right to mount a small tmpfs")
    yield folder
    subprocess.run(["umount", folder], check=True)
