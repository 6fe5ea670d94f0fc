"""Writing a folder of PNG files, 0000000.png and on: all of them or none."""

import re
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from mtanimate.errors import MTAnimateError
from mtanimate.files import Overwrite, give_folder_name, hidden_beside
from mtanimate.video.image import open_lazily, png_text

_NAME = re.compile(r"\d{7,}\.png")
_MARK = "mtanimate"  # the software in each picture's metadata: only such pictures may be replaced


def is_our_sequence(folder: Path) -> bool:
    """Whether this is a folder that holds nothing but pictures written by `PictureFolder`."""
    return folder.is_dir() and all(
        _NAME.fullmatch(file.name) and file.is_file() and is_marked(file, _MARK) for file in folder.iterdir()
    )


def is_marked(file: Path, mark: str) -> bool:
    """Whether this is a picture whose metadata names `mark` as the software that made it."""
    try:
        with open_lazily(file) as picture:
            return picture.info.get("Software") == mark
    except Exception:  # Pillow raises errors of any type; such a file is none of ours
        return False


class PictureFolder:
    """Writes pictures to a hidden folder beside `path`, which is renamed to `path` at the end.

    Args:
        path: of the folder.
        text: metadata of each picture, by PNG's keywords ("Title", "Comment").
        overwrite: whether a folder that this class wrote before may be replaced.

    Raises:
        MTAnimateError: the folder cannot be made.
    """

    def __init__(self, path: Path, text: dict[str, str], overwrite: bool) -> None:
        self.path = path
        self._overwrite: Overwrite = is_our_sequence if overwrite else False
        self._text = png_text({**text, "Software": _MARK})
        self._count = 0
        self._partial = hidden_beside(path.with_name(f"{path.name}.png"))
        try:
            self._partial.mkdir()
        except OSError as error:
            raise self._failed(error) from error

    def write(self, frames: np.ndarray) -> None:
        """Adds frames, uint8 RGB (B, H, W, 3).

        Raises:
            MTAnimateError: writing failed, e.g. the disk is full.
        """
        try:
            for frame in frames:
                file = self._partial / f"{self._count:07d}.png"
                # A tenth larger than at Pillow's default level, in less than half the time.
                Image.fromarray(frame).save(file, pnginfo=self._text, compress_level=1)
                self._count += 1
        except OSError as error:
            raise self._failed(error) from error

    def finish(self) -> None:
        """Gives the folder its name, in the place of an empty folder or of an older sequence that may be replaced."""
        try:
            give_folder_name(self._partial, self.path, self._overwrite)
        except OSError as error:
            raise self._failed(error) from error

    def discard(self) -> None:
        """Removes what is not finished."""
        shutil.rmtree(self._partial, ignore_errors=True)

    def _failed(self, error: OSError) -> MTAnimateError:
        if error.errno in (28, 122):  # no space, no quota
            return MTAnimateError(f"{self.path}: the disk is full: free some space or choose another folder")
        return MTAnimateError(f"{self.path} could not be written: {error.strerror or error}")
