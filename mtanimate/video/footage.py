"""Whatever moves: a video, a folder of frames, or a single picture as a video of one frame."""

from pathlib import Path

from mtanimate.pixels import MAX_PIXELS
from mtanimate.video.animated import AnimatedPicture
from mtanimate.video.folder import FrameFolder, is_picture
from mtanimate.video.image import is_animated
from mtanimate.video.reader import VideoReader

Footage = VideoReader | FrameFolder | AnimatedPicture
# By which videos are found in folders: what cameras, phones and editors write.
VIDEO_SUFFIXES = {
    *(".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".f4v", ".insv", ".lrv"),
    *(".mkv", ".webm", ".avi", ".divx", ".gif", ".wmv", ".asf", ".flv", ".ogv", ".ogm", ".rm", ".rmvb"),
    *(".mpg", ".mpeg", ".mpe", ".m1v", ".m2v", ".vob", ".ts", ".m2t", ".m2ts", ".mts", ".mod", ".tod"),
    *(".mxf", ".dv", ".nut", ".y4m", ".h264", ".h265", ".hevc", ".ivf", ".mj2", ".wtv"),
}


def open_footage(path: Path, *, gpu: bool = False, max_pixels: int = MAX_PIXELS) -> Footage:
    """By what the name says; a GIF is a video, an animated picture too. Raises InputError where it is missing,
    broken, or has more than `max_pixels` a frame."""
    if is_picture(path) and is_animated(path):
        return AnimatedPicture(path, max_pixels=max_pixels)
    if path.is_dir() or is_picture(path):
        return FrameFolder(path, max_pixels=max_pixels)
    return VideoReader(path, gpu=gpu, max_pixels=max_pixels)


def is_moving(path: Path) -> bool:
    """Whether a source of this name is a video, an animated picture or a folder of frames, and no still picture."""
    if path.is_dir():
        return True
    if path.suffix.lower() == ".gif" or is_picture(path):
        return is_animated(path)
    return path.suffix.lower() in VIDEO_SUFFIXES
