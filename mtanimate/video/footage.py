"""Footage: what can be read as a video - video files, folders of frames, and animated pictures."""

import re
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from functools import cached_property
from itertools import accumulate
from math import lcm
from pathlib import Path

import numpy as np
from PIL import Image

from mtanimate.errors import InputError
from mtanimate.reading import MAX_PIXELS, check_pixels, too_large
from mtanimate.video.image import is_animated, open_picture, read_image, to_rgb
from mtanimate.video.reader import VideoReader
from mtanimate.video.timing import frame_rate, frames_between, is_variable

_SHORTEST = Fraction(1, 100)  # seconds; like browsers, shorter or missing times become _USUAL
_USUAL = Fraction(1, 10)
_FINEST = 1_000_000  # ticks a second, where the frames' times have no coarser common step
# All frames are decoded when the file is opened: together they may have so many times the pixels of one.
_MOST_FRAMES_PIXELS = 100
PICTURE_SUFFIXES = {
    *(".png", ".apng", ".jpg", ".jpeg", ".jfif", ".webp", ".avif", ".heic", ".heif", ".hif", ".bmp", ".tif", ".tiff")
}
# Extensions by which videos are found in folders: those of cameras, phones and editors.
VIDEO_SUFFIXES = {
    *(".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".f4v", ".insv", ".lrv"),
    *(".mkv", ".webm", ".avi", ".divx", ".gif", ".wmv", ".asf", ".flv", ".ogv", ".ogm", ".rm", ".rmvb"),
    *(".mpg", ".mpeg", ".mpe", ".m1v", ".m2v", ".vob", ".ts", ".m2t", ".m2ts", ".mts", ".mod", ".tod"),
    *(".mxf", ".dv", ".nut", ".y4m", ".h264", ".h265", ".hevc", ".ivf", ".mj2", ".wtv"),
}


class AnimatedPicture:
    """The frames of an animated WebP, PNG or AVIF; has the methods of `VideoReader`.

    All frames are decoded once to learn when they are shown.

    Args:
        path: of the file.
        max_pixels: the most pixels of a frame; all together may have a hundred times as many.

    Attributes:
        As of `VideoReader`.

    Raises:
        InputError: a frame is broken, or there are more pixels.
    """

    has_audio = False
    sound_offset = Fraction(0)
    note = ""

    def __init__(self, path: str | Path, *, max_pixels: int = MAX_PIXELS) -> None:
        self.path, self.max_pixels = Path(path), max_pixels
        lengths = []
        for picture in self._pictures():
            lengths.append(_seconds(picture))
            size = picture
        self.height, self.width = to_rgb(size).shape[:2]
        self.frame_count = len(lengths)
        if lcm(*(length.denominator for length in lengths)) > _FINEST:
            lengths = [Fraction(max(round(length * _FINEST), 1), _FINEST) for length in lengths]
        # When each frame is shown, in seconds after the first, ascending.
        self.times: list[Fraction] = list(accumulate(lengths[:-1], initial=Fraction(0)))
        tick = Fraction(1, lcm(1000, *(length.denominator for length in lengths)))
        ticks = [int(time / tick) for time in self.times]
        self.fps = 1 / lengths[0] if len(set(lengths)) == 1 else frame_rate(ticks, tick, None)
        self.variable = is_variable(ticks, tick, self.fps)

    def frames_between(self, start: float | None, end: float | None) -> range:
        """As `VideoReader.frames_between`."""
        return frames_between(self.path, self.times, self.fps, start, end)

    def batches(self, batch_size: int, start: int = 0, stop: int | None = None, step: int = 1) -> Iterator[np.ndarray]:
        """As `VideoReader.batches`."""
        numbers = range(start, self.frame_count if stop is None else stop, step)
        pictures = self._pictures(numbers)
        for done in range(0, len(numbers), batch_size):
            yield np.stack([to_rgb(next(pictures)) for _ in numbers[done : done + batch_size]])

    def frames(self, indices: Sequence[int]) -> np.ndarray:
        """As `VideoReader.frames`."""
        wanted = np.asarray(indices, dtype=np.int64).reshape(-1)
        if len(wanted) and not 0 <= wanted.min() <= wanted.max() < self.frame_count:
            raise IndexError(f"frames {wanted.min()} to {wanted.max()} of a picture of {self.frame_count} frames")
        frames = np.empty((len(wanted), self.height, self.width, 3), np.uint8)
        numbers = np.unique(wanted).tolist()
        for number, picture in zip(numbers, self._pictures(numbers), strict=True):
            frames[wanted == number] = to_rgb(picture)
        return frames

    def _pictures(self, numbers: Iterable[int] | None = None) -> Iterator[Image.Image]:
        """Yields decoded frames by ascending number (None: all); each is valid until the next is asked for."""
        with open_picture(self.path, max_pixels=self.max_pixels) as picture:
            # A PNG may begin with a picture for viewers without animation, which is not part of it.
            first = 1 if picture.info.get("default_image") else 0
            if numbers is None:
                numbers = range(getattr(picture, "n_frames", 1) - first)
                if len(numbers) * picture.width * picture.height > _MOST_FRAMES_PIXELS * self.max_pixels:
                    size = f"{len(numbers)} frames of {picture.width} x {picture.height} pixels"
                    raise too_large(self.path, size, _MOST_FRAMES_PIXELS * self.max_pixels)
            for number in numbers:
                picture.seek(first + number)
                check_pixels(self.path, *picture.size, self.max_pixels)  # a GIF may grow
                picture.load()
                yield picture


class FrameFolder:
    """The pictures of a folder in the order of their numbers (2 before 10); has the methods of `VideoReader`.

    Args:
        path: of the folder, or of one picture, which is a video of one frame.
        fps: pictures have no rate of their own; frames a second.
        max_pixels: the most pixels of a picture.

    Attributes:
        As of `VideoReader`. The first picture sets width and height; has_audio is False.

    Raises:
        InputError: the folder holds no picture, or its first is broken or has more than `max_pixels`.
    """

    variable = False
    has_audio = False
    sound_offset = Fraction(0)

    def __init__(self, path: str | Path, *, fps: Fraction = Fraction(25), max_pixels: int = MAX_PIXELS) -> None:
        self.path, self.max_pixels = Path(path), max_pixels
        self.fps = fps
        self.files = [self.path]
        if self.path.is_dir():
            self.files = sorted((file for file in self.path.iterdir() if is_picture(file)), key=_by_number)
        if not self.files:
            raise InputError(f"{self.path} holds no pictures: give a folder of frames")
        self.frame_count = len(self.files)
        self.height, self.width = read_image(self.files[0], max_pixels=max_pixels).shape[:2]
        several = f"pictures know no rate: these {self.frame_count} are taken as {float(fps):g} a second"
        self.note = several if self.frame_count > 1 else ""

    @cached_property
    def times(self) -> list[Fraction]:
        """When each frame is shown, in seconds after the first, ascending, one for each frame."""
        return [number / self.fps for number in range(self.frame_count)]

    def frames_between(self, start: float | None, end: float | None) -> range:
        """As `VideoReader.frames_between`."""
        return frames_between(self.path, self.times, self.fps, start, end)

    def batches(self, batch_size: int, start: int = 0, stop: int | None = None, step: int = 1) -> Iterator[np.ndarray]:
        """As `VideoReader.batches`."""
        numbers = range(start, self.frame_count if stop is None else stop, step)
        for done in range(0, len(numbers), batch_size):
            yield self.frames(numbers[done : done + batch_size])

    def frames(self, indices: Sequence[int]) -> np.ndarray:
        """As `VideoReader.frames`; also raises InputError for a picture of another size than the first."""
        frames = np.empty((len(indices), self.height, self.width, 3), np.uint8)
        for row, index in zip(frames, indices, strict=True):
            picture = read_image(self.files[index], max_pixels=self.max_pixels)
            if picture.shape != row.shape:
                raise InputError(
                    f"{self.files[index]} is {picture.shape[1]} x {picture.shape[0]}, the folder's first picture "
                    f"{self.width} x {self.height}: frames of one video have one size"
                )
            row[...] = picture
        return frames


Footage = VideoReader | FrameFolder | AnimatedPicture


def open_footage(path: Path, *, gpu: bool = False, max_pixels: int = MAX_PIXELS) -> Footage:
    """Opens a video, a folder of frames, a picture or an animated picture, chosen by name and content.

    Args:
        path: of a file or folder.
        gpu: decode videos on a GPU, if possible.
        max_pixels: the most pixels of a frame.

    Returns:
        A reader with the methods of `VideoReader`.

    Raises:
        InputError: it is missing, broken, or has more than `max_pixels` a frame.
    """
    if is_picture(path) and is_animated(path):
        return AnimatedPicture(path, max_pixels=max_pixels)
    if path.is_dir() or is_picture(path):
        return FrameFolder(path, max_pixels=max_pixels)
    return VideoReader(path, gpu=gpu, max_pixels=max_pixels)


def is_moving(path: Path) -> bool:
    """Whether a path is a video, an animated picture or a folder of frames, and no still picture."""
    if path.is_dir():
        return True
    if path.suffix.lower() == ".gif" or is_picture(path):
        return is_animated(path)
    return path.suffix.lower() in VIDEO_SUFFIXES


def is_picture(file: Path) -> bool:
    """Whether a file is named as a picture, and is not hidden."""
    return file.suffix.lower() in PICTURE_SUFFIXES and not file.name.startswith(".")


def _seconds(picture: Image.Image) -> Fraction:
    """How long a frame is shown. Pillow has milliseconds; PNG stores a fraction of two 16-bit numbers."""
    length = Fraction(picture.info.get("duration", 0) / 1000).limit_denominator(65535)
    return length if length > _SHORTEST else _USUAL


def _by_number(file: Path) -> list[str | int]:
    parts = re.split(r"(\d+)", file.name)
    return [int(part) if part.isdigit() else part for part in parts]
