"""From sparse motions to one dense flow: masks, flow and occlusion (Eq. 2)."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtanimate.config import DenseMotionConfig
from mtanimate.geometry import (
    antialias_downsample,
    coordinate_grid,
    inverse_2x2,
    matmul_2x2,
    sample,
    transform_points,
    warp,
)
from mtanimate.models.background import background_grid
from mtanimate.models.blocks import Hourglass
from mtanimate.models.face_points import JAW, LEFT_BROW, LEFT_EYE, MOUTH, RIGHT_BROW, RIGHT_EYE, SKULL
from mtanimate.models.motion import Motion, sparse_motions

# How wide a part's mask begins, in a face's own coordinates; and the logit of what stands still, which no Gaussian has.
SIGMAS = [0.055] * len(MOUTH) + [0.045] * len(RIGHT_EYE | LEFT_EYE) + [0.1] * len(RIGHT_BROW | LEFT_BROW)
SIGMAS += [0.2] * len(JAW) + [0.26] * len(SKULL)
STILL = -3.0


@dataclass(frozen=True)
class DenseMotion:
    """masks: (B, K+1, h, w), background first, summing to 1 over the parts.

    flow: (B, h, w, 2), for each driving coordinate the source coordinate (x, y) to read.
    occlusion: (B, 1, h, w) in [0, 1]; 1 where the warped source is to be trusted. None where not estimated.
    exact: how the flow is to be read (see `mtanimate.geometry`).
    """

    masks: Tensor
    flow: Tensor
    occlusion: Tensor | None
    exact: bool = False

    def warp(self, image: Tensor) -> Tensor:
        """The source, or features of it of any size (B, C, H, W), moved by the flow."""
        return warp(image, self.flow, exact=self.exact)

    def detach(self) -> "DenseMotion":
        return self.each(Tensor.detach)

    def each(self, function: Callable[[Tensor], Tensor]) -> "DenseMotion":
        occlusion = None if self.occlusion is None else function(self.occlusion)
        return replace(self, masks=function(self.masks), flow=function(self.flow), occlusion=occlusion)


class DenseMotionNetwork(nn.Module):
    """The mask predictor: an hourglass on a reduced source, deformed by each part's motion."""

    def __init__(self, config: DenseMotionConfig, num_keypoints: int) -> None:
        super().__init__()
        self.scale_factor = config.scale_factor
        self.keypoint_variance = config.keypoint_variance
        self.exact = config.exact_sampling
        inputs = (num_keypoints + 1) * (3 + 1)
        self.hourglass = Hourglass(inputs, config.block_expansion, config.max_features, config.num_blocks)
        self.prior = PriorMasks(self.hourglass.out_channels, config, num_keypoints) if config.prior else None
        if self.prior is not None:
            return
        self.mask = nn.Conv2d(self.hourglass.out_channels, num_keypoints + 1, 7, padding=3)
        self.occlusion = None
        if config.occlusion:
            self.occlusion = nn.Conv2d(self.hourglass.out_channels, 1, 7, padding=3)

    def reduce(self, source: Tensor) -> Tensor:
        """The source at the size the masks are computed at: (B, 3, scale * H, scale * W)."""
        return antialias_downsample(source, self.scale_factor)

    def forward(
        self, reduced: Tensor, source: Motion, driving: Motion, background: Tensor | None = None
    ) -> DenseMotion:
        """`reduced` (B or 1, 3, h, w) from `reduce`; motions of batch B (source: or 1); background (B, 3, 3)."""
        batch = driving.keypoints.shape[0]  # not `len`, which an export would take for a constant
        grid = coordinate_grid(reduced.shape[2], reduced.shape[3], like=driving.keypoints)
        still = grid[None] if background is None else background_grid(background, grid)
        motions = torch.cat([still.expand(batch, -1, -1, -1)[:, None], sparse_motions(source, driving, grid)], dim=1)
        heatmaps = self._heatmaps(driving, grid) - self._heatmaps(source, grid)
        features = self.hourglass(self._inputs(reduced.expand(batch, -1, -1, -1), motions, heatmaps))
        if self.prior is not None:
            return self.prior(features, source, driving, background, self.exact)
        masks = torch.softmax(self.mask(features).to(motions.dtype), dim=1)
        flow = (masks[..., None] * motions).sum(dim=1)
        occlusion = None if self.occlusion is None else torch.sigmoid(self.occlusion(features))
        return DenseMotion(masks, flow, occlusion, self.exact)

    def _heatmaps(self, motion: Motion, grid: Tensor) -> Tensor:
        """A Gaussian on each keypoint: (B, K, h, w)."""
        offset = grid[None, None] - motion.keypoints[:, :, None, None]
        return torch.exp(-(offset**2).sum(dim=-1) / (2 * self.keypoint_variance))

    def _inputs(self, reduced: Tensor, motions: Tensor, heatmaps: Tensor) -> Tensor:
        """[heat map, deformed source] for background and parts in turn: (B, 4 (K+1), h, w)."""
        batch, parts, height, width = motions.shape[:4]
        # The parts' grids stacked along the height read one source: no K+1 copies of it.
        deformed = sample(reduced, motions.flatten(1, 2), exact=self.exact)
        deformed = deformed.unflatten(2, (parts, height)).transpose(1, 2)
        no_heat = heatmaps.new_zeros(batch, 1, height, width)
        heat = torch.cat([no_heat, heatmaps], dim=1)[:, :, None]
        return torch.cat([heat.to(deformed.dtype), deformed], dim=2).flatten(1, 2)


class PriorMasks(nn.Module):
    """Masks, flow and occlusion of a face whose keypoints are tied, at twice the size of `features` (B, C, h, w).

    A part's mask begins as a Gaussian about its driving keypoint, as wide as the part, in the face's own coordinates:
    so an eyelid has a mask before anything is learned, and finer than the hourglass's cells.
    """

    def __init__(self, inputs: int, config: DenseMotionConfig, num_keypoints: int) -> None:
        super().__init__()
        width = config.block_expansion
        self.conv1 = nn.Conv2d(inputs, width, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width + num_keypoints, width, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(width)
        self.mask = nn.Conv2d(width, num_keypoints + 1, 3, padding=1)
        self.occlusion = nn.Conv2d(width, 1, 3, padding=1) if config.occlusion else None
        self.log_sigma = nn.Parameter(torch.tensor(SIGMAS).log())
        self.still = nn.Parameter(torch.tensor(STILL))
        if not self.still.is_meta:
            nn.init.zeros_(self.mask.weight)
            assert self.mask.bias is not None
            nn.init.zeros_(self.mask.bias)

    def forward(
        self, features: Tensor, source: Motion, driving: Motion, background: Tensor | None, exact: bool
    ) -> DenseMotion:
        grid = coordinate_grid(2 * features.shape[2], 2 * features.shape[3], like=driving.keypoints)
        inverse = inverse_2x2(driving.affine[:, :1])  # one matrix serves all parts: the skull's
        gaussians = self._gaussians(driving.keypoints, inverse, grid)
        x = F.relu(self.bn1(self.conv1(features)))
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        x = torch.cat([x, gaussians.exp().to(x.dtype)], dim=1)
        x = F.relu(self.bn2(self.conv2(x)))
        still = self.still.expand(len(gaussians), 1, *grid.shape[:2])
        masks = torch.softmax(self.mask(x).to(gaussians.dtype) + torch.cat([still, gaussians], dim=1), dim=1)
        flow = self._flow(masks, source, driving, inverse, grid, background)
        occlusion = None if self.occlusion is None else torch.sigmoid(self.occlusion(x))
        return DenseMotion(masks, flow, occlusion, exact)

    def _gaussians(self, keypoints: Tensor, inverse: Tensor, grid: Tensor) -> Tensor:
        """Logarithms, 0 on the keypoints: (B, K, h, w)."""
        places = transform_points(inverse[:, None], grid)
        offset = places[:, None] - transform_points(inverse, keypoints)[:, :, None, None]
        return -offset.square().sum(dim=-1) * (-2 * self.log_sigma).exp()[:, None, None] / 2

    def _flow(
        self, masks: Tensor, source: Motion, driving: Motion, inverse: Tensor, grid: Tensor, background: Tensor | None
    ) -> Tensor:
        """As Eq. 2, with Eq. 1 taken apart: the turn, which all parts share, and each part's shift."""
        turn = matmul_2x2(source.affine[:, :1], inverse)
        shifts = source.keypoints - transform_points(turn, driving.keypoints)
        still = grid if background is None else background_grid(background, grid)
        moved = transform_points(turn[:, None], grid)
        resting = masks[:, 0, ..., None]
        shifted = (masks[:, 1:, ..., None] * shifts[:, :, None, None]).sum(dim=1)
        return resting * still + (1 - resting) * moved + shifted
