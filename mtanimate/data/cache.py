"""The cache: decoded frames, face meshes and person mattes of clips and stills, in memory-mapped files.

A cache is a folder with these files:

- `frames.bin`: uint8 (N, R, R, 3).
- `landmarks.bin`: int16 (N, 478, 3), coordinates in fixed point, see `to_fixed_point`.
- `mattes.bin`: uint8 (N, 64, 64), 255 where everything is a person.
- `index.jsonl`: which clip each of the N frames belongs to. The first line has the version and the resolution; every
  other line is a `CacheEntry`, and a later line replaces an earlier one of the same digest.

A line is appended to the index after the data that it names are on the disk. Data that the index does not name do not
count, and an unfinished last line is ignored, so a process may be killed at any moment. Earlier versions wrote one
JSON value, `index.json`, anew for every clip; such caches can be read, and get an `index.jsonl` when they are added to.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from mtanimate.data.people import MATTE
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.faces.mesh import VERTICES
from mtanimate.files import replacing, taken
from mtanimate.outputs import refuse_foreign
from mtanimate.reading import parse_fraction, parse_json, read_bytes, read_json

_INDEX, _OLD_INDEX = "index.jsonl", "index.json"
_BEGINNING = b'{"version": '
_VERSIONS = {_INDEX: 2, _OLD_INDEX: 1}
_FILES = ("frames.bin", "landmarks.bin", "mattes.bin")
_LARGEST = 16_384  # side of a frame, in pixels
_MOST_FRAMES = 1 << 40
_FASTEST = 1000  # frames per second
UNIT = 1 / 8192  # step of the landmarks' fixed point, in coordinates: a 64th of a pixel at 256 pixels
NO_FACE = np.iinfo(np.int16).min


@dataclass(frozen=True)
class CacheEntry:
    """A clip in a cache, or a still, which is a clip of one frame.

    Attributes:
        digest: `Clip.digest` of its content.
        name: The file's name.
        identity: The person.
        split: "train", "test" or "stills".
        first: The number of its first frame in the cache.
        count: The number of its frames.
        rate: Frames per second, as a fraction; "" where there is none.
        faces: Whether the cache has its landmarks and mattes.
    """

    digest: str
    name: str
    identity: str
    split: str
    first: int
    count: int
    rate: str
    faces: bool = False


class Cache:
    """A cache to read from.

    All processes map the same pages of its files; none are copied when a `Cache` is passed to another process.
    """

    def __init__(self, folder: Path) -> None:
        """Raises InputError where the folder holds no complete cache."""
        self.folder = folder
        self.resolution, entries = read_index(folder)
        self.entries = {entry.digest: entry for entry in entries}
        if _present(folder, self.resolution, entries) != entries:
            raise InputError(
                f"the files of the cache '{folder}' are shorter than its index says: complete it with "
                f"mtanimate data cache VIDEOS --out '{folder}'"
            )

    def frames(self, entry: CacheEntry, numbers: Sequence[int]) -> np.ndarray:
        """The frames of these numbers in an entry, from 0: uint8 (n, R, R, 3)."""
        return np.asarray(self._frames[[entry.first + number for number in numbers]])

    def meshes(self, entry: CacheEntry, numbers: Sequence[int]) -> np.ndarray:
        """The face meshes in those frames.

        Returns:
            float32 (n, 478, 3). x and y are in coordinates of the picture, [-1, 1], and z is to the same scale. All
            are NaN where there is no face.
        """
        return from_fixed_point(self.landmarks(entry, numbers))

    def landmarks(self, entry: CacheEntry, numbers: Sequence[int]) -> np.ndarray:
        """As `meshes`, but in fixed point: int16 (n, 478, 3)."""
        return np.asarray(self._landmarks[[entry.first + number for number in numbers]])

    def mattes(self, entry: CacheEntry, numbers: Sequence[int]) -> np.ndarray:
        """The person mattes of those frames: uint8 (n, 64, 64), 255 where everything is a person."""
        return np.asarray(self._mattes[[entry.first + number for number in numbers]])

    @cached_property
    def _frames(self) -> np.memmap:
        return _mapped(self.folder / "frames.bin", np.uint8, (self.resolution, self.resolution, 3))

    @cached_property
    def _landmarks(self) -> np.memmap:
        return _mapped(self.folder / "landmarks.bin", np.int16, (VERTICES, 3))

    @cached_property
    def _mattes(self) -> np.memmap:
        return _mapped(self.folder / "mattes.bin", np.uint8, (MATTE, MATTE))

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the maps: pickle would read the whole files."""
        return {name: value for name, value in vars(self).items() if not isinstance(value, np.memmap)}


@contextmanager
def open_cache_writer(folder: Path, resolution: int) -> Iterator["CacheWriter"]:
    """Open a cache to add to, or begin one. No other process can add to it meanwhile.

    Args:
        folder: The cache; made where it is missing.
        resolution: The side of its frames, in pixels.

    Raises:
        InputError: The folder has a cache of another resolution, or files that are not a cache's.
        MTAnimateError: Another process is adding to it, or the folder cannot be written in.
    """
    lock = FileLock(folder / "lock")
    try:
        _refuse_foreign(folder)
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise MTAnimateError(f"another process is filling the cache '{folder}': wait for its end") from error
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        yield _open(folder, resolution)
    finally:
        lock.release()


def _refuse_foreign(folder: Path) -> None:
    """Raises InputError where there is no index, but a file that a cache would write over.

    An empty lock is not foreign: a cache has one from the first moment on.
    """
    if not is_cache(folder):
        lock = folder / "lock"
        refuse_foreign(
            "--out", [folder / name for name in _FILES] + [lock] * (lock.is_file() and lock.stat().st_size > 0)
        )


def _open(folder: Path, resolution: int) -> "CacheWriter":
    entries: list[CacheEntry] = []
    earlier = taken(folder / _OLD_INDEX) and not taken(folder / _INDEX)
    if is_cache(folder):
        there, entries = read_index(folder)
        if there != resolution:
            raise InputError(
                f"the cache '{folder}' is of {there} x {there} pixels, not {resolution} x {resolution}: choose another"
            )
    try:
        if not is_cache(folder):  # first of all: without an index, the other files would be foreign
            CacheWriter(folder, resolution, []).write_index()
        for name in _FILES:
            (folder / name).touch()
        writer = CacheWriter(folder, resolution, _present(folder, resolution, entries))
        writer.write_index()  # before anything is written over frames that were lost
        if earlier:
            (folder / _OLD_INDEX).unlink()
        os.truncate(folder / "frames.bin", writer.bytes)  # frames of a clip that was not finished
    except OSError as error:
        raise _unwritable(folder, error) from error
    return writer


class CacheWriter:
    """Adds clips to a cache; `open_cache_writer` makes one.

    Attributes:
        entries: All entries by digest.
    """

    def __init__(self, folder: Path, resolution: int, entries: list[CacheEntry]) -> None:
        self.folder, self.resolution = folder, resolution
        self.entries = {entry.digest: entry for entry in entries}
        self._end = max((entry.first + entry.count for entry in entries), default=0)  # where the next clip begins

    @property
    def bytes(self) -> int:
        """The size of all frames."""
        return self._end * self.resolution**2 * 3

    def add(self, entry: CacheEntry, batches: Iterable[np.ndarray]) -> CacheEntry:
        """Add a clip's frames.

        Args:
            entry: The clip; its `first` and `count` are set here.
            batches: Its frames in order, uint8 (B, R, R, 3). If this raises an exception, nothing of the clip counts.

        Returns:
            The entry, complete.

        Raises:
            MTAnimateError: The disk is full.
        """
        first, count = self._end, 0
        with self._writing("frames.bin") as file:
            file.seek(first * self.resolution**2 * 3)
            for batch in batches:
                file.write(np.ascontiguousarray(batch).data)
                count += len(batch)
        return self._keep(replace(entry, first=first, count=count))

    def add_faces(self, entry: CacheEntry, landmarks: np.ndarray, mattes: np.ndarray) -> CacheEntry:
        """Add the landmarks, int16 (count, 478, 3), and mattes, uint8 (count, 64, 64), of an entry that was added.

        Raises:
            MTAnimateError: The disk is full.
        """
        for name, values in (("landmarks.bin", landmarks), ("mattes.bin", mattes)):
            with self._writing(name) as file:
                file.seek(entry.first * values[0].nbytes)
                file.write(np.ascontiguousarray(values).data)
        return self._keep(replace(entry, faces=True))

    def rename(self, entry: CacheEntry, name: str, identity: str, split: str) -> CacheEntry:
        """Change the name, identity and split of an entry, whose content has moved."""
        renamed = replace(entry, name=name, identity=identity, split=split)
        return entry if renamed == entry else self._keep(renamed)

    def read(self, entry: CacheEntry, start: int, stop: int) -> np.ndarray:
        """Frames start to stop - 1 of an entry: uint8 (n, R, R, 3)."""
        shape = (stop - start, self.resolution, self.resolution, 3)
        size = self.resolution**2 * 3
        frames = np.fromfile(self.folder / "frames.bin", np.uint8, shape[0] * size, offset=(entry.first + start) * size)
        return frames.reshape(shape)

    def write_index(self) -> None:
        """Write the whole index: one line for the cache, then one for each entry."""
        header = {"version": _VERSIONS[_INDEX], "resolution": self.resolution}
        lines = [json.dumps(value) + "\n" for value in (header, *map(asdict, self.entries.values()))]
        try:
            with replacing(self.folder / _INDEX, _is_index) as partial:
                partial.write_text("".join(lines), "utf-8", newline="\n")
        except OSError as error:
            raise _unwritable(self.folder, error) from error

    def _keep(self, entry: CacheEntry) -> CacheEntry:
        """Add a line to the index. The index is not written anew: for many clips that would take hours."""
        file = self.folder / _INDEX
        size = file.stat().st_size
        try:
            with self._writing(_INDEX) as opened:
                opened.seek(size)
                opened.write((json.dumps(asdict(entry)) + "\n").encode())
        except MTAnimateError:
            os.truncate(file, size)  # half a line would spoil the next one
            raise
        self.entries[entry.digest] = entry
        self._end = max(self._end, entry.first + entry.count)
        return entry

    @contextmanager
    def _writing(self, name: str) -> Iterator[Any]:
        """Open one of the files to write anywhere in; when the block ends, everything is on the disk."""
        try:
            with (self.folder / name).open("rb+") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _unwritable(self.folder, error) from error


def is_cache(folder: Path) -> bool:
    """Whether there is an index in the folder, of this version or an earlier one."""
    return taken(folder / _INDEX) or taken(folder / _OLD_INDEX)


def _is_index(file: Path) -> bool:
    """Whether a file begins as an index does."""
    with file.open("rb") as opened:
        return opened.read(len(_BEGINNING)) == _BEGINNING


def read_index(folder: Path) -> tuple[int, list[CacheEntry]]:
    """Read a cache's index.

    Returns:
        The resolution in pixels, and the entries in the order they were added.

    Raises:
        InputError: There is no index, it is of another version of mtanimate, or it is damaged.
    """
    name = _INDEX if taken(folder / _INDEX) else _OLD_INDEX
    file = folder / name
    if not file.exists():
        raise InputError(f"no cache in '{folder}': make one with mtanimate data cache VIDEOS --out '{folder}'")
    try:
        header, values = _read_lines(file) if name == _INDEX else _read_old(file)
        if header["version"] != _VERSIONS[name]:
            raise InputError(f"the cache '{folder}' is of another version of mtanimate: make it anew")
        entries = [_entry(value) for value in values]
        return _resolution(header), list({entry.digest: entry for entry in entries}.values())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"'{file}' cannot be read ({error}): make the cache anew") from error


def _read_lines(file: Path) -> tuple[Any, list[Any]]:
    """The first line and the others. The last one is left out if it is unfinished: another process may be at it."""
    whole, _, _ = read_bytes(file).rpartition(b"\n")
    header, *values = map(parse_json, whole.split(b"\n"))
    return header, values


def _read_old(file: Path) -> tuple[Any, list[Any]]:
    content = read_json(file)
    return content, content["entries"]


def _resolution(content: dict[str, Any]) -> int:
    resolution = content["resolution"]
    if type(resolution) is not int or not 1 <= resolution <= _LARGEST:
        raise ValueError(f"resolution {resolution}")
    return resolution


def _entry(values: dict[str, Any]) -> CacheEntry:
    entry = CacheEntry(**values)
    if not all(type(number) is int and 0 <= number < _MOST_FRAMES for number in (entry.first, entry.count)):
        raise ValueError(f"frames {entry.first}, {entry.count}")
    if not all(isinstance(text, str) for text in (entry.digest, entry.name, entry.identity, entry.split, entry.rate)):
        raise ValueError("names that are no text")
    if entry.rate and not 0 < parse_fraction(entry.rate) <= _FASTEST:
        raise ValueError(f"rate {entry.rate}")
    return entry


def _present(folder: Path, resolution: int, entries: list[CacheEntry]) -> list[CacheEntry]:
    """The entries whose frames are all in the file; without faces where those are not in their files."""

    def room(name: str, size: int) -> int:
        file = folder / name
        return file.stat().st_size // size if file.exists() else 0

    frames = room("frames.bin", resolution**2 * 3)
    faces = min(room("landmarks.bin", VERTICES * 3 * 2), room("mattes.bin", MATTE**2))
    return [
        replace(entry, faces=entry.faces and entry.first + entry.count <= faces)
        for entry in entries
        if entry.first + entry.count <= frames
    ]


def _mapped(file: Path, dtype: type, shape: tuple[int, ...]) -> np.memmap:
    count = file.stat().st_size // (np.dtype(dtype).itemsize * int(np.prod(shape)))
    return np.memmap(file, dtype, "r", shape=(count, *shape))


def _unwritable(folder: Path, error: OSError) -> MTAnimateError:
    return MTAnimateError(
        f"cannot write in the cache '{folder}' ({error.strerror}): make room, or choose another folder; the same "
        "command goes on"
    )


def to_fixed_point(meshes: np.ndarray) -> np.ndarray:
    """Convert (..., 478, 3) coordinates, NaN where there is no face, to int16 in steps of `UNIT`."""
    limit = np.iinfo(np.int16).max
    fixed = np.clip(np.rint(np.nan_to_num(meshes) / UNIT), -limit, limit).astype(np.int16)
    return np.where(np.isnan(meshes), np.int16(NO_FACE), fixed)


def from_fixed_point(landmarks: np.ndarray) -> np.ndarray:
    """The opposite of `to_fixed_point`: int16 to float32."""
    return np.where(landmarks == NO_FACE, np.float32(np.nan), landmarks * np.float32(UNIT))
