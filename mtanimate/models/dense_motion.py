"""The dense motion network: from sparse motions to masks, one dense flow and occlusion (Eq. 2)."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from mtanimate.config import DenseMotionConfig
from mtanimate.geometry import antialias_downsample, coordinate_grid, resize, sample, warp
from mtanimate.models.background_predictor import background_grid
from mtanimate.models.blocks import Hourglass, Norm, UpBlock
from mtanimate.models.motion import Motion, sparse_motions

FARTHEST = 80  # exponent of a heat map; beyond, numbers are below float32's normal ones


@dataclass(frozen=True)
class DenseMotion:
    """How each pixel of the driving picture is found in the source.

    Attributes:
        masks: (B, K+1, h, w), the background's first, summing to 1 over the parts.
        flow: (B, h, w, 2), the source coordinate (x, y) in [-1, 1] to read for each driving coordinate.
        occlusion: (B, 1, h, w) in [0, 1], 1 where the warped source is visible; None where it is not estimated. Of
            several maps it is the finest, at the picture's size.
        exact: whether the flow is sampled exactly (see `mtanimate.geometry`).
        openings: (B, 6, h, w), what the generator of a face is told of eyes and mouth, else None.
        padding: outside of the source: zeros or border; None: as `mtanimate.geometry.sample` has it.
        occlusions: all maps of occlusion, the coarsest first, where there are several.
    """

    masks: Tensor
    flow: Tensor
    occlusion: Tensor | None
    exact: bool = False
    openings: Tensor | None = None
    padding: str | None = None
    occlusions: tuple[Tensor, ...] = ()

    def warp(self, image: Tensor) -> Tensor:
        """Warps the source, or its features of any size, (B, C, H, W), by the flow."""
        return warp(image, self.flow, self.padding, exact=self.exact)

    def occlusion_at(self, size: tuple[int, int], *, exact: bool = False) -> Tensor:
        """The map of this size, or the finest one resized to it: (B, 1, *size).

        Args:
            size: (height, width).
            exact: of the resizing, see `mtanimate.geometry.resize`.
        """
        assert self.occlusion is not None
        found = next((one for one in self.occlusions if one.shape[2:] == size), self.occlusion)
        return resize(found, size, exact=exact)

    def detach(self) -> "DenseMotion":
        return self.each(Tensor.detach)

    def each(self, function: Callable[[Tensor], Tensor]) -> "DenseMotion":
        """Applies a function to every tensor."""
        occlusion = None if self.occlusion is None else function(self.occlusion)
        openings = None if self.openings is None else function(self.openings)
        masks, flow = function(self.masks), function(self.flow)
        several = tuple(function(one) for one in self.occlusions)
        return replace(self, masks=masks, flow=flow, occlusion=occlusion, openings=openings, occlusions=several)


OCCLUSION_MAPS = 4


class OcclusionMaps(nn.Module):
    """Maps of occlusion at 1/8, 1/4, 1/2 and the whole of the picture's size (Zhao and Zhang, CVPR 2022).

    The coarser ones are read off the decoder's features of their size; for those that are finer than the hourglass, its
    last features are enlarged step by step.

    Args:
        channels: of the decoder's features, full size first.
        scale_factor: of the hourglass's size to the picture's: 1/2, 1/4 or 1/8.
        norm: of the blocks that enlarge.
    """

    def __init__(self, channels: list[int], scale_factor: float, norm: Norm = nn.BatchNorm2d) -> None:
        super().__init__()
        finer = finer_maps(scale_factor)
        self.coarser = OCCLUSION_MAPS - finer
        widths = [channels[0] // 2**step for step in range(finer + 1)]
        self.up = nn.ModuleList(UpBlock(widths[step], widths[step + 1], norm) for step in range(finer))
        read = [*channels[: self.coarser][::-1], *widths[1:]]
        self.maps = nn.ModuleList(nn.Conv2d(width, 1, 7, padding=3) for width in read)

    def forward(self, levels: list[Tensor]) -> tuple[Tensor, ...]:
        """Reads the decoder's features, smallest first: (B, 1, H/8, W/8), ..., (B, 1, H, W), in [0, 1]."""
        features = levels[len(levels) - self.coarser :]
        for block in self.up:
            features.append(block(features[-1]))
        return tuple(torch.sigmoid(layer(x)) for layer, x in zip(self.maps, features, strict=True))


def finer_maps(scale_factor: float) -> int:
    """How many of the occlusion maps are finer than an hourglass of this scale factor, a power of 1/2."""
    return round(-math.log2(scale_factor))


class DenseMotionNetwork(nn.Module):
    """Predicts masks by an hourglass that sees a reduced source, deformed by each part's motion.

    Args:
        config: sizes, and whether occlusion is estimated.
        num_keypoints: the number of parts K.
    """

    def __init__(self, config: DenseMotionConfig, num_keypoints: int) -> None:
        super().__init__()
        self._build(config, num_keypoints, (num_keypoints + 1) * (3 + 1))

    def _build(self, config: DenseMotionConfig, parts: int, inputs: int, norm: Norm = nn.BatchNorm2d) -> None:
        """Makes the layers, for an hourglass with so many input channels."""
        self.scale_factor = config.scale_factor
        self.keypoint_variance = config.keypoint_variance
        self.exact, self.padding = config.exact_sampling, config.padding
        self.hourglass = Hourglass(inputs, config.block_expansion, config.max_features, config.num_blocks, norm)
        channels = self.hourglass.out_channels
        self.mask = nn.Conv2d(channels, parts + 1, 7, padding=3)
        self.occlusion: nn.Conv2d | OcclusionMaps | None = None
        if config.multi_occlusion:
            self.occlusion = OcclusionMaps(self.hourglass.decoder.channels, config.scale_factor, norm)
        elif config.occlusion:
            self.occlusion = nn.Conv2d(channels, 1, 7, padding=3)

    def reduce(self, source: Tensor) -> Tensor:
        """Reduces a source (B, 3, H, W) to the size that masks are computed at: (B, 3, scale * H, scale * W)."""
        return antialias_downsample(source, self.scale_factor)

    def forward(
        self, reduced: Tensor, source: Motion, driving: Motion, background: Tensor | None = None
    ) -> DenseMotion:
        """Combines the motions of parts and background to a dense flow.

        Args:
            reduced: (B or 1, 3, h, w), the source from `reduce`.
            source: motion of the source, batch size B or 1.
            driving: motion of the driving frames, batch size B.
            background: (B, 3, 3) from the background predictor; None: the background stands still.

        Returns:
            Masks, flow and occlusion of batch size B, at h x w.
        """
        batch = driving.keypoints.shape[0]  # `len` would become a constant in an export
        grid = coordinate_grid(reduced.shape[2], reduced.shape[3], like=driving.keypoints)
        still = grid[None] if background is None else background_grid(background, grid)
        motions = torch.cat([still.expand(batch, -1, -1, -1)[:, None], self._motions(source, driving, grid)], dim=1)
        heatmaps = self._heatmaps(driving, grid) - self._heatmaps(source, grid)
        inputs = self._inputs(reduced.expand(batch, -1, -1, -1), motions, heatmaps)
        occlusions: tuple[Tensor, ...] = ()
        if isinstance(self.occlusion, OcclusionMaps):
            *coarser, features = self.hourglass.levels(inputs)
            occlusions = self.occlusion([*coarser, features])
            occlusion: Tensor | None = occlusions[-1]
        else:
            features = self.hourglass(inputs)
            occlusion = None if self.occlusion is None else torch.sigmoid(self.occlusion(features))
        masks = self._masks(self.mask(features).to(motions.dtype))
        flow = (masks[..., None] * motions).sum(dim=1)
        return DenseMotion(masks, flow, occlusion, self.exact, padding=self.padding, occlusions=occlusions)

    def _motions(self, source: Motion, driving: Motion, grid: Tensor) -> Tensor:
        """The motion of each part: (B, K, h, w, 2)."""
        return sparse_motions(source, driving, grid)

    def _masks(self, logits: Tensor) -> Tensor:
        return torch.softmax(logits, dim=1)

    def _heatmaps(self, motion: Motion, grid: Tensor) -> Tensor:
        """A Gaussian about each keypoint: (B, K, h, w)."""
        offset = grid[None, None] - motion.keypoints[:, :, None, None]
        x, y = offset.unbind(dim=-1)
        exponent = (x**2 + y**2) / (2 * self.keypoint_variance)
        # Without the smallest numbers, with which a CPU's convolutions take several times as long.
        return torch.exp(-exponent).masked_fill(exponent > FARTHEST, 0)

    def _inputs(self, reduced: Tensor, motions: Tensor, heatmaps: Tensor) -> Tensor:
        """[heat map, deformed source], background first, then each part: (B, 4 (K+1), h, w)."""
        deformed = self._deformed(reduced, motions)
        heat = with_background(heatmaps)[:, :, None]
        return torch.cat([heat.to(deformed.dtype), deformed], dim=2).flatten(1, 2)

    def _deformed(self, reduced: Tensor, motions: Tensor) -> Tensor:
        """The reduced source, deformed by each of P motions (B, P, h, w, 2): (B, P, 3, h, w)."""
        # The parts' grids are stacked along the height, so that the source need not be copied P times.
        deformed = sample(reduced, motions.flatten(1, 2), self.padding, exact=self.exact)
        return deformed.unflatten(2, (motions.shape[1], motions.shape[2])).transpose(1, 2)


def with_background(heatmaps: Tensor) -> Tensor:
    """Heat maps (B, K, h, w) with one of zeros for the background in front."""
    return torch.cat([torch.zeros_like(heatmaps[:, :1]), heatmaps], dim=1)
