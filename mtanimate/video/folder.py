"""A folder of pictures as a video: what data sets that were taken apart into frames look like."""

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import numpy as np

from mtanimate.errors import InputError
from mtanimate.pixels import MAX_PIXELS
from mtanimate.video.image import read_image
from mtanimate.video.timing import frames_between

PICTURE_SUFFIXES = {
    *(".png", ".apng", ".jpg", ".jpeg", ".jfif", ".webp", ".avif", ".heic", ".heif", ".hif", ".bmp", ".tif", ".tiff")
}


class FrameFolder:
    """The pictures in one folder, by number: frame 2 before frame 10. Reads as a `VideoReader` does.

    path: of the folder, or of one picture, which is a video of one frame.
    frame_count: int. width, height: pixels, of the first picture. has_audio: never.
    fps: pictures know no rate. variable, sound_offset, note: as a video's.
    Raises InputError where the folder holds no picture, or its first is broken or has more than `max_pixels`.
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
        """When each frame is shown, in seconds since the first is: ascending, as many as frames."""
        return [number / self.fps for number in range(self.frame_count)]

    def frames_between(self, start: float | None, end: float | None) -> range:
        """The numbers of the frames shown from `start` seconds up to but not including `end`; None: no limit.

        Raises InputError where no frame is left.
        """
        return frames_between(self.path, self.times, self.fps, start, end)

    def batches(self, batch_size: int, start: int = 0, stop: int | None = None, step: int = 1) -> Iterator[np.ndarray]:
        """Every `step`-th of the frames start ... stop - 1 (to the end by default), in order.

        Yields uint8 RGB (B, H, W, 3), B <= batch_size. Raises InputError as `frames`.
        """
        numbers = range(start, self.frame_count if stop is None else stop, step)
        for done in range(0, len(numbers), batch_size):
            yield self.frames(numbers[done : done + batch_size])

    def frames(self, indices: Sequence[int]) -> np.ndarray:
        """The frames of these numbers: uint8 RGB (N, H, W, 3).

        Raises InputError for a broken picture, or one of another size than the first.
        """
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


def is_picture(file: Path) -> bool:
    return file.suffix.lower() in PICTURE_SUFFIXES and not file.name.startswith(".")


def _by_number(file: Path) -> list[str | int]:
    parts = re.split(r"(\d+)", file.name)
    return [int(part) if part.isdigit() else part for part in parts]
