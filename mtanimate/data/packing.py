"""Packs of data sets: the clips and stills that move most, recoded to fit a size, and their faces in `faces.npz`.

Faces are coded by the content of the packed files. A vertex moves like its neighbours, so what is stored is the
difference between its movement since the last frame and that of two vertices near it, in eighths of a pixel.
"""

import lzma
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mtanimate.data.cache import NO_FACE, Cache, CacheEntry
from mtanimate.data.clips import Clip, find_stills, split_clips
from mtanimate.data.people import MATTE
from mtanimate.errors import InputError, MTAnimateError, OutOfMemory, is_of_memory
from mtanimate.faces.mesh import CONTOURS, VERTICES
from mtanimate.files import replacing, replacing_folder, taken
from mtanimate.outputs import claim
from mtanimate.reading import read_npz
from mtanimate.video import VideoWriter

LENGTHS = (96, 72, 48, 32, 24, 16)  # of a stretch, in frames of the pack, longest first
HALVED_FROM = 20  # frames per second, from which on every second frame is taken
CRF = 24
JPEG_QUALITY = 88
STILLS, MORE = 0.2, 0.2  # shares of the size that are kept for stills, and for more clips of the same people
SHAPE = 3.0  # weight of the movement of lips, eyes and brows, relative to the head's
_KNOWN = 0.8  # share of a stretch's frames that must have a face for its movement to count
_EACH, _REST = 128, 8192  # bytes in faces.npz beside the data: for each file, and once
STEPS = np.array([8, 8, 64], np.int32)  # of x, y and z, in a cache's units: 1/8 of a pixel at 256 pixels, and 1
LEVELS = 3  # of a matte, above 0
_MOST_BYTES = 4 << 30  # of all faces, unpacked
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9, "lc": 0, "pb": 0}]


@dataclass(frozen=True)
class PackResult:
    """What was packed.

    Attributes:
        pack: The folder; `bytes` is the size of its files.
        people: The number of people, counted in train and in test.
        clips: The number of clips, of `clips_of`; `frames` of them in all, at most `length` each.
        stills: The number of stills, of `stills_of`.
    """

    pack: str
    bytes: int
    people: int
    clips: int
    clips_of: int
    stills: int
    stills_of: int
    frames: int
    length: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Stretch:
    """Some frames of a clip.

    Attributes:
        file: Its path below the pack.
        numbers: The numbers of the frames.
        movement: How much face and head move in them, see `movement`.
    """

    clip: Clip
    entry: CacheEntry
    file: Path
    numbers: range
    movement: float


def pack_dataset(
    videos: Path,
    cache: Path,
    out: Path,
    size: int,
    *,
    stills: Path | None = None,
    progress: Callable[..., None] = lambda done, total, note="": None,
    log: Callable[[str], None] = lambda line: None,
) -> PackResult:
    """Pack a data set: the stretches of clips that move most, at least one of each person, and stills.

    Args:
        videos: The data set.
        cache: Its cache, which everything is read from.
        out: The new folder.
        size: The most bytes of all files.
        stills: A folder of pictures, if any.
        progress: Called with the KiB so far, the KiB in all, and the file's name.
        log: Called with a line for each clip that the cache lacks.

    Raises:
        InputError: `out` exists, the cache has none of the clips, or the size is too small for a stretch of each
            person; the message names the least size.
        MTAnimateError: `out` cannot be written, or another run writes it.
    """
    with claim(out):
        if taken(out):
            raise InputError(f"--out: '{out}' is there already: choose another folder, or remove it")
        source = Cache(cache)
        clips = _known(source, _clips(videos), log)
        places = {still: Path("stills", still.path.name) for still in (find_stills(stills) if stills else ())}
        pictures = _known(source, places, log)
        if not clips:
            raise InputError(f"the cache '{cache}' has none of the clips of '{videos}' with landmarks: make it first")
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            with replacing_folder(out, overwrite=False) as folder:
                return _choose(Packer(source, _code(source, clips), folder, size, progress), clips, pictures, out)
        except OSError as error:
            raise MTAnimateError(f"--out: cannot write '{out}' ({error.strerror}): is the disk full?") from error


def _clips(videos: Path) -> dict[Clip, Path]:
    """The clips of a data set, and the path of each below the pack."""
    split = split_clips(videos, 0.0, 0)
    places = {}
    for name, clips in (("train", split.train), ("test", split.test)):
        root = videos / name if (videos / name).is_dir() else videos
        for clip in clips:
            places[clip] = Path(name) / clip.path.relative_to(root).with_suffix(".mp4")
    return places


def _known(cache: Cache, places: dict[Any, Path], log: Callable[[str], None]) -> dict[Clip, tuple[CacheEntry, Path]]:
    """Those that the cache has with landmarks and mattes, with their entries."""
    found = {}
    for clip, place in places.items():
        entry = cache.entries.get(clip.digest())
        if entry is None or not entry.faces:
            log(f"left out: the cache has no {'landmarks of' if entry else 'frames of'} {clip.path}")
        else:
            found[clip] = (entry, place)
    return found


def _code(cache: Cache, clips: dict[Clip, tuple[CacheEntry, Path]]) -> "FaceCode":
    """The code whose reference is the mean of the first faces of all clips."""
    firsts = [cache.landmarks(entry, [0])[0] for entry, _ in clips.values()]
    faces = [first for first in firsts if first[0, 0] != NO_FACE]
    return FaceCode(np.mean(faces or np.zeros_like(firsts), axis=0).astype(np.int16))


def _choose(
    packer: "Packer", clips: dict[Clip, tuple[CacheEntry, Path]], stills: dict[Clip, tuple[CacheEntry, Path]], out: Path
) -> PackResult:
    best = _one_of_each(packer.stretches(clips, LENGTHS[-1]))
    least = sum(packer.add(stretch) for stretch in best) + _REST
    if least > packer.size:
        raise InputError(
            f"--size: {len(best)} people do not fit into {packer.size / 2**20:.1f} MiB: the least that holds a short "
            f"stretch of each is {math.ceil(least / 2**20 * 10) / 10:.1f}MiB"
        )
    # The size grows more slowly than the length, as the first frame takes most.
    room = packer.size * (1 - STILLS * bool(stills) - MORE * (len(best) < len(clips)))
    length = next((n for n in LENGTHS if n / LENGTHS[-1] * least <= room), LENGTHS[-1])
    stretches = packer.stretches(clips, length)
    best = _one_of_each(stretches)
    packer.clear()
    for stretch in best:
        packer.add(stretch)
    by_digest = sorted(stills.values(), key=lambda still: still[0].digest)  # an arbitrary order, always the same
    packed_stills = packer.add_while_it_fits(
        [partial(packer.add_still, *still) for still in by_digest],
        packer.used + STILLS * packer.size,
    )
    rest = sorted((s for s in stretches if s not in best), key=lambda stretch: -stretch.movement)
    more = packer.add_while_it_fits([partial(packer.add, stretch) for stretch in rest], packer.size)
    packer.finish()
    frames = sum(count for count, _ in packer.faces.values()) - packed_stills
    used = sum(file.stat().st_size for file in packer.folder.rglob("*") if file.is_file())
    return PackResult(
        str(out), used, len(best), len(best) + more, len(clips), packed_stills, len(stills), frames, length
    )  # fmt: skip


def _one_of_each(stretches: Sequence[Stretch]) -> list[Stretch]:
    """The stretch of each person that moves most, in train and in test."""
    best: dict[tuple[str, str], Stretch] = {}
    for stretch in stretches:
        person = (stretch.file.parts[0], stretch.clip.identity)
        if person not in best or stretch.movement > best[person].movement:
            best[person] = stretch
    return list(best.values())


class Packer:
    """Recodes clips and stills into a folder, and counts the bytes."""

    def __init__(self, cache: Cache, code: "FaceCode", folder: Path, size: int, progress: Callable[..., None]) -> None:
        self.cache, self.code, self.folder, self.size, self.progress = cache, code, folder, size, progress
        self.used = _REST
        self.faces: dict[str, tuple[int, bytes]] = {}

    def stretches(self, clips: dict[Clip, tuple[CacheEntry, Path]], length: int) -> list[Stretch]:
        """The `length` frames of each clip, or all if it has fewer, in which face and head move most."""
        found = []
        for clip, (entry, file) in clips.items():
            step = 2 if Fraction(entry.rate or 25) >= HALVED_FROM and entry.count >= 4 else 1
            reach = min(length * step, entry.count)
            meshes = self.cache.meshes(entry, range(entry.count))[:, :, :2]
            starts = range(0, entry.count - reach + 1, max(1, reach // 4))
            ranges = [range(start, start + reach, step) for start in starts]
            sizes = [movement(meshes[numbers.start : numbers.stop : step]) for numbers in ranges]
            number = int(np.argmax(sizes))
            found.append(Stretch(clip, entry, file, ranges[number], sizes[number]))
        return found

    def add(self, stretch: Stretch) -> int:
        """Recode a stretch. Returns the bytes that it takes with its landmarks and mattes."""
        file, numbers = self.folder / stretch.file, stretch.numbers
        file.parent.mkdir(parents=True, exist_ok=True)
        rate = Fraction(stretch.entry.rate or 25) / numbers.step
        frames = self.cache.frames(stretch.entry, numbers)
        height, width = frames.shape[1:3]
        with VideoWriter(file, fps=rate, width=width, height=height, crf=CRF, overwrite=True) as writer:
            writer.write(frames)
        return self._count(file, stretch.entry, numbers)

    def add_still(self, entry: CacheEntry, place: Path) -> int:
        """As `add`, for a still."""
        file = self.folder / place.with_suffix(".jpg")
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(self.cache.frames(entry, [0])[0]).save(file, quality=JPEG_QUALITY)
        return self._count(file, entry, range(1))

    def _count(self, file: Path, entry: CacheEntry, numbers: range) -> int:
        data = self.code.compress(self.cache.landmarks(entry, numbers), self.cache.mattes(entry, numbers))
        self.faces[Clip(file, "").digest()] = (len(numbers), data)
        taken = file.stat().st_size + len(data) + _EACH
        self.used += taken
        self.progress(self.used >> 10, self.size >> 10, file.name)
        self.latest = file
        return taken

    def add_while_it_fits(self, additions: Sequence[Callable[[], int]], limit: float) -> int:
        """Carry out additions up to `limit` bytes; the one that exceeds it is undone. Returns how many were made."""
        limit = min(limit, self.size)
        for number, add in enumerate(additions):
            taken = add()
            if self.used > limit:
                self.used -= taken
                self.faces.popitem()
                self.latest.unlink()
                return number
        return len(additions)

    def clear(self) -> None:
        """Undo all additions."""
        for part in self.folder.iterdir():
            shutil.rmtree(part)
        self.used = _REST
        self.faces.clear()

    def finish(self) -> None:
        """Write the faces of everything that was added."""
        write_faces(self.folder / "faces.npz", self.code, self.faces)


def movement(meshes: np.ndarray) -> float:
    """How much the vertices (T, 478, 2) of a face move: the mean standard deviation of their places, plus `SHAPE` times
    that of contours' points relative to the middle of their contour; 0 where too few frames have a face."""
    known = meshes[~np.isnan(meshes[:, 0, 0])]
    if len(known) < max(2, _KNOWN * len(meshes)):
        return 0.0
    contours = [known[:, vertices] for vertices in CONTOURS.values()]
    shapes = np.concatenate([contour - contour.mean(axis=1, keepdims=True) for contour in contours], axis=1)
    return float(known.std(axis=0).mean() + SHAPE * shapes.std(axis=0).mean())


def parse_size(text: str) -> int:
    """The bytes of a size such as "25MiB", "1.5 GB" or "400 KiB". Raises InputError for anything else."""
    units = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "KB": 1000, "MB": 1000**2, "GB": 1000**3}
    for name, unit in units.items():
        number = text.strip().removesuffix(name).strip()
        if text.strip().endswith(name) and number.replace(".", "", 1).isdigit():
            return int(float(number) * unit)
    raise InputError(f"--size {text}: expected a number and one of {', '.join(units)}, as in 25MiB")


class PackedFaces:
    """The faces that `write_faces` wrote. Raises InputError for another or a damaged file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            content = read_npz(file, ("reference", "digests", "counts", "ends", "data"), _MOST_BYTES)
            self._code = FaceCode(content["reference"])
            digests = [digest.decode() for digest in content["digests"].tolist()]
            data = np.split(content["data"], content["ends"][:-1])
            counts = content["counts"].tolist()
            self._faces = dict(zip(digests, zip(counts, data, strict=True), strict=True))
        except Exception as error:  # a damaged file makes numpy raise almost anything
            if is_of_memory(error):
                raise OutOfMemory(f"'{file}'") from error
            raise InputError(f"'{file}' cannot be read ({type(error).__name__}): pack the data set anew") from error

    def __call__(self, digest: str, frames: int) -> tuple[np.ndarray, np.ndarray] | None:
        """The landmarks and mattes of a packed file, as a cache has them; None for a file that is not in the pack.

        Raises InputError where they are damaged, or of another number of frames.
        """
        if digest not in self._faces:
            return None
        count, data = self._faces[digest]
        try:
            if count != frames:
                raise ValueError(f"{count} frames, not {frames}")
            return self._code.decompress(data.tobytes(), count)
        except (ValueError, lzma.LZMAError) as error:
            raise InputError(f"'{self.file}' is damaged ({error}): pack the data set anew") from error


def write_faces(file: Path, code: "FaceCode", faces: dict[str, tuple[int, bytes]]) -> None:
    """Write `faces.npz`. Raises MTAnimateError on a full disk.

    faces: By digest, the number of frames and what `compress` returned for them.
    """
    sizes = [len(data) for _, data in faces.values()]
    try:
        with replacing(file) as partial:
            np.savez(
                partial,
                reference=code.reference,
                digests=np.array(list(faces), "S64"),
                counts=np.array([count for count, _ in faces.values()]),
                ends=np.cumsum(sizes),
                data=np.frombuffer(b"".join(data for _, data in faces.values()), np.uint8),
            )
    except OSError as error:
        raise MTAnimateError(f"{file} could not be written ({error.strerror}): is the disk full?") from error


class FaceCode:
    """The code of faces. reference: int16 (478, 3), a face in a cache's fixed point that others are like."""

    def __init__(self, reference: np.ndarray) -> None:
        self.reference = reference
        self._first = np.rint(reference / STEPS).astype(np.int32)
        places = reference[:, :2].astype(float)
        apart = np.linalg.norm(places[:, None] - places, axis=-1)
        # Only among vertices of lower numbers, which are decoded first.
        self._neighbours = [np.argsort(apart[vertex, :vertex], kind="stable")[:2] for vertex in range(VERTICES)]

    def compress(self, landmarks: np.ndarray, mattes: np.ndarray) -> bytes:
        """Compress N consecutive frames' int16 (N, 478, 3) and uint8 (N, 64, 64), as a cache has them."""
        seen = landmarks[:, 0, 0] != NO_FACE
        coarse = np.rint(landmarks / STEPS).astype(np.int32)
        for number in np.flatnonzero(~seen):
            coarse[number] = coarse[number - 1] if number else self._first
        moves = np.diff(coarse, axis=0, prepend=self._first[None])
        rest = moves.copy()
        for vertex in range(1, VERTICES):
            rest[:, vertex] -= self._likely(moves, vertex)
        # x, y and z apart, and the upper bytes of each, which hardly vary.
        bytes_apart = rest.transpose(2, 0, 1).reshape(3, -1, 1).astype("<i2").view(np.uint8).swapaxes(1, 2)
        levels = np.rint(mattes * (LEVELS / 255)).astype(np.uint8)
        changes = np.diff(levels, axis=0, prepend=np.zeros_like(levels[:1]))
        data = b"".join(np.ascontiguousarray(part).tobytes() for part in (seen.astype(np.uint8), bytes_apart, changes))
        return lzma.compress(data, lzma.FORMAT_RAW, filters=_FILTERS)

    def decompress(self, data: bytes, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The opposite of `compress`, for `count` frames. Raises ValueError or LZMAError for other data."""
        size = count * (1 + VERTICES * 3 * 2 + MATTE**2)
        unpacked = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_FILTERS).decompress(data, size + 1)
        if len(unpacked) != size:
            raise ValueError(f"it does not unpack to {size} bytes")
        values = np.frombuffer(unpacked, np.uint8)
        seen, bytes_apart, changes = np.split(values, [count, count + count * VERTICES * 3 * 2])
        rest = np.ascontiguousarray(bytes_apart.reshape(3, 2, -1).swapaxes(1, 2)).view("<i2")
        moves = rest.reshape(3, count, VERTICES).transpose(1, 2, 0).astype(np.int32)
        for vertex in range(1, VERTICES):
            moves[:, vertex] += self._likely(moves, vertex)
        landmarks = ((self._first + np.cumsum(moves, axis=0)) * STEPS).astype(np.int16)
        landmarks[seen == 0] = NO_FACE
        levels = np.cumsum(changes.reshape(count, MATTE, MATTE), axis=0, dtype=np.uint8)
        return landmarks, np.rint(levels * (255 / LEVELS)).astype(np.uint8)

    def _likely(self, moves: np.ndarray, vertex: int) -> np.ndarray:
        """The movement of a vertex as its neighbours predict it: (N, 3)."""
        return moves[:, self._neighbours[vertex]].sum(axis=1) // len(self._neighbours[vertex])
