"""Training pairs: two frames of a clip or a still, drawn at random, and how they are to be augmented."""

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
from mtanimate.data.clips import Clip, Still, find_stills
from mtanimate.data.people import Backdrop, FaceLandmarks, PersonMatte
from mtanimate.data.warps import Glance, draw_flow
from mtanimate.errors import InputError
from mtanimate.faces.detection import square_frames
from mtanimate.metrics.gestures import GESTURES, gestures
from mtanimate.models.losses.motion import Transform
from mtanimate.video.footage import Footage

ATTEMPTS = 50  # clips that are tried for one pair
CANDIDATES = 6  # frames of which the most different becomes the second of a pair (data.differing)
EXPRESSIONS = ("mouth", "width", "eyes", "gaze", "brows")
LEAST_PERSON = 0.05  # share of a picture below which nobody is in it to get another background
FOUND_AT = 256  # side at which a still's face is looked for, whatever the training size


@dataclass(frozen=True)
class Pair:
    """A training pair.

    Attributes:
        frames: uint8 (2, 3, R, R), source first, as they are in the clip.
        recipe: How they are augmented.
        transform: The random transform of the equivariance loss for this pair.
        landmarks: (2, 478, 2) in coordinates of the augmented frames, NaN where there is no face; None where no loss
            needs them.
        clip: The name of the clip or still.
        skipped: What was drawn before it and could not be read, and why.
    """

    frames: Tensor
    recipe: Recipe
    transform: Transform
    landmarks: Tensor | None
    clip: str
    skipped: tuple[str, ...]


@dataclass(frozen=True)
class Unreadable:
    """Stands for a pair where no clip could be read: an exception would lose its message between processes."""

    message: str


class PairDataset(Dataset[Pair | Unreadable]):
    """The pairs of a run. An entry is a person, or a clip where `data.by_identity` is false.

    Pair number n of entry e is random, but determined by the seed, n and e. So a run draws the same pairs with any
    number of workers, on any number of machines, and wherever it was interrupted. A clip that cannot be read is
    replaced by another one, and named.
    """

    def __init__(self, clips: list[Clip], config: Config) -> None:
        """Open the cache and check that everything which the configuration needs is there.

        Args:
            clips: The clips to train on.
            config: The run's settings.

        Raises:
            InputError: `data.cache` or `data.stills` is wrong, or MediaPipe is needed and missing.
        """
        self.config = config
        self.clips = clips
        stills = config.data.stills
        self.stills = find_stills(Path(stills).expanduser()) if stills else []
        self.names = [clip.path.name for clip in [*clips, *self.stills]]
        self.entries = group(clips) if config.data.by_identity else [[clip] for clip in clips]
        self.raw = RawFrames(config.data.full_resolution or config.model.resolution)
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
        """Read from a cache what it has of the clips and stills. Raises InputError if its resolution differs."""
        self.raw.use(cache, [*self.clips, *self.stills])

    def _check_mediapipe(self) -> None:
        """Find out which parts of MediaPipe are needed to draw pairs. Raises InputError where one is missing."""
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
        """The number of pairs in an epoch."""
        return len(self.entries) * self.config.data.repeats

    def __getitem__(self, item: tuple[int, int]) -> Pair | Unreadable:
        """Draw a pair. item: Its number in the run, and its entry."""
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

    def _draw(self, entry: int, backwards: bool, random: np.random.Generator) -> "RawPair":
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
        """The numbers of two random frames, in order. Raises InputError where the clip cannot be read."""
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
        """The first frame drawn, and the one whose mouth, eyes, gaze and brows differ most from it, in order."""
        meshes = self.raw.meshes(clip, drawn.tolist(), None)
        found = gestures(meshes)
        done = np.stack([found[name] / GESTURES[name].least for name in EXPRESSIONS])  # (gestures, frames)
        apart = np.abs(np.nan_to_num(done - done[:, :1])).sum(axis=0)
        return sorted([int(drawn[0]), int(drawn[1 + apart[1:].argmax()])])

    def _glance(self, raw: "RawPair", random: np.random.Generator) -> Glance | None:
        share = self.config.data.augmentation.gaze
        if not share or raw.meshes is None or random.uniform() >= share:
            return None
        return Glance.draw(raw.meshes, random)

    def _backdrop(self, raw: "RawPair", random: np.random.Generator) -> Backdrop | None:
        """Part of another clip's frame, for some of the pairs with people."""
        if not self.other_background or random.uniform() >= self.other_background:
            return None
        other = self.clips[random.integers(len(self.clips))]
        number = int(random.integers(self.raw.count(other)))
        mattes = self.raw.mattes(raw.clip, raw.numbers, raw.frames)
        if mattes.float().mean(dim=(1, 2)).amin() < 255 * LEAST_PERSON:
            return None
        return Backdrop.draw(mattes, self.raw.frames(other, [number])[0], random)


def group(clips: list[Clip]) -> list[list[Clip]]:
    """Clips by identity, in the order of the identities' names."""
    names = sorted({clip.identity for clip in clips})
    return [[clip for clip in clips if clip.identity == name] for name in names]


@dataclass(frozen=True)
class RawPair:
    """Two frames of a clip, or a still twice, before augmentation.

    Attributes:
        clip: The clip or still.
        numbers: The numbers of the frames in the clip.
        frames: uint8 (2, 3, R, R).
        meshes: (2, 478, 3), as `Cache.meshes`; None where neither a loss nor the flow needs them.
        flow: Of a still, the warps that make its frames differ; see `draw_flow`.
    """

    clip: Clip
    numbers: list[int]
    frames: Tensor
    meshes: np.ndarray | None
    flow: Tensor | None = None


class RawFrames:
    """Frames, face meshes and mattes of clips and stills, as squares of `resolution` pixels.

    They are read from a cache, where `use` was called and the cache has them; else frames are decoded, and faces and
    people are looked for in them.
    """

    def __init__(self, resolution: int) -> None:
        self.resolution = resolution
        self.cache: Cache | None = None
        self.entries: dict[Clip, CacheEntry] = {}
        # To find out how long a video is takes longer than to read two frames of it: readers are kept.
        self.readers: dict[Clip, Footage] = {}
        self.unreadable: dict[Clip, str] = {}
        self._still_meshes: dict[Clip, np.ndarray] = {}
        # Started in the process that draws pairs: they cannot be passed to another one.
        self._find_landmarks: FaceLandmarks | None = None
        self._find_people: PersonMatte | None = None

    def use(self, cache: Cache, clips: Iterable[Clip]) -> None:
        """Read these clips from a cache, as far as it has their content. Raises InputError for another resolution."""
        if cache.resolution != self.resolution:
            raise InputError(
                f"the cache '{cache.folder}' is of {cache.resolution} x {cache.resolution} pixels: make another with "
                f"mtanimate data cache VIDEOS --out FOLDER --resolution {self.resolution}"
            )
        self.cache = cache
        for clip in clips:
            try:
                entry = cache.entries.get(clip.digest())
            except OSError:  # it is named when it is drawn
                continue
            if entry is not None:
                self.entries[clip] = entry

    def without_faces(self, clips: Iterable[Clip]) -> list[Clip]:
        """Those whose landmarks and mattes are not in the cache."""
        return [clip for clip in clips if clip not in self.entries or not self.entries[clip].faces]

    def shows_a_face(self, clip: Clip) -> bool:
        """Whether a face was found in any frame; True where the clip's faces are not in the cache."""
        entry = self.entries.get(clip)
        if entry is None or not entry.faces or self.cache is None:
            return True
        return bool(np.isfinite(self.cache.meshes(entry, range(entry.count))[:, 0, 0]).any())

    def start(self, *, landmarks: bool, people: bool) -> None:
        """Start the parts of MediaPipe that are needed. Raises InputError where it cannot be used."""
        if landmarks and self._find_landmarks is None:
            self._find_landmarks = FaceLandmarks()
        if people and self._find_people is None:
            self._find_people = PersonMatte()

    def count(self, clip: Clip) -> int:
        """The number of frames. Raises InputError where the clip cannot be read."""
        entry = self.entries.get(clip)
        return self._reader(clip).frame_count if entry is None else entry.count

    def frames(self, clip: Clip, numbers: Sequence[int]) -> Tensor:
        """Frames of these numbers: uint8 (n, 3, R, R). Raises InputError where the clip cannot be read."""
        entry = self.entries.get(clip)
        if entry is None or self.cache is None:
            return square_frames(self._reader(clip).frames(numbers), self.resolution)
        return torch.from_numpy(self.cache.frames(entry, numbers)).permute(0, 3, 1, 2)

    def meshes(self, clip: Clip, numbers: Sequence[int], frames: Tensor | None) -> np.ndarray:
        """The face meshes in frames of a clip.

        Args:
            clip: The clip.
            numbers: The numbers of the frames.
            frames: These frames, uint8 (n, 3, R, R), to look for faces in; not needed where a cache has the meshes.

        Returns:
            float32 (n, 478, 3), as `Cache.meshes`.
        """
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
        """The mattes of frames of a clip, as in `meshes`: uint8 (n, 64, 64), 255 where everything is a person."""
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
