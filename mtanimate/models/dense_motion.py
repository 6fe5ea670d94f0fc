"""The dense motion network: from sparse motions to masks, one dense flow and occlusion (Eq. 2)."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from mtanimate.config import DenseMotionConfig
from mtanimate.geometry import antialias_downsample, coordinate_grid, sample, warp
from mtanimate.models.background_predictor import background_grid
from mtanimate.models.blocks import Hourglass
from mtanimate.models.motion import Motion, sparse_motions


@dataclass(frozen=True)
class DenseMotion:
    """How each pixel of the driving picture is found in the source.

    Attributes:
        masks: (B, K+1, h, w), the background's first, summing to 1 over the parts.
        flow: (B, h, w, 2), the source coordinate (x, y) in [-1, 1] to read for each driving coordinate.
        occlusion: (B, 1, h, w) in [0, 1], 1 where the warped source is visible; None where it is not estimated.
        exact: whether the flow is sampled exactly (see `mtanimate.geometry`).
        openings: (B, 6, h, w), what the generator of a face is told of eyes and mouth, else None.
    """

    masks: Tensor
    flow: Tensor
    occlusion: Tensor | None
    exact: bool = False
    openings: Tensor | None = None

    def warp(self, image: Tensor) -> Tensor:
        """Warps the source, or its features of any size, (B, C, H, W), by the flow."""
        return warp(image, self.flow, exact=self.exact)

    def detach(self) -> "DenseMotion":
        return self.each(Tensor.detach)

    def each(self, function: Callable[[Tensor], Tensor]) -> "DenseMotion":
        """Applies a function to every tensor."""
        occlusion = None if self.occlusion is None else function(self.occlusion)
        openings = None if self.openings is None else function(self.openings)
        masks, flow = function(self.masks), function(self.flow)
        return replace(self, masks=masks, flow=flow, occlusion=occlusion, openings=openings)


class DenseMotionNetwork(nn.Module):
    """Predicts masks by an hourglass that sees a reduced source, deformed by each part's motion.

    Args:
        config: sizes, and whether occlusion is estimated.
        num_keypoints: the number of parts K.
    """

    def __init__(self, config: DenseMotionConfig, num_keypoints: int) -> None:
        super().__init__()
        self.scale_factor = config.scale_factor
        self.keypoint_variance = config.keypoint_variance
        self.exact = config.exact_sampling
        inputs = (num_keypoints + 1) * (3 + 1)
        self.hourglass = Hourglass(inputs, config.block_expansion, config.max_features, config.num_blocks)
        self.mask = nn.Conv2d(self.hourglass.out_channels, num_keypoints + 1, 7, padding=3)
        self.occlusion = None
        if config.occlusion:
            self.occlusion = nn.Conv2d(self.hourglass.out_channels, 1, 7, padding=3)

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
        motions = torch.cat([still.expand(batch, -1, -1, -1)[:, None], sparse_motions(source, driving, grid)], dim=1)
        heatmaps = self._heatmaps(driving, grid) - self._heatmaps(source, grid)
        features = self.hourglass(self._inputs(reduced.expand(batch, -1, -1, -1), motions, heatmaps))
        masks = torch.softmax(self.mask(features).to(motions.dtype), dim=1)
        flow = (masks[..., None] * motions).sum(dim=1)
        occlusion = None if self.occlusion is None else torch.sigmoid(self.occlusion(features))
        return DenseMotion(masks, flow, occlusion, self.exact)

    def _heatmaps(self, motion: Motion, grid: Tensor) -> Tensor:
        """A Gaussian about each keypoint: (B, K, h, w)."""
        offset = grid[None, None] - motion.keypoints[:, :, None, None]
        return torch.exp(-(offset**2).sum(dim=-1) / (2 * self.keypoint_variance))

    def _inputs(self, reduced: Tensor, motions: Tensor, heatmaps: Tensor) -> Tensor:
        """[heat map, deformed source], background first, then each part: (B, 4 (K+1), h, w)."""
        batch, parts, height, width = motions.shape[:4]
        # The parts' grids are stacked along the height, so that the source need not be copied K+1 times.
        deformed = sample(reduced, motions.flatten(1, 2), exact=self.exact)
        deformed = deformed.unflatten(2, (parts, height)).transpose(1, 2)
        no_heat = heatmaps.new_zeros(batch, 1, height, width)
        heat = torch.cat([no_heat, heatmaps], dim=1)[:, :, None]
        return torch.cat([heat.to(deformed.dtype), deformed], dim=2).flatten(1, 2)
