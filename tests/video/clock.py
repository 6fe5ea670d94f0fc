"""Where flashes and clicks of a decoded file stand: the places of picture and sound, measured apart from our code."""

import re
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np

RATE = 48000


def flashes_and_clicks(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Seconds from the first shown frame at which the picture turns white, and at which a click begins.

    Everything is decoded; each frame and each piece of sound stands where the decoder says it stands.
    """
    grey = "scale=1:1:flags=area,format=gray,showinfo=checksum=0"
    raw, said = _decode(path, "-map", "0:V:0", "-vf", grey, "-fps_mode", "passthrough", "-f", "rawvideo")
    shown = np.array([float(time) for time in re.findall(r" n: *\d+ .*?pts_time:(\S+)", said)])
    white = np.frombuffer(raw, np.uint8) > 128

    samples = f"aformat=sample_fmts=flt:channel_layouts=mono:sample_rates={RATE},ashowinfo"
    raw, said = _decode(path, "-map", "0:a:0", "-af", samples, "-f", "f32le")
    pieces = re.findall(r" n:\d+ .*?pts_time:(\S+) .*? nb_samples:(\d+)", said)
    heard = np.concatenate([float(time) + np.arange(int(count)) / RATE for time, count in pieces])
    loud = np.abs(np.frombuffer(raw, np.float32)) > 0.25

    assert len(shown) == len(white)
    assert len(heard) == len(loud)
    return _beginnings(shown - shown[0], white), _beginnings(heard - shown[0], loud)


def _decode(path: Path, *arguments: str) -> tuple[bytes, str]:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin", "-copyts", "-i", path, *arguments, "-"]
    ran = subprocess.run(command, check=True, capture_output=True)
    return ran.stdout, ran.stderr.decode(errors="replace")


def _beginnings(times: np.ndarray, on: np.ndarray) -> np.ndarray:
    """The times at which something comes on that was off for a tenth of a second."""
    times = times[on]
    return times[np.diff(times, prepend=-1) > 0.1]
