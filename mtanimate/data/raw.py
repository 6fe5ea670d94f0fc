"""Raw frames of clips and stills, their face meshes and mattes: out of a cache, or decoded and searched when drawn."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from mtanimate.data.background import PersonMatte
from mtanimate.data.cache import Cache, Entry
from mtanimate.data.clips import Clip, Still
from mtanimate.data.landmarks import FaceLandmarks
from mtanimate.errors import InputError
from mtanimate.video.crop import square_frames
from mtanimate.video.footage import Footage

FOUND_AT = 256  # the side at which a still's face is looked for, whatever the training size


class RawFrames:
    """Squares of `resolution` pixels. What a cache has of a clip is taken from there, once it is told to `use` it."""

    def __init__(self, resolution: int) -> None:
        self.resolution = resolution
        self.cache: Cache | None = None
        self.entries: dict[Clip, Entry] = {}
        # Finding out how long a video is costs more than reading two frames of it: once in each process.
        self.readers: dict[Clip, Footage] = {}
        self.unreadable: dict[Clip, str] = {}
        self._still_meshes: dict[Clip, np.ndarray] = {}
        # Started where pairs are drawn: they do not pass from process to process.
        self._find_landmarks: FaceLandmarks | None = None
        self._find_people: PersonMatte | None = None

    def use(self, cache: Cache, clips: Iterable[Clip]) -> None:
        """Take these clips' frames, and what is known of them, from the cache where it has the same content.

        Raises InputError for a cache of another resolution.
        """
        if cache.resolution != self.resolution:
            raise InputError(
                f"the cache '{cache.folder}' is of {cache.resolution} x {cache.resolution} pixels: make another with "
                f"mtanimate data cache VIDEOS --out FOLDER --resolution {self.resolution}"
            )
        self.cache = cache
        for clip in clips:
            try:
                entry = cache.entries.get(clip.digest())
            except OSError:  # whoever draws the clip names it
                continue
            if entry is not None:
                self.entries[clip] = entry

    def without_faces(self, clips: Iterable[Clip]) -> list[Clip]:
        """Those whose landmarks and mattes are in no cache."""
        return [clip for clip in clips if clip not in self.entries or not self.entries[clip].faces]

    def shows_a_face(self, clip: Clip) -> bool:
        """Whether one was found in any of its frames; where no cache has looked, one may be."""
        entry = self.entries.get(clip)
        if entry is None or not entry.faces or self.cache is None:
            return True
        return bool(np.isfinite(self.cache.meshes(entry, range(entry.count))[:, 0, 0]).any())

    def start(self, *, landmarks: bool, people: bool) -> None:
        """MediaPipe's part in it, where it is needed. Raises InputError where it cannot be used."""
        if landmarks and self._find_landmarks is None:
            self._find_landmarks = FaceLandmarks()
        if people and self._find_people is None:
            self._find_people = PersonMatte()

    def count(self, clip: Clip) -> int:
        """Raises InputError where the clip cannot be read."""
        entry = self.entries.get(clip)
        return self._reader(clip).frame_count if entry is None else entry.count

    def frames(self, clip: Clip, numbers: Sequence[int]) -> Tensor:
        """uint8 (n, 3, R, R). Raises InputError where the clip cannot be read."""
        entry = self.entries.get(clip)
        if entry is None or self.cache is None:
            return square_frames(self._reader(clip).frames(numbers), self.resolution)
        return torch.from_numpy(self.cache.frames(entry, numbers)).permute(0, 3, 1, 2)

    def meshes(self, clip: Clip, numbers: Sequence[int], frames: Tensor | None) -> np.ndarray:
        """Of those frames of the clip: (n, 478, 3) float32 as `Cache.meshes`; searched for in `frames` where no cache
        has them."""
        entry = self.entries.get(clip)
        if entry is not None and entry.faces and self.cache is not None:
            return self.cache.meshes(entry, numbers)
        assert self._find_landmarks is not None
        assert frames is not None
        if not isinstance(clip, Still):
            return self._find_landmarks.meshes(frames.permute(0, 2, 3, 1).numpy())
        if clip not in self._still_meshes:
            picture = square_frames(self._reader(clip).frames([0]), FOUND_AT)
            self._still_meshes[clip] = self._find_landmarks.meshes(picture.permute(0, 2, 3, 1).numpy())
        return self._still_meshes[clip]

    def mattes(self, clip: Clip, numbers: Sequence[int], frames: Tensor) -> Tensor:
        """Of those frames of the clip: uint8 (n, 64, 64), 255 where all is a person; searched for as `meshes`."""
        entry = self.entries.get(clip)
        if entry is not None and entry.faces and self.cache is not None:
            return torch.from_numpy(self.cache.mattes(entry, numbers))
        assert self._find_people is not None
        return self._find_people(frames)

    def _reader(self, clip: Clip) -> Footage:
        if clip in self.unreadable:
            raise InputError(self.unreadable[clip])
        if clip not in self.readers:
            try:
                self.readers[clip] = clip.open()
            except InputError as error:
                self.unreadable[clip] = str(error)
                raise
        return self.readers[clip]
