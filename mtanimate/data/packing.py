"""The landmarks and mattes of a packed data set, small: `faces.npz`, by the content of its files.

A vertex moves as its neighbours do: what is kept of a frame is how much more or less each vertex has moved since the
frame before than two that lie next to it, in steps of an eighth of a pixel.
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
from mtanimate.data.clips import Clip, Still, split_clips
from mtanimate.data.people import MATTE
from mtanimate.data.warps import find_stills
from mtanimate.errors import InputError, MTAnimateError, OutOfMemory, is_of_memory
from mtanimate.faces.mesh import CONTOURS, VERTICES
from mtanimate.files import replacing, replacing_folder, taken
from mtanimate.outputs import claim
from mtanimate.reading import read_npz
from mtanimate.video import VideoWriter

STEPS = np.array([8, 8, 64], np.int32)  # x, y and z, in a cache's units: an eighth of a pixel of 256, and a pixel
LEVELS = 3  # of a matte, besides none
_MOST_BYTES = 4 << 30  # of a data set's faces
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9, "lc": 0, "pb": 0}]


class FaceCode:
    """How faces are coded. reference: int16 (478, 3), a face as a cache keeps it, which each clip's first is like."""

    def __init__(self, reference: np.ndarray) -> None:
        self.reference = reference
        self._first = np.rint(reference / STEPS).astype(np.int32)
        places = reference[:, :2].astype(float)
        apart = np.linalg.norm(places[:, None] - places, axis=-1)
        # Among the vertices of lower numbers, which are decoded before.
        self._neighbours = [np.argsort(apart[vertex, :vertex], kind="stable")[:2] for vertex in range(VERTICES)]

    def compress(self, landmarks: np.ndarray, mattes: np.ndarray) -> bytes:
        """Of N frames in the order of time: int16 (N, 478, 3) and uint8 (N, 64, 64), as a cache keeps them."""
        seen = landmarks[:, 0, 0] != NO_FACE
        coarse = np.rint(landmarks / STEPS).astype(np.int32)
        for number in np.flatnonzero(~seen):
            coarse[number] = coarse[number - 1] if number else self._first
        moves = np.diff(coarse, axis=0, prepend=self._first[None])
        rest = moves.copy()
        for vertex in range(1, VERTICES):
            rest[:, vertex] -= self._likely(moves, vertex)
        # x, y and z apart, and of each the upper bytes, which hardly ever vary.
        bytes_apart = rest.transpose(2, 0, 1).reshape(3, -1, 1).astype("<i2").view(np.uint8).swapaxes(1, 2)
        levels = np.rint(mattes * (LEVELS / 255)).astype(np.uint8)
        changes = np.diff(levels, axis=0, prepend=np.zeros_like(levels[:1]))
        data = b"".join(np.ascontiguousarray(part).tobytes() for part in (seen.astype(np.uint8), bytes_apart, changes))
        return lzma.compress(data, lzma.FORMAT_RAW, filters=_FILTERS)

    def decompress(self, data: bytes, count: int) -> tuple[np.ndarray, np.ndarray]:
        """What `compress` made of `count` frames. Raises ValueError or LZMAError where it is something else."""
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
        """How a vertex has moved, by its neighbours': (N, 3)."""
        return moves[:, self._neighbours[vertex]].sum(axis=1) // len(self._neighbours[vertex])


def write_faces(file: Path, code: FaceCode, faces: dict[str, tuple[int, bytes]]) -> None:
    """faces: by digest, how many frames and what `compress` made of them. Raises MTAnimateError on a full disk."""
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


class PackedFaces:
    """What `write_faces` wrote. Raises InputError for another or a damaged file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            content = read_npz(file, ("reference", "digests", "counts", "ends", "data"), _MOST_BYTES)
            self._code = FaceCode(content["reference"])
            digests = [digest.decode() for digest in content["digests"].tolist()]
            data = np.split(content["data"], content["ends"][:-1])
            counts = content["counts"].tolist()
            self._faces = dict(zip(digests, zip(counts, data, strict=True), strict=True))
        except Exception as error:  # whatever the damage makes numpy stumble over
            if is_of_memory(error):
                raise OutOfMemory(f"'{file}'") from error
            raise InputError(f"'{file}' cannot be read ({type(error).__name__}): pack the data set anew") from error

    def __call__(self, digest: str, frames: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Landmarks and mattes of the packed file of this content, which has so many frames, as a cache keeps them;
        None where it has none."""
        if digest not in self._faces:
            return None
        count, data = self._faces[digest]
        try:
            if count != frames:
                raise ValueError(f"{count} frames, not {frames}")
            return self._code.decompress(data.tobytes(), count)
        except (ValueError, lzma.LZMAError) as error:
            raise InputError(f"'{self.file}' is damaged ({error}): pack the data set anew") from error


LENGTHS = (96, 72, 48, 32, 24, 16)  # of a stretch, in frames of the pack; the last is the least that is worth it
HALVED_FROM = 20  # frames a second, from which on every second frame is taken
CRF = 24
JPEG_QUALITY = 88
STILLS, MORE = 0.2, 0.2  # shares of the size: for stills, and for second clips of people, where there are any
SHAPE = 3.0  # how much more than a head's movement that of lips, eyes and brows counts
_KNOWN = 0.8  # share of a stretch's frames in which a face must have been found for its movement to count
_EACH, _REST = 128, 8192  # bytes in faces.npz, besides the data: of each file, and of all


@dataclass(frozen=True)
class PackResult:
    """What was chosen. length: most frames of a stretch. bytes: of all files."""

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
    """Some frames of a clip. file: below the pack. movement: of face and head, in coordinates; see `movement`."""

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
    """Recode what moves most in the clips below `videos`, every person at least once, and pictures of `stills`, in at
    most `size` bytes. All come from the cache. progress(KiB so far, KiB in all).

    Raises InputError where `out` is there, where the cache lacks the clips, and where the size is too small, naming the
    least; MTAnimateError where it cannot be written or another run writes it.
    """
    with claim(out):
        if taken(out):
            raise InputError(f"--out: '{out}' is there already: choose another folder, or remove it")
        return _pack(videos, cache, out, size, stills, progress, log)


def _pack(
    videos: Path,
    cache: Path,
    out: Path,
    size: int,
    stills: Path | None,
    progress: Callable[..., None],
    log: Callable[[str], None],
) -> PackResult:
    source = Cache(cache)
    clips = _known(source, _clips(videos), log)
    pictures = _known(source, {still: Path("stills", still.path.name) for still in _stills(stills)}, log)
    if not clips:
        raise InputError(f"the cache '{cache}' has none of the clips of '{videos}' with landmarks: make it first")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing_folder(out, overwrite=False) as folder:
            return _choose(Packer(source, _code(source, clips), folder, size, progress), clips, pictures, out)
    except OSError as error:
        raise MTAnimateError(f"--out: cannot write '{out}' ({error.strerror}): is the disk full?") from error


def _clips(videos: Path) -> dict[Clip, Path]:
    """The clips of a data set, each with its place in the pack."""
    split = split_clips(videos, 0.0, 0)
    places = {}
    for name, clips in (("train", split.train), ("test", split.test)):
        root = videos / name if (videos / name).is_dir() else videos
        for clip in clips:
            places[clip] = Path(name) / clip.path.relative_to(root).with_suffix(".mp4")
    return places


def _stills(folder: Path | None) -> list[Still]:
    return find_stills(folder) if folder else []


def _known(cache: Cache, places: dict[Any, Path], log: Callable[[str], None]) -> dict[Clip, tuple[CacheEntry, Path]]:
    """Those that the cache has with landmarks and mattes."""
    found = {}
    for clip, place in places.items():
        entry = cache.entries.get(clip.digest())
        if entry is None or not entry.faces:
            log(f"left out: the cache has no {'landmarks of' if entry else 'frames of'} {clip.path}")
        else:
            found[clip] = (entry, place)
    return found


def _code(cache: Cache, clips: dict[Clip, tuple[CacheEntry, Path]]) -> FaceCode:
    """Around the mean of the faces that the clips begin with."""
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
    # Longer stretches take no more than in proportion: the first frame costs most.
    room = packer.size * (1 - STILLS * bool(stills) - MORE * (len(best) < len(clips)))
    length = next((n for n in LENGTHS if n / LENGTHS[-1] * least <= room), LENGTHS[-1])
    stretches = packer.stretches(clips, length)
    best = _one_of_each(stretches)
    packer.clear()
    for stretch in best:
        packer.add(stretch)
    packed_stills = packer.add_while_it_fits(
        [partial(packer.add_still, entry, file) for entry, file in _by_chance(stills)],
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
    """Of each person, in train and in test, the one that moves most."""
    best: dict[tuple[str, str], Stretch] = {}
    for stretch in stretches:
        person = (stretch.file.parts[0], stretch.clip.identity)
        if person not in best or stretch.movement > best[person].movement:
            best[person] = stretch
    return list(best.values())


def _by_chance(stills: dict[Clip, tuple[CacheEntry, Path]]) -> list[tuple[CacheEntry, Path]]:
    """In an order that has to do with nothing, and is always the same."""
    return sorted(stills.values(), key=lambda still: still[0].digest)


class Packer:
    """Recodes into a folder, and counts the bytes."""

    def __init__(self, cache: Cache, code: FaceCode, folder: Path, size: int, progress: Callable[..., None]) -> None:
        self.cache, self.code, self.folder, self.size, self.progress = cache, code, folder, size, progress
        self.used = _REST
        self.faces: dict[str, tuple[int, bytes]] = {}

    def stretches(self, clips: dict[Clip, tuple[CacheEntry, Path]], length: int) -> list[Stretch]:
        """Of each clip, the `length` frames (or all, where there are fewer) in which face and head move most."""
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
        """Recode it; how many bytes it takes with its landmarks and mattes."""
        file, numbers = self.folder / stretch.file, stretch.numbers
        file.parent.mkdir(parents=True, exist_ok=True)
        rate = Fraction(stretch.entry.rate or 25) / numbers.step
        frames = self.cache.frames(stretch.entry, numbers)
        height, width = frames.shape[1:3]
        with VideoWriter(file, fps=rate, width=width, height=height, crf=CRF, overwrite=True) as writer:
            writer.write(frames)
        return self._count(file, stretch.entry, numbers)

    def add_still(self, entry: CacheEntry, place: Path) -> int:
        """As `add`."""
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
        """Carry out additions up to `limit` bytes; how many there were. The one that went too far is taken back."""
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
        """Take all back."""
        for part in self.folder.iterdir():
            shutil.rmtree(part)
        self.used = _REST
        self.faces.clear()

    def finish(self) -> None:
        write_faces(self.folder / "faces.npz", self.code, self.faces)


def movement(meshes: np.ndarray) -> float:
    """How far the vertices (T, 478, 2) of a face range: the mean standard deviation of their places, and `SHAPE` times
    that of contours' points about the middle of their contour; 0 where too few frames have a face."""
    known = meshes[~np.isnan(meshes[:, 0, 0])]
    if len(known) < max(2, _KNOWN * len(meshes)):
        return 0.0
    contours = [known[:, vertices] for vertices in CONTOURS.values()]
    shapes = np.concatenate([contour - contour.mean(axis=1, keepdims=True) for contour in contours], axis=1)
    return float(known.std(axis=0).mean() + SHAPE * shapes.std(axis=0).mean())


def parse_size(text: str) -> int:
    """Bytes of "25MiB", "1.5 GB", "400 KiB". Raises InputError for anything else."""
    units = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "KB": 1000, "MB": 1000**2, "GB": 1000**3}
    for name, unit in units.items():
        number = text.strip().removesuffix(name).strip()
        if text.strip().endswith(name) and number.replace(".", "", 1).isdigit():
            return int(float(number) * unit)
    raise InputError(f"--size {text}: expected a number and one of {', '.join(units)}, as in 25MiB")
