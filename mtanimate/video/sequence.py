"""A folder of PNG out: 0000000.png and on, all of them or none."""

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

from mtanimate.errors import InputError, MTAnimateError
from mtanimate.files import aside, give_folder_name, hidden_beside
from mtanimate.video.image import open_lazily, png_text

_NAME = re.compile(r"\d{7,}\.png")
_MARK = {"Software": "mtanimate"}  # in each picture: what has it may be replaced by what has it


def is_our_sequence(folder: Path) -> bool:
    """Whether a folder holds nothing but pictures that `PictureFolder` wrote."""
    return all(_NAME.fullmatch(file.name) and _is_marked(file) for file in folder.iterdir())


def _is_marked(file: Path) -> bool:
    try:
        with open_lazily(file) as picture:
            return picture.info.get("Software") == _MARK["Software"]
    except OSError:
        return False


class PictureFolder:
    """Pictures that go to a hidden folder beside `path`, which takes its name when all is well.

    text: of each picture, by PNG's keywords ("Title", "Comment"). overwrite: an older sequence of ours.
    """

    def __init__(self, path: Path, text: dict[str, str], overwrite: bool) -> None:
        self.path = path
        self._overwrite = overwrite
        self._text = png_text({**text, **_MARK})
        self._count = 0
        self._partial = hidden_beside(path.with_name(f"{path.name}.png"))
        self._old: Path | None = None
        try:
            self._partial.mkdir()
        except OSError as error:
            raise self._failed(error) from error

    def write(self, frames: np.ndarray) -> None:
        """Adds frames: uint8 RGB (B, H, W, 3). Raises MTAnimateError where the disk is full."""
        try:
            for frame in frames:
                file = self._partial / f"{self._count:07d}.png"
                # A tenth larger than by Pillow's own level, in less than half the time.
                Image.fromarray(frame).save(file, pnginfo=self._text, compress_level=1)
                self._count += 1
        except OSError as error:
            raise self._failed(error) from error

    def finish(self) -> None:
        """Gives the folder its name: an empty one's place, or that of an older sequence of ours where it may."""
        try:
            if self._overwrite and self.path.exists():
                self._move_away()
            give_folder_name(self._partial, self.path)
        except OSError as error:
            raise self._failed(error) from error
        if self._old is not None:
            shutil.rmtree(self._old, ignore_errors=True)
            self._old = None

    def discard(self) -> None:
        """Removes what is not finished, and puts back what stood there."""
        shutil.rmtree(self._partial, ignore_errors=True)
        if self._old is not None:
            with suppress(OSError):
                os.replace(self._old, self.path)

    def _move_away(self) -> None:
        """A folder cannot replace a full one. Looked at once more: others may have put files there meanwhile."""
        self._old = aside(self.path)
        os.replace(self.path, self._old)
        if not self._old.is_dir() or not is_our_sequence(self._old):
            raise InputError(f"{self.path} was not written: other files came into it meanwhile")

    def _failed(self, error: OSError) -> MTAnimateError:
        if error.errno in (28, 122):  # no space, no quota
            return MTAnimateError(f"{self.path}: the disk is full: free some space or choose another folder")
        return MTAnimateError(f"{self.path} could not be written: {error.strerror or error}")
