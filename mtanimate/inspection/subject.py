"""What a figure shows: one picture, or a source and its driving video, cropped and resized for the network."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtanimate.errors import InputError
from mtanimate.faces.detection import resize_frames
from mtanimate.faces.framing import Framing, frame_driving, frame_source, parse_crop, parse_face
from mtanimate.reading import MAX_PIXELS
from mtanimate.video import read_image
from mtanimate.video.footage import Footage, is_picture, open_footage
from mtanimate.video.image import is_animated

Log = Callable[[str], None]
Given = str | Path | None

PORTRAIT = Path(str(files("mtanimate") / "pictures" / "portrait.jpg"))
CREDIT = "Portrait: Eileen Collins, photographed by NASA (public domain)."
BATCH = 4  # frames computed at once


@dataclass(frozen=True)
class Subject:
    """The pictures of a figure, as the user names them.

    Attributes:
        image: a picture that is source and driving at once; without any picture, the portrait that ships.
        source: a picture.
        driving: a picture or a video.
        crop: as the option of `animate`; `driving_crop` and `face` too.
        max_pixels: the most pixels of a picture or a frame.
    """

    image: Path | None = None
    source: Path | None = None
    driving: Path | None = None
    crop: str = "auto"
    driving_crop: str = "auto"
    face: str = "largest"
    max_pixels: int = MAX_PIXELS

    @classmethod
    def of(cls, image: Given = None, source: Given = None, driving: Given = None, **options: Any) -> "Subject":
        """Makes a subject of paths, which may begin with `~`.

        Raises:
            InputError: files or crops do not fit each other.
        """
        paths = [None if path is None else Path(path).expanduser() for path in (image, source, driving)]
        subject = cls(paths[0], paths[1], paths[2], **options)
        subject.check()
        return subject

    def check(self) -> None:
        """Raises InputError where files or crops do not fit each other."""
        if self.image and (self.source or self.driving):
            raise InputError("--image is its own source and driving: give it, or --source with --driving")
        for given, missing in (("source", "driving"), ("driving", "source")):
            if getattr(self, given) and not getattr(self, missing):
                raise InputError(f"--{given} without --{missing}: give both, or one picture by --image")
        parse_crop(self.crop)
        parse_crop(self.driving_crop, "--driving-crop")
        if parse_face(self.face) == "all":
            raise InputError("--face all: a figure shows one face: give largest, or its number from the left")
        if self.face != "largest" and self.crop != "auto":
            raise InputError(f"--face {self.face} looks for faces, --crop {self.crop} does not: give one of them")

    @property
    def is_driven(self) -> bool:
        """Whether it is driven by a video."""
        return self.driving is not None and (not is_picture(self.driving) or is_animated(self.driving))

    @property
    def files(self) -> list[Path]:
        """All files that were given."""
        return [path for path in (self.image, self.source, self.driving) if path is not None]

    @property
    def credit(self) -> str:
        return "" if self.image or self.source else CREDIT

    def open(self, resolution: int, log: Log) -> "FigureInputs":
        """Reads and crops the pictures; the driving square is that of `animate`, one for all frames.

        Args:
            resolution: of the network, in pixels.
            log: gets warnings.

        Raises:
            InputError: a broken file, or a crop or face that is not there.
        """
        picture = read_image(self.image or self.source or PORTRAIT, log, max_pixels=self.max_pixels)
        # The portrait is cropped already, so that it needs no face detection.
        crop = parse_crop(self.crop if self.image or self.source else "none")
        (square,) = frame_source(picture, crop, parse_face(self.face), log)
        source = resize_frames(square.cut(picture[None]), resolution)
        if self.driving is None:
            return FigureInputs(source)
        footage = open_footage(self.driving, max_pixels=self.max_pixels)
        numbers = range(footage.frame_count)
        framing = frame_driving(footage, numbers, parse_crop(self.driving_crop, "--driving-crop"), False, log)
        return FigureInputs(source, footage, framing)


@dataclass(frozen=True)
class FigureInputs:
    """A source, and what drives it.

    Attributes:
        source: uint8 (1, 3, R, R).
        footage: the driving video; None: the source drives itself.
        framing: the square that is cut out of the video.
    """

    source: Tensor
    footage: Footage | None = None
    framing: Framing | None = None

    @property
    def length(self) -> int:
        return self.footage.frame_count if self.footage else 1

    @property
    def fps(self) -> Fraction:
        return self.footage.fps if self.footage else Fraction(1)

    @property
    def times(self) -> list[Fraction] | None:
        """When each frame is shown, in seconds, where the rate varies; else None."""
        return self.footage.times if self.footage and self.footage.variable else None

    def frame(self, number: int) -> Tensor:
        """A driving frame by number, uint8 (1, 3, R, R)."""
        if self.footage is None or self.framing is None:
            return self.source
        return self.framing.squares(self.footage.frames([number]), range(number, number + 1), self.source.shape[-1])

    def batches(self) -> Iterator[Tensor]:
        """All driving frames in order: uint8 (B, 3, R, R), B up to `BATCH`."""
        assert self.footage is not None
        assert self.framing is not None
        done = 0
        for batch in self.footage.batches(BATCH):
            yield self.framing.squares(batch, range(done, done + len(batch)), self.source.shape[-1])
            done += len(batch)


def as_image(frames: Tensor, device: torch.device) -> Tensor:
    """Converts uint8 (B, 3, R, R) to float in [0, 1] on the device."""
    return (frames.to(device).float() / 255).contiguous(memory_format=torch.channels_last)
