"""Decoded frames, face meshes and person mattes of clips and stills, by their content: one memory-mapped file a kind.

A cache is a folder: `frames.bin`, uint8 (N, R, R, 3); `landmarks.bin`, int16 (N, 478, 3); `mattes.bin`, uint8
(N, 64, 64); and `index.json`, which says whose the N frames are. What the index does not name does not count: it is
replaced, whole, after what it names is on the disk.
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
from mtanimate.reading import parse_fraction, read_json

VERSION = 1
_BEGINNING = b'{\n"version": '  # of an index
_FILES = ("frames.bin", "landmarks.bin", "mattes.bin")
_LARGEST = 16_384  # pixels of a side
_MOST_FRAMES = 1 << 40
_FASTEST = 1000  # frames a second
UNIT = 1 / 8192  # of a coordinate, which landmarks are kept in: a 64th of a pixel of 256
NO_FACE = np.iinfo(np.int16).min


@dataclass(frozen=True)
class Entry:
    """A clip, or a still, which is a clip of one frame.

    digest: `Clip.digest`. split: train, test or stills. first, count: which of the cache's frames are its own. rate:
    frames a second, as a fraction. faces: whether landmarks and mattes are there.
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
    """To read from. Every process maps the same pages of the files; none is copied when it goes to another process.

    Raises InputError where the folder holds no whole cache.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.resolution, entries = read_index(folder)
        self.entries = {entry.digest: entry for entry in entries}
        if _present(folder, self.resolution, entries) != entries:
            raise InputError(
                f"the files of the cache '{folder}' are shorter than its index says: complete it with "
                f"mtanimate data cache VIDEOS --out '{folder}'"
            )

    def frames(self, entry: Entry, numbers: Sequence[int]) -> np.ndarray:
        """uint8 (n, R, R, 3)."""
        return np.asarray(self._frames[[entry.first + number for number in numbers]])

    def meshes(self, entry: Entry, numbers: Sequence[int]) -> np.ndarray:
        """(n, 478, 3) float32: x and y in coordinates of the picture, z to the same scale; not a number where there is
        no face."""
        return from_fixed_point(self.landmarks(entry, numbers))

    def landmarks(self, entry: Entry, numbers: Sequence[int]) -> np.ndarray:
        """As they are kept: int16 (n, 478, 3)."""
        return np.asarray(self._landmarks[[entry.first + number for number in numbers]])

    def mattes(self, entry: Entry, numbers: Sequence[int]) -> np.ndarray:
        """uint8 (n, 64, 64), 255 where all is a person."""
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
        """Without the maps, which pickle would read whole."""
        return {name: value for name, value in vars(self).items() if not isinstance(value, np.memmap)}


class CacheWriter:
    """A cache that is added to; see `writing_cache`."""

    def __init__(self, folder: Path, resolution: int, entries: list[Entry]) -> None:
        self.folder, self.resolution = folder, resolution
        self.entries = {entry.digest: entry for entry in entries}

    @property
    def bytes(self) -> int:
        """Taken by frames."""
        return self._end * self.resolution**2 * 3

    @property
    def _end(self) -> int:
        return max((entry.first + entry.count for entry in self.entries.values()), default=0)

    def add(self, entry: Entry, batches: Iterable[np.ndarray]) -> Entry:
        """Keep the frames, uint8 (B, R, R, 3), of a clip; `entry.first` and `entry.count` are set here.

        What `batches` raises is passed on, and nothing of the clip counts. Raises MTAnimateError on a full disk.
        """
        first, count = self._end, 0
        with self._writing("frames.bin") as file:
            file.seek(first * self.resolution**2 * 3)
            for batch in batches:
                file.write(np.ascontiguousarray(batch).data)
                count += len(batch)
        return self._keep(replace(entry, first=first, count=count))

    def add_faces(self, entry: Entry, landmarks: np.ndarray, mattes: np.ndarray) -> Entry:
        """Keep int16 (count, 478, 3) and uint8 (count, 64, 64) beside an entry's frames. Raises as `add`."""
        for name, values in (("landmarks.bin", landmarks), ("mattes.bin", mattes)):
            with self._writing(name) as file:
                file.seek(entry.first * values[0].nbytes)
                file.write(np.ascontiguousarray(values).data)
        return self._keep(replace(entry, faces=True))

    def rename(self, entry: Entry, name: str, identity: str, split: str) -> Entry:
        """Where the same content has another place by now."""
        renamed = replace(entry, name=name, identity=identity, split=split)
        return entry if renamed == entry else self._keep(renamed)

    def read(self, entry: Entry, start: int, stop: int) -> np.ndarray:
        """Frames start ... stop - 1 of an entry: uint8 (n, R, R, 3)."""
        shape = (stop - start, self.resolution, self.resolution, 3)
        size = self.resolution**2 * 3
        frames = np.fromfile(self.folder / "frames.bin", np.uint8, shape[0] * size, offset=(entry.first + start) * size)
        return frames.reshape(shape)

    def _keep(self, entry: Entry) -> Entry:
        self.entries[entry.digest] = entry
        self.write_index()
        return entry

    def write_index(self) -> None:
        content = {
            "version": VERSION,
            "resolution": self.resolution,
            "entries": [asdict(entry) for entry in self.entries.values()],
        }
        try:
            with replacing(self.folder / "index.json", _is_index) as partial:
                partial.write_text(json.dumps(content, indent=0), "utf-8", newline="\n")
        except OSError as error:
            raise _unwritable(self.folder, error) from error

    @contextmanager
    def _writing(self, name: str) -> Iterator[Any]:
        """One of the files, to write anywhere in; on the disk to the last byte when the block ends."""
        try:
            with (self.folder / name).open("rb+") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _unwritable(self.folder, error) from error


@contextmanager
def writing_cache(folder: Path, resolution: int) -> Iterator[CacheWriter]:
    """A new cache, or one that is there, to add to; nobody else can meanwhile.

    Raises InputError where one of another resolution is there, or files that are of none; MTAnimateError where
    another process is filling it, or the folder cannot be written in.
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
    """Raises InputError where there is no index, but a file of a name that a cache would write over.

    An empty lock is there from the first moment on.
    """
    if not taken(folder / "index.json"):
        lock = folder / "lock"
        refuse_foreign(
            "--out", [folder / name for name in _FILES] + [lock] * (lock.is_file() and lock.stat().st_size > 0)
        )


def _open(folder: Path, resolution: int) -> CacheWriter:
    entries: list[Entry] = []
    if (folder / "index.json").exists():
        there, entries = read_index(folder)
        if there != resolution:
            raise InputError(
                f"the cache '{folder}' is of {there} x {there} pixels, not {resolution} x {resolution}: choose another"
            )
    try:
        if not (folder / "index.json").exists():  # before all else: what there is without it is not ours
            CacheWriter(folder, resolution, []).write_index()
        for name in _FILES:
            (folder / name).touch()
        begun = CacheWriter(folder, resolution, _present(folder, resolution, entries))
        begun.write_index()  # before anything is written where lost frames were
        os.truncate(folder / "frames.bin", begun.bytes)  # what was being written when a process ended
    except OSError as error:
        raise _unwritable(folder, error) from error
    return begun


def _is_index(file: Path) -> bool:
    """By its beginning: it is written once for every clip."""
    with file.open("rb") as opened:
        return opened.read(len(_BEGINNING)) == _BEGINNING


def read_index(folder: Path) -> tuple[int, list[Entry]]:
    """A cache's resolution and entries. Raises InputError where there is none, or one of another version."""
    file = folder / "index.json"
    if not file.exists():
        raise InputError(f"no cache in '{folder}': make one with mtanimate data cache VIDEOS --out '{folder}'")
    try:
        content = read_json(file)
        if content["version"] != VERSION:
            raise InputError(f"the cache '{folder}' is of another version of mtanimate: make it anew")
        return _resolution(content), [_entry(entry) for entry in content["entries"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"'{file}' cannot be read ({error}): make the cache anew") from error


def _resolution(content: dict[str, Any]) -> int:
    resolution = content["resolution"]
    if type(resolution) is not int or not 1 <= resolution <= _LARGEST:
        raise ValueError(f"resolution {resolution}")
    return resolution


def _entry(values: dict[str, Any]) -> Entry:
    entry = Entry(**values)
    if not all(type(number) is int and 0 <= number < _MOST_FRAMES for number in (entry.first, entry.count)):
        raise ValueError(f"frames {entry.first}, {entry.count}")
    if not all(isinstance(text, str) for text in (entry.digest, entry.name, entry.identity, entry.split)):
        raise ValueError("names that are no text")
    if entry.rate and not 0 < parse_fraction(entry.rate) <= _FASTEST:
        raise ValueError(f"rate {entry.rate}")
    return entry


def to_fixed_point(meshes: np.ndarray) -> np.ndarray:
    """(..., 478, 3), not a number where there is no face -> int16."""
    limit = np.iinfo(np.int16).max
    fixed = np.clip(np.rint(np.nan_to_num(meshes) / UNIT), -limit, limit).astype(np.int16)
    return np.where(np.isnan(meshes), np.int16(NO_FACE), fixed)


def from_fixed_point(landmarks: np.ndarray) -> np.ndarray:
    """int16 -> float32, not a number where there is no face."""
    return np.where(landmarks == NO_FACE, np.float32(np.nan), landmarks * np.float32(UNIT))


def _present(folder: Path, resolution: int, entries: list[Entry]) -> list[Entry]:
    """The entries whose frames the file is long enough for; without faces where those files are not."""

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
