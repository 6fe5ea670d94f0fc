"""The installed command, and small things to give it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from forks import Running
from typer.testing import CliRunner

from mtanimate.checkpoints.file import write_checkpoint
from mtanimate.cli import app
from mtanimate.config import BACKBONES, load_preset
from mtanimate.models.animator import Animator
from mtanimate.video import VideoWriter, write_image

COMMAND = Path(sys.executable).parent / "mtanimate"


def installed(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """The installed command with these arguments, to its end."""
    return subprocess.run([COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=180, **options)


def run_here(*arguments: object) -> subprocess.CompletedProcess[str]:
    """As `installed`, but in this process."""
    done = CliRunner().invoke(app, list(map(str, arguments)))
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


def interrupted(signal_number: signal.Signals, when: Callable[[], bool], *arguments: object) -> tuple[int, str]:
    """Start the command, send the signal as soon as `when()`, return its exit code and stderr."""
    deadline = time.monotonic() + 60
    with Running(*arguments) as running:
        while not when():
            assert running.process.is_alive(), f"it ended too early: {running.end()}"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(running.process.pid, signal_number)
        done = running.end(60)
    return done.returncode, done.stderr


def ffmpeg(*arguments: object) -> None:
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *map(str, arguments)], check=True)


def moving_disc(frames: int, side: int = 64) -> np.ndarray:
    """(frames, side, side, 3): a bright disc that wanders over a gradient."""
    y, x = np.mgrid[:side, :side]
    video = np.empty((frames, side, side, 3), np.uint8)
    for t in range(frames):
        centre = side / 2 + side / 5 * np.array([np.cos(t / 5), np.sin(t / 4)])
        disc = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < (side / 6) ** 2
        video[t] = np.stack([np.where(disc, 230, x), np.where(disc, 200, y), np.full_like(x, 90)], axis=-1)
    return video


def write_media(folder: Path, frames: int) -> Path:
    """face.png, talk.mp4 of so many frames, 25 a second, and tiny.safetensors (random weights). Returns the folder."""
    write_image(folder / "face.png", moving_disc(1)[0])
    with VideoWriter(folder / "talk.mp4", fps=25, width=64, height=64) as writer:
        writer.write(moving_disc(frames))
    config = tiny_config()
    write_checkpoint(folder / "tiny.safetensors", Animator(config.model), config, {"steps": 0})
    return folder


def tiny_config():
    """The small preset, as small as it goes: 64 x 64."""
    config = load_preset("small")
    backbone = replace(BACKBONES["hrnet_small"], widths=(8, 16, 32), stage2_blocks=(1, 1), stage3_blocks=(1, 1, 1))
    estimator = replace(config.model.estimator, backbone=backbone, dim=24, layers=2, scale_factor=1.0)
    dense_motion = replace(config.model.dense_motion, block_expansion=4, max_features=16, num_blocks=2)
    generator = replace(config.model.generator, block_expansion=4, max_features=16, num_bottleneck_blocks=1)
    model = replace(config.model, resolution=64, estimator=estimator, dense_motion=dense_motion, generator=generator)
    return replace(config, model=model)
