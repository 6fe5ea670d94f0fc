"""Where figures go: PNG, SVG and PDF for one picture, a video for many."""

import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from torch import Tensor

from mtanimate.checkpoints.registry import file_given
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.files import replacing
from mtanimate.inspection.sheets import Sheet
from mtanimate.inspection.subject import Pair, Subject
from mtanimate.outputs import check_new_file, check_not_input
from mtanimate.video import VideoWriter, check_output, write_image
from mtanimate.video.encoding import CONTAINERS

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


def check_raw(path: Path, overwrite: bool, inputs: Iterable[Path | None]) -> None:
    """Raises InputError unless an NPZ file can be written there, in the place of none of the inputs."""
    if path.suffix.lower() != ".npz":
        raise InputError(f"--raw {path}: the name of NumPy's archives ends in .npz")
    check_not_input("--raw", path, inputs)
    check_new_file(path, overwrite)


@contextmanager
def open_raw(
    path: Path | None, name: str, count: int, about: dict[str, np.ndarray], overwrite: bool
) -> Iterator[Callable[[Tensor], None]]:
    """Yields write(batch): float32 (B, ...), `count` of them in all, become the array `name`; about: arrays beside it.
    Without a path nothing is written.

    What `numpy.savez` writes, without a pickle, whole or not at all. Raises CameMeanwhile for a file that came to be
    there unless `overwrite`, MTAnimateError where writing fails.
    """
    if path is None:
        yield lambda batch: None
        return
    try:
        with replacing(path, overwrite) as partial, zipfile.ZipFile(partial, "w") as archive:
            for key, array in about.items():
                with archive.open(f"{key}.npy", "w") as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                begun = False

                def write(batch: Tensor) -> None:
                    nonlocal begun
                    array = batch.cpu().numpy().astype("<f4")
                    if not begun:
                        header = {"descr": "<f4", "fortran_order": False, "shape": (count, *array.shape[1:])}
                        np.lib.format.write_array_header_1_0(member, header)
                        begun = True
                    member.write(array.tobytes())

                yield write
    except OSError as error:
        raise MTAnimateError(f"{path} could not be written ({error.strerror}): is the disk full?") from error
