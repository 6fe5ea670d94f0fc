"""NumPy's files that others wrote: the size that an array claims is compared with its file's before it is made."""

import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO
from zipfile import BadZipFile, ZipFile

import numpy as np

from mtanimate.reading import open_regular


def read_array(file: IO[bytes], size: int) -> np.ndarray:
    """An array of NumPy's format that fills `size` bytes, its header among them.

    Raises ValueError where it claims to be another size, or holds Python objects, OSError where it cannot be read.
    """
    start = file.tell()
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"an array of NumPy's format {version[0]}.{version[1]}")
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(file)
    claimed = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or claimed != size - (file.tell() - start):
        raise ValueError(f"an array {shape} of {dtype}, which takes {claimed} bytes, in {size}")
    file.seek(start)
    return np.lib.format.read_array(file, allow_pickle=False)


def read_npz(path: Path, names: Sequence[str], most: int, optional: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """The arrays of these names in an .npz file, and those of `optional` that it has.

    Raises ValueError where it is no such file, damaged, or unpacks to more than `most` bytes, KeyError where an array
    is missing, OSError where it cannot be read, InputError where it is no regular file.
    """
    try:
        with open_regular(path) as file, ZipFile(file) as archive:
            members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            if sum(member.file_size for member in members.values()) > most:
                raise ValueError(f"it unpacks to more than {most} bytes")
            wanted = [*names, *(name for name in optional if name in members)]
            arrays = {}
            for name in wanted:
                with archive.open(members[name]) as member:
                    arrays[name] = read_array(member, members[name].file_size)
            return arrays
    except (BadZipFile, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:  # RuntimeError: encrypted
        raise ValueError(str(error)) from error
