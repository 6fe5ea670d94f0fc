"""Where a result goes: a video, a folder of PNG, a single picture, or standard output."""

from collections.abc import Callable
from fractions import Fraction
from math import ceil
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from mtanimate.errors import InputError
from mtanimate.outputs import check_new_file
from mtanimate.video import VideoWriter, check_output, write_image
from mtanimate.video.encoding import choose_encoding, ends_in_slash
from mtanimate.video.streams import StreamWriter

STANDARD_OUTPUT = Path("-")
PICTURES = {".png", ".jpg", ".jpeg", ".webp"}
# Metadata that says what a result is.
MARK = {
    "title": "Synthetic video made with mtanimate",
    "comment": "AI-generated: a picture animated with the motion of another video",
}
# Of H.264's level 5.2: blocks of 16 x 16 pixels.
_MOST_BLOCKS, _MOST_BLOCKS_A_SECOND = 36_864, 2_073_600
_MOST_PIXELS_OF_H265 = 35_651_584  # of its highest level, 6.2


def codec_for(out: str | Path, codec: str | None) -> str | None:
    """The codec that `--codec` and the name of `out` ask for; None where the name's suffix decides.

    A name that ends in a slash is a folder of PNG. It must be a text, since a Path keeps no slash.
    """
    return "png" if codec is None and ends_in_slash(out) else codec


def check_result(out: Path, overwrite: bool, codec: str | None, crf: int | None) -> None:
    """Check before any work that `out` can be written. Raises InputError as `check_output` does."""
    if out == STANDARD_OUTPUT:
        if codec not in (None, "h264", "raw") or crf is not None:
            raise InputError("--out -: standard output takes --codec h264 (Matroska) or raw (Y4M), and no --crf")
        return
    if not _is_picture(out):
        check_output(out, overwrite, codec, crf)
        return
    if codec not in (None, "png") or crf is not None:
        raise InputError(f"{out} is a picture: --codec and --crf are for videos")
    check_new_file(out, overwrite)


def open_result(
    out: Path, *, frames: int, title: str | None = None, comment: str | None = None, **options: Any
) -> "VideoWriter | StreamWriter | Picture":
    """Open what the frames are written to, for a `with` statement.

    Args:
        out: A video, a folder of PNG, a picture, or "-" for standard output.
        frames: How many there will be.
        title: For the metadata.
        comment: For the metadata.
        **options: As `VideoWriter` takes them. An `out` that appeared since `check_result` is replaced only with
            `overwrite`.

    Raises:
        InputError: `out` is a picture and there are several frames.
    """
    if out == STANDARD_OUTPUT:
        text = {name: value for name, value in (("title", title), ("comment", comment)) if value}
        size = {"fps": options["fps"], "width": options["width"], "height": options["height"]}
        return StreamWriter(**size, codec=options["codec"] or "h264", text=text)
    if not _is_picture(out):
        return VideoWriter(out, title=title, comment=comment, **options)
    if frames > 1:
        raise InputError(f"{out} is one picture, and there are {frames} frames: end it with / for a folder, or .mp4")
    return Picture(
        out,
        {name: value for name, value in (("Title", title), ("Comment", comment)) if value},
        options["overwrite"],
        options.get("sign"),
    )


def hard_to_play(out: Path, codec: str | None, width: int, height: int, fps: Fraction) -> str:
    """Why many players will not show a result of this size and rate, and what to do. Empty where they will."""
    if out == STANDARD_OUTPUT or _is_picture(out) or choose_encoding(out, codec).name != "h264":
        return ""
    blocks = ceil(width / 16) * ceil(height / 16)
    if blocks <= _MOST_BLOCKS and blocks * fps <= _MOST_BLOCKS_A_SECOND:
        return ""
    instead = "--codec h265, " if width * height <= _MOST_PIXELS_OF_H265 else ""
    return (
        f"the result is {width} x {height}, {float(fps):.4g} frames a second, above H.264's level 5.2, which is the "
        f"last of many players: {instead}a smaller source, or --no-paste-back for the animated square alone"
    )


def _is_picture(out: Path) -> bool:
    return out.suffix.lower() in PICTURES


class Picture:
    """Takes one frame, and writes it at the end unless there was an error.

    text: by PNG's keywords. sign: as `write_image` takes it.
    """

    audio = False

    def __init__(
        self, path: Path, text: dict[str, str], overwrite: bool, sign: Callable[[Path], None] | None = None
    ) -> None:
        self.path, self._text, self._overwrite, self._sign = path, text, overwrite, sign
        self._frame: np.ndarray | None = None

    def write(self, frames: np.ndarray) -> None:
        """uint8 RGB (1, H, W, 3)."""
        (self._frame,) = frames

    def __enter__(self) -> "Picture":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._frame is not None:
            write_image(self.path, self._frame, self._text, self._overwrite, self._sign)
