"""The command `data cache`: decode every clip, and find faces and people in it, once; see `mtanimate.data.cache`."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mtanimate.data.cache import CacheEntry, CacheWriter, open_cache_writer, to_fixed_point
from mtanimate.data.clips import Clip, find_stills, split_clips
from mtanimate.data.packing import PackedFaces
from mtanimate.data.people import FaceLandmarks, PersonMatte
from mtanimate.errors import InputError
from mtanimate.faces.detection import square_frames
from mtanimate.video.footage import Footage, FrameFolder

_AT_A_TIME = 32  # frames


@dataclass
class CacheResult:
    """What was cached.

    Attributes:
        cache: The folder.
        resolution: The side of the frames, in pixels.
        clips: The clips of the data set that are in the cache now.
        stills: The stills of the data set that are in the cache now.
        frames: The number of their frames.
        new: The clips and stills that were added.
        without_faces: The clips and stills without landmarks and mattes.
        gib: The size of all frames in the cache.
        skipped: What could not be read, and why.
    """

    cache: str
    resolution: int
    clips: int = 0
    stills: int = 0
    frames: int = 0
    new: int = 0
    without_faces: int = 0
    gib: float = 0.0
    skipped: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def cache_dataset(
    videos: Path,
    out: Path,
    *,
    stills: Path | None = None,
    resolution: int = 256,
    progress: Callable[[int, int], None] = lambda done, total: None,
    log: Callable[[str], None] = lambda line: None,
) -> CacheResult:
    """Add a data set to a cache. What the cache has already is not decoded again.

    Args:
        videos: The data set.
        out: The cache; made where it is missing.
        stills: A folder of pictures; by default `videos`/stills, if it lies beside `videos`/train.
        resolution: The side of the frames, in pixels.
        progress: Called with the number of clips and stills done, and of all.
        log: Called with a line for everything that is skipped or missing.

    Raises:
        InputError: A folder is missing, or the cache has another resolution.
        MTAnimateError: The disk is full.
    """
    items = _items(videos, stills)
    find = _Faces(videos / "faces.npz")
    result = CacheResult(str(out), resolution)
    with open_cache_writer(out, resolution) as cache:
        before = set(cache.entries)
        for number, (clip, split) in enumerate(items, 1):
            try:
                entry = _put(cache, clip, split)
                faces = None if entry.faces else find(cache, entry)
                if faces is not None:
                    entry = cache.add_faces(entry, *faces)
                _count(result, entry, new=entry.digest not in before)
            except InputError as error:
                result.skipped.append(str(error))
                log(f"skipped: {error}")
            progress(number, len(items))
        result.gib = cache.bytes / 2**30
    if result.without_faces:
        log(f"{result.without_faces} clips and stills are without landmarks and mattes: {find.missing}")
    return result


def cache_frames(
    clips: list[Clip],
    out: Path,
    resolution: int,
    room: float,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Add the frames of the first clips to the cache `out`, as many as fit into `room` bytes.

    A clip that cannot be read is passed over: training names it when it is drawn. Raises as `cache_dataset`.
    """
    with open_cache_writer(out, resolution) as cache:
        for number, clip in enumerate(clips, 1):
            try:
                digest = _digest(clip)
                if digest not in cache.entries:
                    footage = clip.open()
                    if cache.bytes + footage.frame_count * 3 * resolution**2 > room:
                        break
                    _add(cache, clip, "train", digest, footage)
            except InputError:
                continue
            progress(number, len(clips))


def _put(cache: CacheWriter, clip: Clip, split: str) -> CacheEntry:
    """The entry of a clip, which is added where it is missing. Raises InputError where it cannot be read."""
    digest = _digest(clip)
    if digest in cache.entries:
        return cache.rename(cache.entries[digest], clip.path.name, clip.identity, split)
    return _add(cache, clip, split, digest, clip.open())


def _digest(clip: Clip) -> str:
    try:
        return clip.digest()
    except OSError as error:
        raise InputError(f"{clip.path} cannot be read ({error.strerror}): check the file") from error


def _add(cache: CacheWriter, clip: Clip, split: str, digest: str, footage: Footage) -> CacheEntry:
    rate = "" if isinstance(footage, FrameFolder) else str(footage.fps)
    entry = CacheEntry(digest, clip.path.name, clip.identity, split, first=0, count=0, rate=rate)
    return cache.add(entry, _squares(footage, cache.resolution))


def _squares(footage: Footage, resolution: int) -> Iterator[np.ndarray]:
    for batch in footage.batches(_AT_A_TIME):
        yield square_frames(batch, resolution).permute(0, 2, 3, 1).numpy()


def _items(videos: Path, stills: Path | None) -> list[tuple[Clip, str]]:
    """All clips and stills, each with its split."""
    if stills is None and (videos / "train").is_dir() and (videos / "stills").is_dir():
        stills = videos / "stills"
    split = split_clips(videos, 0.0, 0)
    items = [(clip, "train") for clip in split.train] + [(clip, "test") for clip in split.test]
    if stills is not None:
        items += [(still, "stills") for still in find_stills(stills)]
    return items


class _Faces:
    """Landmarks and mattes from a packed data set, if it is one; else by MediaPipe, if it is installed.

    Attributes:
        missing: Why MediaPipe could not be used, or "".
    """

    def __init__(self, packed: Path) -> None:
        self._packed = PackedFaces(packed) if packed.exists() else None
        self._found: tuple[FaceLandmarks, PersonMatte] | None = None
        self.missing = ""

    def __call__(self, cache: CacheWriter, entry: CacheEntry) -> tuple[np.ndarray, np.ndarray] | None:
        """The landmarks and mattes of all frames of an entry, as a cache has them; None where there is no way."""
        packed = self._packed(entry.digest, entry.count) if self._packed is not None else None
        return packed or self._find(cache, entry)

    def _find(self, cache: CacheWriter, entry: CacheEntry) -> tuple[np.ndarray, np.ndarray] | None:
        if self.missing:
            return None
        try:
            self._found = self._found or (FaceLandmarks(), PersonMatte())
        except InputError as error:
            self.missing = str(error)
            return None
        find_landmarks, find_people = self._found
        landmarks, mattes = [], []
        for start in range(0, entry.count, _AT_A_TIME):
            frames = cache.read(entry, start, min(start + _AT_A_TIME, entry.count))
            landmarks.append(to_fixed_point(find_landmarks.meshes(frames)))
            mattes.append(find_people(torch.from_numpy(frames).permute(0, 3, 1, 2)).numpy())
        return np.concatenate(landmarks), np.concatenate(mattes)


def _count(result: CacheResult, entry: CacheEntry, *, new: bool) -> None:
    result.clips += entry.split != "stills"
    result.stills += entry.split == "stills"
    result.frames += entry.count
    result.new += new
    result.without_faces += not entry.faces
