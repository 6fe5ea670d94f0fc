"""Files that are opened for reading: no pipes or devices, no more text than there can be, and JSON within limits."""

import json
import math
import os
import re
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

from mtanimate.errors import InputError

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
