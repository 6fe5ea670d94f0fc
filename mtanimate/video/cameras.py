"""Cameras by number, as ffmpeg's input options on each system."""

import re
import subprocess
import sys
from pathlib import Path

from mtanimate.errors import InputError
from mtanimate.video.ffmpeg import executable

_DSHOW = re.compile(r'"([^"]+)" \(video\)')


def camera_arguments(number: int) -> list[str]:
    """ffmpeg's options that open camera `number`, from 0 on. Raises InputError where it is known not to be there."""
    if sys.platform == "darwin":  # it takes no rate but one that the camera names, and 30 every camera has
        return ["-f", "avfoundation", "-framerate", "30", "-i", f"{number}:none"]
    if sys.platform == "win32":
        names = _windows_cameras()
        if number >= len(names):
            raise InputError(f"webcam:{number}: there is {_listed(names)}")
        return ["-f", "dshow", "-i", f"video={names[number]}"]
    device = Path(f"/dev/video{number}")
    if not device.exists():
        raise InputError(f"webcam:{number}: there is no {device}, but {_listed(linux_cameras())}")
    return ["-f", "v4l2", "-i", str(device)]


def linux_cameras(folder: Path = Path("/dev")) -> list[str]:
    """/dev/video0, /dev/video2, ... by number."""
    found = [path for path in folder.glob("video*") if path.name[5:].isdecimal()]
    return [str(path) for path in sorted(found, key=lambda path: int(path.name[5:]))]


def _windows_cameras() -> list[str]:
    """The names of the cameras, in the order that DirectShow has them."""
    command = [executable(), "-hide_banner", "-f", "dshow", "-list_devices", "true", "-i", "dummy"]
    return dshow_names(subprocess.run(command, capture_output=True, check=False).stderr.decode(errors="replace"))


def dshow_names(listing: str) -> list[str]:
    """The cameras in ffmpeg's listing of DirectShow's devices."""
    return _DSHOW.findall(listing)


def _listed(cameras: list[str]) -> str:
    return ", ".join(cameras) if cameras else "no camera at all: plug one in, or drive with a video"
