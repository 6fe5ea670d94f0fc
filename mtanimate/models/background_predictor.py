"""Background motion: one affine map from the driving frame's background to the source's (section 3.3)."""

import torch
from torch import Tensor, nn

from mtanimate.config import BackgroundConfig
from mtanimate.geometry import transform_points
from mtanimate.models.blocks import Encoder


class BackgroundPredictor(nn.Module):
    """An encoder on source and driving together; starts at the identity."""

    def __init__(self, config: BackgroundConfig) -> None:
        super().__init__()
        self.encoder = Encoder(6, config.block_expansion, config.max_features, config.num_blocks)
        self.fc = nn.Linear(self.encoder.out_channels, 6)
        nn.init.zeros_(self.fc.weight)
        with torch.no_grad():
            self.fc.bias.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0]))

    def forward(self, source: Tensor, driving: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [0, 1] -> (B, 3, 3), rows (a, b, c), (d, e, f), (0, 0, 1): driving to source."""
        *_, deepest = self.encoder(torch.cat([source, driving], dim=1))
        rows = self.fc(deepest.mean(dim=(2, 3))).unflatten(1, (2, 3))
        last = torch.tensor([0.0, 0, 1], dtype=rows.dtype, device=rows.device).expand(rows.shape[0], 1, 3)
        return torch.cat([rows, last], dim=1)


def background_grid(matrix: Tensor, grid: Tensor) -> Tensor:
    """Where the background of each driving coordinate lies in the source: (B, 3, 3), (h, w, 2) -> (B, h, w, 2)."""
    matrix = matrix[:, None, None]
    moved = transform_points(matrix[..., :2, :2], grid) + matrix[..., :2, 2]
    depth = matrix[..., 2, 0] * grid[..., 0] + matrix[..., 2, 1] * grid[..., 1] + matrix[..., 2, 2]
    return moved / depth[..., None]
