"""Where figures go: PNG, SVG and PDF for one picture, a video for many."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import Tensor

from mtanimate.checkpoints.registry import file_given
from mtanimate.drawing.sheets import Sheet
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.files import replacing
from mtanimate.inspection.subject import Pair, Subject
from mtanimate.places import check_not_input
from mtanimate.video import VideoWriter, check_output, write_image
from mtanimate.video.encoding import CONTAINERS
from mtanimate.video.files import check_new_file

PICTURES = (".png", ".svg", ".pdf")

# Draws frames, uint8 (B, 3, R, R): for each the pictures of a sheet.
Paint = Callable[[Tensor], list[list[np.ndarray]]]


def is_video(out: Path) -> bool:
    return out.suffix.lower() in CONTAINERS and bool(out.suffix)


def check_figure(out: Path, overwrite: bool, subject: Subject, checkpoint: str) -> None:
    """Says before any work whether `out` can be written.

    Raises InputError for a format that is not written, a video of one picture, an input, and as `check_new_file`.
    """
    check_not_input("--out", out, [*subject.files, file_given(checkpoint)])
    if is_video(out):
        if not subject.is_driven:
            raise InputError(f"{out} would be a video of one picture: give a video as --driving, or end it in .png")
        check_output(out, overwrite)
        return
    if out.suffix.lower() not in PICTURES:
        raise InputError(f"{out}: a figure ends in one of {', '.join(PICTURES)}; with a driving video also in .mp4")
    check_new_file(out, overwrite)


def write_figure(
    out: Path, sheet: Sheet, pictures: list[np.ndarray], title: str, comment: str, overwrite: bool
) -> None:
    """PNG, SVG or PDF, whole or not at all; title and comment go into its metadata. Raises CameMeanwhile for a file
    that came to be there unless `overwrite`, MTAnimateError where writing fails."""
    kind = out.suffix.lower()
    if kind == ".png":
        write_image(out, sheet.filled(sheet.blank(), pictures), {"Title": title, "Comment": comment}, overwrite)
        return
    try:
        with replacing(out, overwrite) as partial:
            sheet.vector(partial, pictures, {"Title": title, "Description" if kind == ".svg" else "Subject": comment})
    except OSError as error:
        raise MTAnimateError(f"{out} could not be written ({error.strerror}): is the disk full?") from error


def write_video(
    out: Path,
    sheet: Sheet,
    pair: Pair,
    paint: Paint,
    title: str,
    comment: str,
    overwrite: bool,
    progress: Callable[..., None],
) -> None:
    """A figure a driving frame. Text and colour bars are drawn once. Raises as `write_figure`."""
    blank, done = sheet.blank(), 0
    writer = VideoWriter(
        out,
        fps=pair.fps,
        times=pair.times,
        width=sheet.width,
        height=sheet.height,
        title=title,
        comment=comment,
        overwrite=overwrite,
    )
    with writer:
        for batch in pair.batches():
            for pictures in paint(batch):
                writer.write(sheet.filled(blank, pictures)[None])
            done += len(batch)
            progress(done, pair.length)
