"""The image generator: encodes the source once, then warps, gates and decodes it for every driving frame."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtanimate.config import GeneratorConfig
from mtanimate.geometry import infers_on_cpu, resize
from mtanimate.models.blocks import DownBlock, ResidualBlock, SameBlock, UpBlock, level_channels
from mtanimate.models.dense_motion import DenseMotion
from mtanimate.models.face_points import OPENING_MAPS


class Generator(nn.Module):
    """An encoder-decoder with occlusion-gated skip connections at every scale, pixels included (section 4).

    Args:
        config: sizes, and whether it has skips.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self._build(config)

    def _build(self, config: GeneratorConfig) -> None:
        """Makes the layers."""
        levels = config.num_down_blocks
        channels = [level_channels(config.block_expansion, config.max_features, level) for level in range(levels + 1)]
        self.skips = config.skips
        # A face's generator is told at every size where eyes and mouth are open, which warped features do not show.
        self.opened = nn.ModuleList(_opened(width) for width in reversed(channels) if config.openings)
        self.first = SameBlock(3, channels[0])
        self.down_blocks = nn.ModuleList(DownBlock(channels[i], channels[i + 1]) for i in range(levels))
        self.bottleneck = nn.ModuleDict(
            {f"r{i}": ResidualBlock(channels[-1]) for i in range(config.num_bottleneck_blocks)}
        )
        self.up_blocks = nn.ModuleList(UpBlock(channels[i + 1], channels[i]) for i in reversed(range(levels)))
        self.final = nn.Conv2d(channels[0], 3, 7, padding=3)

    def encode(self, source: Tensor) -> list[Tensor]:
        """Encodes a source; independent of the driving frame.

        Args:
            source: (B, 3, H, W) in [0, 1].

        Returns:
            Features at full, 1/2, 1/4, ... size.
        """
        features = [self.first(source)]
        for block in self.down_blocks:
            features.append(block(features[-1]))
        return features

    def decode(self, features: list[Tensor], source: Tensor, motion: DenseMotion) -> Tensor:
        """Makes the animated picture.

        Args:
            features: from `encode`, batch size B.
            source: (B, 3, H, W) in [0, 1].
            motion: masks, flow and occlusion, batch size B.

        Returns:
            (B, 3, H, W) in [0, 1].
        """
        return self.blend(source, self.paint(features, motion), motion)

    def blend(self, source: Tensor, painted: Tensor, motion: DenseMotion) -> Tensor:
        """The last skip: the warped source, with what was painted behind it, both (B, 3, H, W)."""
        return gate(source, painted, motion) if self.skips else painted

    def paint(self, features: list[Tensor], motion: DenseMotion) -> Tensor:
        """Decodes without the last skip: what is shown where occlusion hides the warped source.

        Args:
            features: from `encode`, batch size B.
            motion: masks, flow and occlusion, batch size B.

        Returns:
            (B, 3, H, W) in [0, 1].
        """
        x = self._open(0, gate(features[-1], None, motion), motion)
        for block in self.bottleneck.values():
            x = block(x)
        for level, (block, skip) in enumerate(zip(self.up_blocks, reversed(features), strict=False)):
            if self.skips:
                x = gate(skip, x, motion)
            x = self._open(level + 1, block(x), motion)
        if self.skips:
            x = gate(features[0], x, motion)
        return torch.sigmoid(self.final(x))

    def _open(self, level: int, x: Tensor, motion: DenseMotion) -> Tensor:
        """Adds what the maps of eyes and mouth contribute to features of this level, smallest first."""
        if not self.opened:
            return x
        assert motion.openings is not None
        maps, size = motion.openings, (x.shape[2], x.shape[3])
        smaller = size[0] < maps.shape[2]  # by area: an eye may be smaller than a pixel there
        maps = F.interpolate(maps, size=size, mode="area") if smaller else resize(maps, size)
        return x + self.opened[level](maps.to(x.dtype))


def gate(skip: Tensor, decoded: Tensor | None, motion: DenseMotion) -> Tensor:
    """occlusion * warp(skip) + (1 - occlusion) * decoded.

    Args:
        skip: (B, C, H, W), of the source.
        decoded: (B, C, H, W), or None for zeros.
        motion: flow and occlusion; without occlusion, the warped skip alone is returned.

    Returns:
        (B, C, H, W), at the skip's size.
    """
    warped = motion.warp(skip)
    if motion.occlusion is None:
        return warped
    occlusion = motion.occlusion_at((skip.shape[2], skip.shape[3])).to(warped.dtype)
    if decoded is None:
        return warped * occlusion
    if infers_on_cpu(warped):  # it takes four times as long for one map for all channels
        occlusion = occlusion.expand_as(warped).contiguous(memory_format=torch.channels_last)
    return torch.lerp(decoded.to(warped.dtype), warped, occlusion)


def _opened(width: int) -> nn.Conv2d:
    """A convolution that starts at zero, so that it adds nothing at first."""
    layer = nn.Conv2d(OPENING_MAPS, width, 3, padding=1)
    if not layer.weight.is_meta:
        nn.init.zeros_(layer.weight)
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)
    return layer
