"""Pairs of frames of one clip: what training learns from."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mtanimate.config import DataConfig
from mtanimate.data.augmentation import augment
from mtanimate.data.clips import Clip
from mtanimate.errors import InputError
from mtanimate.video import VideoReader
from mtanimate.video.crop import square_frames


@dataclass
class PairSource:
    """One clip to draw from: all its frames in memory (T, 3, R, R) uint8, or its file."""

    clip: Clip
    frame_count: int
    frames: Tensor | None


class PairSampler:
    """Draws (source, driving) pairs: an identity, one of its clips, two of its frames.

    Frames of the first clips are decoded once and kept, up to `config.cache_gib`; those of the others are
    decoded at random positions when they are drawn. Clips with fewer than two frames are refused.
    """

    def __init__(
        self,
        clips: list[Clip],
        resolution: int,
        config: DataConfig,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self.resolution = resolution
        self.config = config
        self.by_identity: dict[str, list[PairSource]] = defaultdict(list)
        self.cached_bytes = 0
        for index, clip in enumerate(clips):
            self.by_identity[clip.identity].append(self._open(clip))
            progress(index + 1, len(clips))
        self.identities = sorted(self.by_identity)
        self.clip_count = len(clips)

    def _open(self, clip: Clip) -> PairSource:
        reader = VideoReader(clip.path)
        if reader.frame_count < 2:
            raise InputError(f"'{clip.path}' has {reader.frame_count} frame: a training clip needs two")
        size = reader.frame_count * 3 * self.resolution**2
        if self.cached_bytes + size > self.config.cache_gib * 2**30:
            return PairSource(clip, reader.frame_count, None)
        frames = torch.cat([square_frames(batch, self.resolution) for batch in reader.batches(32)])
        self.cached_bytes += frames.numel()
        return PairSource(clip, len(frames), frames)

    def draw(self, generator: torch.Generator) -> Tensor:
        """One augmented pair: (2, 3, R, R) float in [0, 1], source first."""

        def below(count: int) -> int:
            return int(torch.randint(count, (), generator=generator))

        sources = self.by_identity[self.identities[below(len(self.identities))]]
        source = sources[below(len(sources))]
        distance = min(self.config.min_distance, source.frame_count // 2)
        first, second = sorted((below(source.frame_count), below(source.frame_count)))
        if second - first < distance:
            first = below(source.frame_count - distance)
            second = first + distance
        return augment(self._read(source, first, second) / 255, self.config.augmentation, generator)

    def batch(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """`size` pairs: source and driving, each (size, 3, R, R)."""
        pairs = torch.stack([self.draw(generator) for _ in range(size)])
        return pairs[:, 0], pairs[:, 1]

    def _read(self, source: PairSource, first: int, second: int) -> Tensor:
        if source.frames is not None:
            return source.frames[[first, second]]
        return square_frames(VideoReader(source.clip.path).frames([first, second]), self.resolution)
