"""From the tied keypoints of two faces to one dense flow: masks that begin as Gaussians about them."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtanimate.config import DenseMotionConfig
from mtanimate.geometry import (
    antialias_downsample,
    coordinate_grid,
    full_precision,
    inverse_2x2,
    matmul_2x2,
    sample,
    transform_points,
)
from mtanimate.models.blocks import Hourglass
from mtanimate.models.dense_motion import DenseMotion
from mtanimate.models.face_points import (
    COUNT,
    JAW,
    LEFT_BROW,
    LEFT_EYE,
    MOUTH,
    RIGHT_BROW,
    RIGHT_EYE,
    SKULL,
    face_frame,
)
from mtanimate.models.motion import Motion

# How wide a part's mask begins, in a face's own coordinates; and the logit of what stands still, which no Gaussian has.
SIGMAS = [0.055] * len(MOUTH) + [0.045] * len(RIGHT_EYE | LEFT_EYE) + [0.1] * len(RIGHT_BROW | LEFT_BROW)
SIGMAS += [0.2] * len(JAW) + [0.26] * len(SKULL)
STILL = -3.0
_HEAT = 0.1  # standard deviation of the heat maps that the hourglass sees: its cells are coarser than an eyelid


class FaceMotionNetwork(nn.Module):
    """The mask predictor for a face, in place of `DenseMotionNetwork`: flow and occlusion at twice the hourglass's
    size.

    A part's mask begins as a Gaussian about its driving keypoint, as wide as the part: so an eyelid has a mask before
    anything is learned, and finer than the hourglass's cells. The hourglass sees the source in place, moved with the
    skull, and moved by those first masks, where the paper's sees it moved by every part.
    """

    def __init__(self, config: DenseMotionConfig) -> None:
        super().__init__()
        self.scale_factor = config.scale_factor
        self.exact = config.exact_sampling
        width = config.block_expansion
        self.hourglass = Hourglass(3 * 3 + COUNT, width, config.max_features, config.num_blocks)
        self.conv1 = nn.Conv2d(self.hourglass.out_channels, width, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width + COUNT, width, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(width)
        self.mask = nn.Conv2d(width, COUNT + 1, 3, padding=1)
        self.occlusion = nn.Conv2d(width, 1, 3, padding=1) if config.occlusion else None
        self.log_sigma = nn.Parameter(torch.tensor(SIGMAS).log())
        self.still = nn.Parameter(torch.tensor(STILL))
        if not self.still.is_meta:
            nn.init.zeros_(self.mask.weight)
            assert self.mask.bias is not None
            nn.init.zeros_(self.mask.bias)

    def reduce(self, source: Tensor) -> Tensor:
        """The source at the size of the hourglass: (B, 3, scale * H, scale * W)."""
        return antialias_downsample(source, self.scale_factor)

    def forward(
        self, reduced: Tensor, source: Motion, driving: Motion, background: Tensor | None = None
    ) -> DenseMotion:
        """`reduced` (B or 1, 3, h, w) from `reduce`; motions of batch B (source: or 1). The background stands still."""
        height, width = reduced.shape[2:]
        with full_precision(reduced.device):
            moves = _Moves(source, driving)
            grid = coordinate_grid(height, width, like=driving.keypoints)
            inputs = self._inputs(reduced, source, moves, grid)
        x = F.relu(self.bn1(self.conv1(self.hourglass(inputs))))
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        grid = coordinate_grid(2 * height, 2 * width, like=driving.keypoints)
        with full_precision(reduced.device):
            distances = moves.distances(grid)
            logits = self._logits(distances)
        x = torch.cat([x, self._heat(distances).to(x.dtype)], dim=1)
        x = F.relu(self.bn2(self.conv2(x)))
        masks = torch.softmax(self.mask(x).to(logits.dtype) + logits, dim=1)
        with full_precision(reduced.device):
            flow = moves.flow(masks, grid)
        occlusion = None if self.occlusion is None else torch.sigmoid(self.occlusion(x))
        return DenseMotion(masks, flow, occlusion, self.exact)

    def _inputs(self, reduced: Tensor, source: Motion, moves: "_Moves", grid: Tensor) -> Tensor:
        """Heat maps of the driving face less the source's, and the source three times: (B, 9 + K, h, w)."""
        distances = moves.distances(grid)
        heat = self._heat(distances) - self._heat(_Moves(source, source).distances(grid))
        flows = [moves.with_skull(grid), moves.flow(torch.softmax(self._logits(distances), dim=1), grid)]
        still = reduced.float().expand(heat.shape[0], -1, -1, -1)
        moved = [sample(still, flow, exact=self.exact) for flow in flows]
        return torch.cat([still, *moved, heat], dim=1)

    def _logits(self, distances: Tensor) -> Tensor:
        """Of the first masks, what stands still first: (B, K+1, h, w)."""
        gaussians = distances * ((-2 * self.log_sigma).exp() / -2)[:, None, None]
        return torch.cat([self.still.expand(distances.shape[0], 1, *distances.shape[2:]), gaussians], dim=1)

    def _heat(self, distances: Tensor) -> Tensor:
        return torch.exp(distances / (-2 * _HEAT**2))


class _Moves:
    """Eq. 1 for all points of a face, which share their skull's turn: a place z of the driving picture is read at
    turn z + shift."""

    def __init__(self, source: Motion, driving: Motion) -> None:
        self.inverse = inverse_2x2(driving.affine[:, 0])
        self.middles = transform_points(self.inverse[:, None], driving.keypoints)
        self.turn = matmul_2x2(source.affine[:, 0], self.inverse)
        self.shifts = source.keypoints - transform_points(self.turn[:, None], driving.keypoints)
        origins = (face_frame(motion.keypoints)[1] for motion in (source, driving))
        self.skull = next(origins) - transform_points(self.turn, next(origins))

    def distances(self, grid: Tensor) -> Tensor:
        """Squared, of each place of the grid (h, w, 2) from each keypoint, in face coordinates: (B, K, h, w)."""
        places = transform_points(self.inverse[:, None, None], grid).flatten(1, 2)
        squares = self.middles.square().sum(dim=-1)[:, :, None] + places.square().sum(dim=-1)[:, None]
        # By a product of matrices: coordinate by coordinate, it would take longer than the convolutions.
        squared = torch.baddbmm(squares, self.middles, places.transpose(1, 2), alpha=-2)
        return squared.unflatten(2, grid.shape[:2])

    def with_skull(self, grid: Tensor) -> Tensor:
        """The flow (B, h, w, 2) of a face without features."""
        return transform_points(self.turn[:, None, None], grid) + self.skull[:, None, None]

    def flow(self, masks: Tensor, grid: Tensor) -> Tensor:
        """Eq. 2: (B, h, w, 2), of masks (B, K+1, h, w), what stands still first."""
        moved = transform_points(self.turn[:, None, None], grid)
        shifted = (masks[:, 1:].flatten(2).transpose(1, 2) @ self.shifts).unflatten(1, grid.shape[:2])
        return torch.lerp(moved, grid.expand_as(moved), masks[:, 0, ..., None]) + shifted
