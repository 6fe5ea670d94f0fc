"""Reading files that may be hostile: no pipes or devices, and limits on size, on nesting and on numbers."""

import csv
import io
import itertools
import json
import math
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO
from zipfile import BadZipFile, ZipFile

import yaml

from mtanimate.errors import InputError

if TYPE_CHECKING:  # the command line reads this module before it answers --help: NumPy is imported where it is needed
    import numpy as np

MOST_YAML = 1 << 20  # bytes of a file
_MOST_VALUES = 10_000  # of a YAML file, aliases written out
MOST_TEXT = 256 << 20  # bytes: the index of a cache of half a million clips
_DEEPEST = 50
_MOST_DIGITS = 40
_LONGEST_LINE = 1 << 20  # characters of a CSV file's line
_FRACTION = re.compile(rf"-?[0-9]{{1,{_MOST_DIGITS}}}(/[0-9]{{1,{_MOST_DIGITS}}})?")


def check_regular(path: Path) -> None:
    """Raises InputError for a pipe, a socket or a device, since opening it may wait for ever and reading it may never
    end. Folders and missing files pass: opening them raises OSError."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise InputError(f"'{path}' is a pipe or a device: give a regular file")


def check_readable(path: Path, kind: str) -> None:
    """Raises InputError, naming the `kind` of file, unless `path` is a file with something in it."""
    if path.is_dir():
        raise InputError(f"{path} is a folder: give one {kind}")
    if not path.exists():
        raise InputError(f"{path} does not exist: check the name of the {kind}")
    if not path.is_file():
        raise InputError(f"{path} is not a regular file: give a {kind}")
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise InputError(f"{path} cannot be opened ({error.strerror}): check its permissions") from error
    if empty:
        raise InputError(f"{path} is empty: copy or download the {kind} again")


def open_regular(path: Path) -> BinaryIO:
    """The file, open to read bytes. Raises InputError as `check_regular`, OSError where it cannot be opened."""
    check_regular(path)
    return path.open("rb")


def read_bytes(path: Path, most: int = MOST_TEXT) -> bytes:
    """The content of a file. Raises InputError as `check_regular` and for more than `most` bytes, OSError where it
    cannot be read."""
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > most:
            raise InputError(f"'{path}' has more than {most} bytes, which is more than any such file needs")
        return file.read()


def read_text(path: Path, most: int = MOST_TEXT, encoding: str = "utf-8") -> str:
    """The text of a file. Raises as `read_bytes`, and UnicodeDecodeError."""
    return read_bytes(path, most).decode(encoding)


def read_json(path: Path, most: int = MOST_TEXT) -> Any:
    """The value in a JSON file. Raises as `read_text` and `parse_json`."""
    return parse_json(read_text(path, most))


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: It is not JSON, is nested more than 50 times, or holds a number that is not finite or an integer of
            more than 40 digits.
    """
    try:
        text = text if isinstance(text, str) else text.decode(json.detect_encoding(text))
        value = _DECODER.decode(text)
    except RecursionError as error:
        raise ValueError(f"it is nested more than {_DEEPEST} times") from error
    if text.count("[") + text.count("{") <= _DEEPEST:
        return value
    level = [value]
    for _ in range(_DEEPEST + 1):
        level = [part for each in level if isinstance(each, (dict, list)) for part in _parts(each)]
        if not level:
            return value
    raise ValueError(f"it is nested more than {_DEEPEST} times")


def parse_fraction(text: Any) -> Fraction:
    """The number in a text such as "25" or "30000/1001". Raises ValueError for anything else: exponents are refused
    because "1e999999999" would take gigabytes."""
    if not (isinstance(text, str) and _FRACTION.fullmatch(text)):
        raise ValueError(f"{str(text)[:40]!r} is not a fraction")
    try:
        return Fraction(text)
    except ZeroDivisionError as error:
        raise ValueError(f"{text!r} is not a fraction") from error


def _parts(value: dict[str, Any] | list[Any]) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value


def _whole(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"{text[:20]}... is a number with {len(text)} digits")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is not a finite number")
    return value


_DECODER = json.JSONDecoder(parse_int=_whole, parse_float=_finite, parse_constant=_finite)

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
    """An array in NumPy's .npy format.

    Args:
        file: Open at the start of the array.
        size: How many bytes the array takes, with its header.

    Raises:
        ValueError: The header claims another size, or the array holds Python objects.
        OSError: The file cannot be read.
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
    """Arrays from an .npz file, by their names.

    Args:
        path: The file.
        names: Arrays that must be there.
        most: The most bytes that the file may unpack to.
        optional: Arrays that are read where they are there.

    Raises:
        ValueError: The file is not an .npz file, is damaged, or unpacks to more than `most` bytes.
        KeyError: An array is missing.
        OSError: The file cannot be read.
        InputError: The file is not a regular file.
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


@contextmanager
def read_table(path: Path) -> "Iterator[csv.DictReader[str]]":
    """The rows of a CSV file, by the column names in its first line, read as they are asked for.

    The delimiter is whichever of comma, semicolon and tab is most frequent in that line. The block may raise
    UnicodeDecodeError, and csv.Error. Raises as `open_regular`.
    """
    with io.TextIOWrapper(open_regular(path), encoding="utf-8-sig", newline="") as file:
        lines = _lines(file)
        first = next(lines, "")
        yield csv.DictReader(itertools.chain([first], lines), delimiter=max(",;\t", key=first.count))


def _lines(file: io.TextIOWrapper) -> Iterator[str]:
    while line := file.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE:
            raise csv.Error(f"a line has {_LONGEST_LINE} characters or more")
        yield line


def read_yaml(text: str) -> Any:
    """What the text says, of Python's own types.

    Raises ValueError, in one line, where it is no YAML, nested more than 50 times, or of more than 10,000 values, those
    that aliases repeat counted each time.
    """
    try:
        return yaml.load(text, _YAMLLoader)
    except (yaml.YAMLError, AttributeError, ArithmeticError, TypeError, ValueError) as error:  # of !!int x, 2001-99-99
        raise ValueError(" ".join(str(error).split())) from error


class _YAMLLoader(yaml.SafeLoader):
    """YAML as people write it: 3e-4 is a number (YAML 1.1 wants 3.0e-4)."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._sizes: dict[yaml.Node, int] = {}  # of finished nodes, aliases written out

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ValueError(f"it is nested more than {_DEEPEST} times")
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is not None and node not in self._sizes:
            self._sizes[node] = self._size(node)
        return node

    def _size(self, node: yaml.Node) -> int:
        if isinstance(node, yaml.ScalarNode):
            return 1
        parts = node.value
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in parts for part in pair]
        if any(part not in self._sizes for part in parts):
            raise ValueError("an alias stands for what it is a part of")
        size = 1 + sum(self._sizes[part] for part in parts)
        if size > _MOST_VALUES:
            raise ValueError(f"it holds more than {_MOST_VALUES} values")
        return size


_YAMLLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)
