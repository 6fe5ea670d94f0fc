"""Raw frames of clips and stills, their face meshes and mattes: out of a cache, or decoded and searched when drawn."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mtanimate.config import Config
from mtanimate.data.augmentation import Recipe, carry, draw_colour, draw_flips, draw_windows
from mtanimate.data.cache import Cache, CacheEntry
from mtanimate.data.clips import Clip, Still
from mtanimate.data.people import Backdrop, FaceLandmarks, PersonMatte
from mtanimate.data.warps import Glance, draw_flow, find_stills
from mtanimate.errors import InputError
from mtanimate.faces.detection import square_frames
from mtanimate.metrics.gestures import GESTURES, gestures
from mtanimate.models.losses.motion import Transform
from mtanimate.video.footage import Footage

FOUND_AT = 256  # the side at which a still's face is looked for, whatever the training size


class RawFrames:
    """Squares of `resolution` pixels. What a cache has of a clip is taken from there, once it is told to `use` it."""

    def __init__(self, resolution: int) -> None:
        self.resolution = resolution
        self.cache: Cache | None = None
        self.entries: dict[Clip, CacheEntry] = {}
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


ATTEMPTS = 50  # clips that are tried for one pair
CANDIDATES = 6  # frames of which the most different becomes the second of a pair (data.differing)
EXPRESSIONS = ("mouth", "width", "eyes", "gaze", "brows")
LEAST_PERSON = 0.05  # share of a picture below which it has nobody to stand before another background


@dataclass(frozen=True)
class Pair:
    """frames: raw, (2, 3, R, R) uint8, source first. recipe: what becomes of them. transform: of the equivariance loss,
    for this pair. landmarks: of both faces as the recipe leaves them, (2, 478, 2), where a loss asks for them; not a
    number where there is no face.

    clip: where it is from, a clip or a still. skipped: what was drawn before and could not be read, and why.
    """

    frames: Tensor
    recipe: Recipe
    transform: Transform
    landmarks: Tensor | None
    clip: str
    skipped: tuple[str, ...]


@dataclass(frozen=True)
class RawPair:
    """Two frames of a clip, or twice the same of a still, with the flow through which each is read.

    frames: (2, 3, R, R) uint8. meshes: (2, 478, 3), where a loss or the flow asks for them.
    """

    clip: Clip
    numbers: list[int]
    frames: Tensor
    meshes: np.ndarray | None
    flow: Tensor | None = None


@dataclass(frozen=True)
class Unreadable:
    """In place of a pair where no clip could be read: an exception would lose its words between processes."""

    message: str


class PairDataset(Dataset[Pair | Unreadable]):
    """Pair number n of a run, of entry e: an identity (or a clip, where `data.by_identity` is false); or of a still.

    All chance in a pair comes from the seed and n, so a run draws the same pairs however many workers read
    them, on however many machines, and wherever it was interrupted. What cannot be read is replaced by another
    clip or still, and named. Raises InputError where `data.cache` or `data.stills` is wrong, and where what the
    configuration asks for needs MediaPipe, which is missing.
    """

    def __init__(self, clips: list[Clip], config: Config) -> None:
        self.config = config
        self.clips = clips
        stills = config.data.stills
        self.stills = find_stills(Path(stills).expanduser()) if stills else []
        self.names = [clip.path.name for clip in [*clips, *self.stills]]
        self.entries = group(clips) if config.data.by_identity else [[clip] for clip in clips]
        self.raw = RawFrames(config.model.resolution)
        if config.data.cache:
            self.use(Cache(Path(config.data.cache).expanduser()))
        self.with_landmarks = bool(config.loss.with_landmarks or config.data.augmentation.gaze)
        self.other_background = config.data.augmentation.background
        if config.data.differing and self.raw.without_faces(clips):
            raise InputError(
                "data.differing needs to know all faces of the clips: make a cache of them with "
                "mtanimate data cache VIDEOS --out CACHE, and give --set data.cache=CACHE"
            )
        self._check_mediapipe()
        if config.loss.token_landmarks and not any(self.raw.shows_a_face(clip) for clip in clips):
            raise InputError(
                "no clip shows a face for loss.token_landmarks to tie motion tokens to: use a preset without"
            )

    def use(self, cache: Cache) -> None:
        """Take from the cache what it has of the clips and stills. Raises InputError for one of another resolution."""
        self.raw.use(cache, [*self.clips, *self.stills])

    def _check_mediapipe(self) -> None:
        """Which of its parts are needed to draw pairs. Raises InputError where one is and is missing."""
        lacking = self.raw.without_faces(self.clips)
        stills = self.raw.without_faces(self.stills)
        self.finds_landmarks = bool(stills or (self.with_landmarks and lacking))
        self.finds_people = bool(self.other_background and (lacking or stills))
        try:
            if self.finds_landmarks:
                FaceLandmarks.check()
            if self.finds_people:
                PersonMatte.check()
        except InputError as error:
            if self.raw.cache is None:
                raise
            names = [clip.path.name for clip in [*lacking, *stills]]
            raise InputError(f"{error}; the cache lacks them for {len(names)} files, '{names[0]}' first") from error

    def __len__(self) -> int:
        """Pairs of an epoch."""
        return len(self.entries) * self.config.data.repeats

    def __getitem__(self, item: tuple[int, int]) -> Pair | Unreadable:
        """item: the pair's number in the run, and its entry."""
        try:
            self.raw.start(landmarks=self.finds_landmarks, people=self.finds_people)
        except InputError as error:
            return Unreadable(str(error))
        number, entry = item
        random = np.random.default_rng((self.config.training.seed, 0, number))
        skipped: list[str] = []
        for _ in range(ATTEMPTS):
            try:
                return self._pair(entry, random, tuple(skipped))
            except InputError as error:
                skipped.append(str(error))
                entry = int(random.integers(len(self.entries)))
        return Unreadable(f"{ATTEMPTS} clips in a row could not be read; the last: {skipped[-1]}")

    def _pair(self, entry: int, random: np.random.Generator, skipped: tuple[str, ...]) -> Pair:
        """Raises InputError where a clip or still that is drawn cannot be read."""
        config = self.config.data.augmentation
        backwards, mirrored = draw_flips(config, random)
        raw = self._draw(entry, backwards, random)
        backdrop = self._backdrop(raw, random)
        windows = draw_windows(config, mirrored, self.raw.resolution, random)
        recipe = Recipe(windows, draw_colour(config, random), backdrop, raw.flow, self._glance(raw, random))
        transform = Transform.random(random, self.config.loss.transform)
        landmarks = None
        if self.with_landmarks and raw.meshes is not None:
            landmarks = carry(torch.from_numpy(raw.meshes[:, :, :2]).float(), recipe)
        return Pair(raw.frames, recipe, transform, landmarks, raw.clip.path.name, skipped)

    def _draw(self, entry: int, backwards: bool, random: np.random.Generator) -> RawPair:
        if self.stills and random.uniform() < self.config.data.stills_share:
            still = self.stills[random.integers(len(self.stills))]
            picture = self.raw.frames(still, [0])
            mesh = self.raw.meshes(still, [0], picture)
            flow = draw_flow(mesh[0], random)
            return RawPair(still, [0, 0], picture.expand(2, -1, -1, -1), mesh.repeat(2, axis=0), flow)
        clips = self.entries[entry]
        clip = clips[random.integers(len(clips))]
        numbers = self._numbers(clip, random)
        if backwards:
            numbers.reverse()
        frames = self.raw.frames(clip, numbers)
        meshes = self.raw.meshes(clip, numbers, frames) if self.with_landmarks else None
        return RawPair(clip, numbers, frames, meshes)

    def _numbers(self, clip: Clip, random: np.random.Generator) -> list[int]:
        """Of two frames, in the order of time. Raises InputError where the clip cannot be read."""
        count = self.raw.count(clip)
        if self.config.data.differing and random.uniform() < self.config.data.differing:
            return self._most_different(clip, random.integers(count, size=1 + CANDIDATES))
        first, second = sorted(random.integers(count, size=2).tolist())
        distance = min(self.config.data.min_distance, count // 2)
        if second - first < distance:
            first = int(random.integers(count - distance))
            second = first + distance
        return [first, second]

    def _most_different(self, clip: Clip, drawn: np.ndarray) -> list[int]:
        """The first frame, and the one of the others whose mouth, eyes, gaze and brows are farthest from its own."""
        meshes = self.raw.meshes(clip, drawn.tolist(), None)
        found = gestures(meshes)
        done = np.stack([found[name] / GESTURES[name].least for name in EXPRESSIONS])  # (gestures, frames)
        apart = np.abs(np.nan_to_num(done - done[:, :1])).sum(axis=0)
        return sorted([int(drawn[0]), int(drawn[1 + apart[1:].argmax()])])

    def _glance(self, raw: RawPair, random: np.random.Generator) -> Glance | None:
        share = self.config.data.augmentation.gaze
        if not share or raw.meshes is None or random.uniform() >= share:
            return None
        return Glance.draw(raw.meshes, random)

    def _backdrop(self, raw: RawPair, random: np.random.Generator) -> Backdrop | None:
        """Part of another clip's frame, for some pairs of people."""
        if not self.other_background or random.uniform() >= self.other_background:
            return None
        other = self.clips[random.integers(len(self.clips))]
        number = int(random.integers(self.raw.count(other)))
        mattes = self.raw.mattes(raw.clip, raw.numbers, raw.frames)
        if mattes.float().mean(dim=(1, 2)).amin() < 255 * LEAST_PERSON:
            return None
        return Backdrop.draw(mattes, self.raw.frames(other, [number])[0], random)


def group(clips: list[Clip]) -> list[list[Clip]]:
    """Clips by identity, identities in the order of their names."""
    names = sorted({clip.identity for clip in clips})
    return [[clip for clip in clips if clip.identity == name] for name in names]
