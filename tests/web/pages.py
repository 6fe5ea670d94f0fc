"""Serving the page from this process."""

import os
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from mtanimate.video import VideoWriter

CHROMIUM = Path("/usr/bin/chromium")
# Without these, a browser that root starts ends at once, or asks for addresses of its own.
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
]
PATIENCE = 60_000  # milliseconds


def ffmpeg(*arguments: object) -> None:
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *map(str, arguments)], check=True)


def write_video(path: Path, frames: np.ndarray) -> None:
    silent, sound = path.with_suffix(".silent.mp4"), path.with_suffix(".m4a")
    with VideoWriter(silent, fps=Fraction(25), width=64, height=64) as writer:
        writer.write(frames)
    ffmpeg("-f", "lavfi", "-i", f"sine=duration={len(frames) / 25}", "-c:a", "aac", sound)
    ffmpeg("-i", silent, "-i", sound, "-c", "copy", path)


@dataclass
class Page:
    """A page that is served. private: The server's folder for files."""

    address: str
    private: Path
    runner: object


@contextmanager
def serving(media: Path, auth=None, **limits):
    pytest.importorskip("gradio", reason="needs the extra web")
    import uvicorn

    from mtanimate.inference.loading import load_network
    from mtanimate.web.running import Limits, Room, Runner
    from mtanimate.web.server import application, check_installed

    check_installed()
    room = Room(1.0)
    before = os.environ.get("GRADIO_TEMP_DIR")  # Gradio's, of the whole process: another server may be running
    loaded = load_network(str(media / "tiny.safetensors"), device="cpu", precision="fp32")
    runner = Runner(loaded, room, Limits(**limits), None)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        config = uvicorn.Config(
            application(runner, "127.0.0.1", auth), log_level="critical", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.05)
        yield Page(f"http://127.0.0.1:{listener.getsockname()[1]}", room.folder, runner)
        server.should_exit = True
        thread.join(10)
    room.close()
    if before is not None:
        os.environ["GRADIO_TEMP_DIR"] = before
