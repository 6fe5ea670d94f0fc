"""Pairs of frames of one clip, or of one still: what training learns from."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mtanimate.config import Config
from mtanimate.data.augmentation import augment
from mtanimate.data.background import PersonMatte, place_before
from mtanimate.data.clips import Clip
from mtanimate.data.landmarks import FaceLandmarks
from mtanimate.data.stills import Stills
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.models.losses.equivariance import Transform
from mtanimate.video import VideoReader
from mtanimate.video.crop import square_frames
from mtanimate.video.folder import FrameFolder

ATTEMPTS = 50  # clips that are tried for one pair
LEAST_PERSON = 0.05  # share of a picture below which it has nobody to stand before another background


@dataclass(frozen=True)
class Pair:
    """frames: (2, 3, R, R) in [0, 1], source first. transform: of the equivariance loss, for this pair. landmarks: of
    both frames' faces, (2, L, 2), where a loss asks for them.

    clip: where it is from, a clip or a still. skipped: what was drawn before and could not be read, and why.
    """

    frames: Tensor
    transform: Transform
    landmarks: Tensor | None
    clip: str
    skipped: tuple[str, ...]


@dataclass(frozen=True)
class Unreadable:
    """In place of a pair where no clip could be read: an exception would lose its words between processes."""

    message: str


class PairDataset(Dataset[Pair | Unreadable]):
    """Pair number n of a run, of entry e: an identity (or a clip, where `data.by_identity` is false); or of a still.

    All chance in a pair comes from the seed and n, so a run draws the same pairs however many workers read
    them, on however many machines, and wherever it was interrupted. What cannot be read is replaced by another
    clip or still, and named. Raises InputError where what the configuration asks for needs MediaPipe, and there is
    none, and where `data.stills` has no pictures.
    """

    def __init__(self, clips: list[Clip], config: Config) -> None:
        self.config = config
        self.with_landmarks = bool(config.loss.landmarks or config.loss.close_up)
        self.other_background = config.data.augmentation.background
        stills = config.data.stills
        self.stills = Stills(Path(stills).expanduser(), config.model.resolution) if stills else None
        if self.with_landmarks or self.stills:
            FaceLandmarks.check()
        if self.other_background:
            PersonMatte.check()
        self.clips = clips
        still_names = [file.name for file in self.stills.files] if self.stills else []
        self.names = [clip.path.name for clip in clips] + still_names
        self.entries = group(clips) if config.data.by_identity else [[clip] for clip in clips]
        self.frames_in_memory: dict[Clip, Tensor] = {}
        # Finding out how long a video is costs more than reading two frames of it: once in each process.
        self.readers: dict[Clip, VideoReader | FrameFolder] = {}
        self.unreadable: dict[Clip, str] = {}
        # Started where pairs are drawn: they do not pass from process to process.
        self.find_landmarks: FaceLandmarks | None = None
        self.find_people: PersonMatte | None = None

    def keep_in_memory(self, progress: Callable[[int, int], None] = lambda done, total: None) -> float:
        """Decode the first clips, as many as fit into `data.cache_gib`, for all workers; returns GiB taken.

        progress(clips looked at, clips in all). A clip that cannot be read is left for `__getitem__` to name.
        Raises MTAnimateError where shared memory has no room.
        """
        room = self.config.data.cache_gib * 2**30
        resolution = self.config.model.resolution
        taken = 0
        for index, clip in enumerate(self.clips):
            try:
                reader = clip.open()
                size = reader.frame_count * 3 * resolution**2
                if taken + size > room:
                    break
                frames = torch.cat([square_frames(batch, resolution) for batch in reader.batches(32)])
            except InputError:
                continue
            try:
                self.frames_in_memory[clip] = frames.share_memory_()
            except RuntimeError as error:
                raise MTAnimateError(f"no room for data.cache_gib in shared memory ({error}): lower it") from error
            taken += size
            progress(index + 1, len(self.clips))
        return taken / 2**30

    def __len__(self) -> int:
        """Pairs of an epoch."""
        return len(self.entries) * self.config.data.repeats

    def __getitem__(self, item: tuple[int, int]) -> Pair | Unreadable:
        """item: the pair's number in the run, and its entry."""
        try:
            self._start()
        except InputError as error:
            return Unreadable(str(error))
        number, entry = item
        random = np.random.default_rng((self.config.training.seed, 0, number))
        skipped: list[str] = []
        for _ in range(ATTEMPTS):
            try:
                frames, name = self._draw(entry, random)
                frames = self._placed(frames, random)
            except InputError as error:
                skipped.append(str(error))
                entry = int(random.integers(len(self.entries)))
                continue
            frames = augment(frames, self.config.data.augmentation, random)
            transform = Transform.random(random, self.config.loss.transform)
            # Found in the augmented frames, so that nothing has to be carried through the augmentation.
            found = self.find_landmarks(frames) if self.with_landmarks and self.find_landmarks else None
            return Pair(frames, transform, found, name, tuple(skipped))
        return Unreadable(f"{ATTEMPTS} clips in a row could not be read; the last: {skipped[-1]}")

    def _start(self) -> None:
        """Raises InputError where MediaPipe cannot be used."""
        if (self.with_landmarks or self.stills) and self.find_landmarks is None:
            self.find_landmarks = FaceLandmarks()
        if self.other_background and self.find_people is None:
            self.find_people = PersonMatte()

    def _draw(self, entry: int, random: np.random.Generator) -> tuple[Tensor, str]:
        """Two frames of a clip in the order of time, or of a still, (2, 3, R, R) uint8; and where they are from."""
        if self.stills and self.find_landmarks and random.uniform() < self.config.data.stills_share:
            return self.stills.draw(self.find_landmarks, random)
        clips = self.entries[entry]
        clip = clips[random.integers(len(clips))]
        return self._frames(clip, random), clip.path.name

    def _placed(self, frames: Tensor, random: np.random.Generator) -> Tensor:
        """(2, 3, R, R) uint8 -> the same in [0, 1], before its own background or another clip's."""
        pair = frames / 255
        if self.find_people is None or random.uniform() >= self.other_background:
            return pair
        other = self._frames(self.clips[random.integers(len(self.clips))], random)[0]
        matte = self.find_people(frames)
        if matte.mean(dim=(1, 2, 3)).amin() < LEAST_PERSON:
            return pair
        return place_before(pair, matte, other / 255, random)

    def _frames(self, clip: Clip, random: np.random.Generator) -> Tensor:
        """Two frames in the order of time: (2, 3, R, R) uint8."""
        in_memory = self.frames_in_memory.get(clip)
        count = len(in_memory) if in_memory is not None else self._reader(clip).frame_count
        first, second = sorted(random.integers(count, size=2).tolist())
        distance = min(self.config.data.min_distance, count // 2)
        if second - first < distance:
            first = int(random.integers(count - distance))
            second = first + distance
        if in_memory is not None:
            return in_memory[[first, second]]
        return square_frames(self._reader(clip).frames([first, second]), self.config.model.resolution)

    def _reader(self, clip: Clip) -> VideoReader | FrameFolder:
        if clip in self.unreadable:
            raise InputError(self.unreadable[clip])
        if clip not in self.readers:
            try:
                self.readers[clip] = clip.open()
            except InputError as error:
                self.unreadable[clip] = str(error)
                raise
        return self.readers[clip]


def group(clips: list[Clip]) -> list[list[Clip]]:
    """Clips by identity, identities in the order of their names."""
    names = sorted({clip.identity for clip in clips})
    return [[clip for clip in clips if clip.identity == name] for name in names]
