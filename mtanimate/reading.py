"""Files that are opened for reading: no pipes or devices, no more text than there can be, and JSON within limits."""

import csv
import io
import json
import math
import os
import re
import zlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO
from zipfile import BadZipFile, ZipFile

from mtanimate.errors import InputError

if TYPE_CHECKING:  # the command line reads this module before it answers --help: NumPy is imported where it is needed
    import numpy as np

MOST_TEXT = 256 << 20  # bytes: the index of a cache of half a million clips
_DEEPEST = 50
_MOST_DIGITS = 40
_FRACTION = re.compile(rf"-?[0-9]{{1,{_MOST_DIGITS}}}(/[0-9]{{1,{_MOST_DIGITS}}})?")


def check_regular(path: Path) -> None:
    """Raises InputError for a pipe, a socket or a device: opening one may wait for ever, reading one may never end.
    A folder, and what is missing, pass: opening them says so."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise InputError(f"'{path}' is a pipe or a device: give a regular file")


def open_regular(path: Path) -> BinaryIO:
    """The file, open to read bytes. Raises InputError as `check_regular`, OSError where it cannot be opened."""
    check_regular(path)
    return path.open("rb")


def read_bytes(path: Path, most: int = MOST_TEXT) -> bytes:
    """What the file holds. Raises InputError as `check_regular` and for more than `most` bytes, OSError where it cannot
    be read."""
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > most:
            raise InputError(f"'{path}' has more than {most} bytes, which no file of its kind needs")
        return file.read()


def read_text(path: Path, most: int = MOST_TEXT, encoding: str = "utf-8") -> str:
    """As `read_bytes`. Raises UnicodeDecodeError, too."""
    return read_bytes(path, most).decode(encoding)


def read_json(path: Path, most: int = MOST_TEXT) -> Any:
    """The value in a JSON file. Raises as `read_text` and `parse_json`."""
    return parse_json(read_text(path, most))


def parse_json(text: str | bytes) -> Any:
    """The value that JSON text stands for.

    Raises ValueError where it is no JSON, nested more than 50 times, or holds a number that is not finite or has more
    than 40 digits before its point.
    """
    try:
        value = json.loads(text, parse_int=_whole, parse_float=_finite, parse_constant=_finite)
    except RecursionError as error:
        raise ValueError(f"it is nested more than {_DEEPEST} times") from error
    level = [value]
    for _ in range(_DEEPEST + 1):
        level = [part for each in level if isinstance(each, (dict, list)) for part in _parts(each)]
    if level:
        raise ValueError(f"it is nested more than {_DEEPEST} times")
    return value


def parse_fraction(text: Any) -> Fraction:
    """The number that "25" or "30000/1001" stands for. Raises ValueError for anything else: with an exponent, as in
    1e999999999, a few characters would become gigabytes."""
    if not (isinstance(text, str) and _FRACTION.fullmatch(text)):
        raise ValueError(f"{str(text)[:40]!r} is no fraction")
    try:
        return Fraction(text)
    except ZeroDivisionError as error:
        raise ValueError(f"{text!r} is no fraction") from error


def _parts(value: dict[str, Any] | list[Any]) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value


def _whole(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"{text[:20]}... is a number of {len(text)} digits")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is not a finite number")
    return value


MAX_PIXELS = 200_000_000  # what the largest phones' cameras take; 600 MB as RGB


def check_pixels(path: Path | str, width: int, height: int, most: int) -> None:
    """Raises InputError, naming the file and its size, for more than `most` pixels."""
    if width * height > most:
        raise too_large(path, f"{width} x {height} pixels", most)


def too_large(path: Path | str, size: str, most: int) -> InputError:
    return InputError(
        f"{path} has {size}, and {most} is the limit: make it smaller first, or raise the limit with --max-pixels, "
        "which animate, inspect and attention have"
    )


def read_array(file: IO[bytes], size: int) -> "np.ndarray":
    """An array of NumPy's format that fills `size` bytes, its header among them.

    Raises ValueError where it claims to be another size, or holds Python objects, OSError where it cannot be read.
    """
    import numpy as np

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


def read_npz(path: Path, names: Sequence[str], most: int, optional: Sequence[str] = ()) -> "dict[str, np.ndarray]":
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


def read_table(path: Path) -> "csv.DictReader[str]":
    """The rows of a CSV file by the names in its first line; commas, semicolons or tabs, whichever that line has most
    of, are between the cells. Raises as `read_text`, and csv.Error."""
    file = io.StringIO(read_text(path, encoding="utf-8-sig"), newline="")
    first = file.readline()
    file.seek(0)
    return csv.DictReader(file, delimiter=max(",;\t", key=first.count))
