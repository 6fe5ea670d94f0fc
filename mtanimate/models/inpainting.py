"""The inpainting network of the Thin-Plate Spline Motion Model (Zhao and Zhang, CVPR 2022): an image generator."""

from operator import itemgetter

import torch
from torch import Tensor, nn

from mtanimate.config import GeneratorConfig
from mtanimate.models.blocks import DownBlock, ResidualBlock, SameBlock, UpBlock, instance_norm, level_channels
from mtanimate.models.dense_motion import DenseMotion
from mtanimate.models.generator import Generator


class InpaintingNetwork(Generator):
    """Encodes the source once; decodes with its warped features beside its own at every size.

    What the maps of occlusion hide of the warped features is missing in them: the decoder has to paint it.

    Args:
        config: sizes.

    Attributes:
        one_by_one: whether the frames of a batch are decoded one after the other. Their features are so large that a
            CPU takes longer for several at once.
    """

    def _build(self, config: GeneratorConfig) -> None:
        self.skips = True
        self.one_by_one = False
        levels, blocks = config.num_down_blocks, config.num_bottleneck_blocks
        channels = [level_channels(config.block_expansion, config.max_features, level) for level in range(levels + 1)]
        self.first = SameBlock(3, channels[0], instance_norm)
        self.down_blocks = nn.ModuleList(DownBlock(channels[i], channels[i + 1], instance_norm) for i in range(levels))
        # Of each size, smallest first: the channels that its blocks see. After the first, half of them are warped ones.
        seen = [channels[-1], *(2 * width for width in channels[-2:0:-1])]
        self.residual_blocks = nn.ModuleList(
            ResidualBlock(width, instance_norm) for width in seen for _ in range(blocks)
        )
        self.blocks = blocks
        self.up_blocks = nn.ModuleList(
            UpBlock(width, narrower, instance_norm) for width, narrower in zip(seen, channels[-2::-1], strict=True)
        )
        self.final = nn.Conv2d(channels[0], 3, 7, padding=3)

    def paint(self, features: list[Tensor], motion: DenseMotion) -> Tensor:
        """Decodes without the source's pixels: what is shown where occlusion hides them. Arguments as `decode`."""
        if not self.one_by_one:
            return self._paint(features, motion)
        each = [itemgetter(slice(frame, frame + 1)) for frame in range(len(motion.flow))]
        return torch.cat([self._paint([*map(one, features)], motion.each(one)) for one in each])

    def _paint(self, features: list[Tensor], motion: DenseMotion) -> Tensor:
        *finer, deepest = features
        x = _visible(deepest, motion)
        for level, (block, skip) in enumerate(zip(self.up_blocks, reversed(finer), strict=True)):
            for residual in self.residual_blocks[level * self.blocks : (level + 1) * self.blocks]:
                x = residual(x)
            x, seen = block(x), _visible(skip, motion)
            if level < len(finer) - 1:
                x = torch.cat([x, seen], dim=1)
        return torch.sigmoid(self.final(x * (1 - _occlusion(x, motion)) + seen))

    def blend(self, source: Tensor, painted: Tensor, motion: DenseMotion) -> Tensor:
        """occlusion * warp(source) + (1 - occlusion) * painted, both (B, 3, H, W)."""
        occlusion = _occlusion(painted, motion)
        return motion.warp(source) * occlusion + painted * (1 - occlusion)


def _visible(features: Tensor, motion: DenseMotion) -> Tensor:
    """Features of the source, warped, without what is hidden."""
    warped = motion.warp(features)
    return warped * _occlusion(warped, motion)


def _occlusion(features: Tensor, motion: DenseMotion) -> Tensor:
    """The map of occlusion for features of this size."""
    return motion.occlusion_at((features.shape[2], features.shape[3]), exact=True).to(features.dtype)
