"""Probabilities as a NumPy archive, written as they come: a video's do not fit into memory."""

import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from torch import Tensor

from mtanimate.errors import InputError, MTAnimateError
from mtanimate.files import replacing
from mtanimate.places import check_not_input
from mtanimate.video.files import check_new_file


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
