"""Whatever moves: a video, a folder of frames, or a single picture as a video of one frame."""

from pathlib import Path

from mtanimate.video.folder import FrameFolder, is_picture
from mtanimate.video.reader import VideoReader

Footage = VideoReader | FrameFolder
VIDEO_SUFFIXES = {".mp4", ".mov", ".mkv", ".m4v", ".webm", ".avi", ".gif", ".mpg", ".mpeg", ".ts", ".wmv", ".flv"}


def open_footage(path: Path, *, gpu: bool = False) -> Footage:
    """By what the name says; a GIF is a video. Raises InputError where it is missing or broken."""
    if path.is_dir() or is_picture(path):
        return FrameFolder(path)
    return VideoReader(path, gpu=gpu)


def is_moving(path: Path) -> bool:
    """Whether a source of this name is a video or a folder of frames, and no picture. A GIF is a picture here: of an
    animation its first frame."""
    return path.is_dir() or path.suffix.lower() in VIDEO_SUFFIXES - {".gif"}
