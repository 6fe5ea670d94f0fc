"""The motion estimators of FOMM (Siarohin et al., NeurIPS 2019) and Monkey-Net (Siarohin et al., CVPR 2019)."""

import torch
from torch import Tensor, nn

from mtanimate.config import HeatmapEstimatorConfig
from mtanimate.geometry import antialias_downsample, coordinate_grid
from mtanimate.models.blocks import Hourglass
from mtanimate.models.motion import Motion


class HeatmapEstimator(nn.Module):
    """An hourglass on a reduced picture, and a head that gives each part a heat map, whose mean is the keypoint.

    Args:
        config: sizes, and the temperature of the softmax.
        num_keypoints: the number of parts K.
    """

    def __init__(self, config: HeatmapEstimatorConfig, num_keypoints: int) -> None:
        super().__init__()
        self.config = config
        self.num_keypoints = num_keypoints
        self.hourglass = Hourglass(3, config.block_expansion, config.max_features, config.num_blocks)
        self.heatmap_head = self._head(num_keypoints)

    def _head(self, channels: int) -> nn.Conv2d:
        return nn.Conv2d(self.hourglass.out_channels, channels, 7, padding=self.config.padding)

    def detect(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Finds keypoints as means of heat maps.

        Args:
            image: (B, 3, H, W) in [0, 1].

        Returns:
            Features (B, C, h, w); heat maps (B, K, h', w'), each summing to 1; keypoints (B, K, 2), (x, y) in [-1, 1].
        """
        features = self.hourglass(antialias_downsample(image, self.config.scale_factor))
        logits = self.heatmap_head(features)
        logits = logits.to(
            torch.promote_types(logits.dtype, torch.float32)
        )  # half precision is not enough for coordinates
        size = (logits.shape[2], logits.shape[3])
        heatmaps = torch.softmax(logits.flatten(2) / self.config.temperature, dim=2).unflatten(2, size)
        # The map's own grid: without padding, too, its outermost pixels lie on -1 and 1.
        grid = coordinate_grid(*size, like=heatmaps)
        return features, heatmaps, (heatmaps[..., None] * grid).sum(dim=(2, 3))


class KeypointDetector(HeatmapEstimator):
    """Keypoints with affine matrices. FOMM regresses maps of matrices and averages them by the heat maps; Monkey-Net
    has keypoints alone, and every matrix is the identity. Arguments as `HeatmapEstimator`.
    """

    def __init__(self, config: HeatmapEstimatorConfig, num_keypoints: int) -> None:
        super().__init__(config, num_keypoints)
        self.affine_head: nn.Conv2d | None = None
        if config.name == "fomm":
            sets = 1 if config.shared_affine else num_keypoints
            self.affine_head = self._head(4 * sets)
            nn.init.zeros_(self.affine_head.weight)
            assert self.affine_head.bias is not None
            with torch.no_grad():
                self.affine_head.bias.view(sets, 4).copy_(torch.tensor([1.0, 0, 0, 1]))

    def forward(self, image: Tensor) -> Motion:
        """Estimates the motion of each picture, (B, 3, H, W) in [0, 1]."""
        features, heatmaps, keypoints = self.detect(image)
        if self.affine_head is None:
            return Motion(keypoints, torch.eye(2).to(keypoints).expand(*keypoints.shape[:2], 2, 2))
        maps = self.affine_head(features).to(heatmaps.dtype).unflatten(1, (-1, 4))  # (B, K or 1, 4, h', w')
        affine = (heatmaps[:, :, None] * maps).sum(dim=(3, 4))
        return Motion(keypoints, affine.unflatten(2, (2, 2)))
