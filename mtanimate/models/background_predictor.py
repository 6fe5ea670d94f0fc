"""The background predictor: one affine map from the driving frame's background to the source's (section 3.3)."""

import torch
from torch import Tensor, nn

from mtanimate.config import BackgroundConfig
from mtanimate.geometry import transform_points
from mtanimate.models.blocks import Encoder
from mtanimate.models.resnet import ResNet18


class BackgroundPredictor(nn.Module):
    """An encoder of source and driving frame, concatenated, and a linear layer; starts as the identity.

    Args:
        config: which encoder, and its sizes.
    """

    def __init__(self, config: BackgroundConfig) -> None:
        super().__init__()
        self.resnet: ResNet18 | None = None
        if config.resnet:
            self.resnet = ResNet18(6, 6, config.block_expansion)
            _start_still(self.resnet.fc)
            return
        self.encoder = Encoder(6, config.block_expansion, config.max_features, config.num_blocks)
        self.fc = nn.Linear(self.encoder.out_channels, 6)
        _start_still(self.fc)

    def forward(self, source: Tensor, driving: Tensor) -> Tensor:
        """Predicts the motion of the background.

        Args:
            source: (B, 3, H, W) in [0, 1].
            driving: (B, 3, H, W) in [0, 1].

        Returns:
            (B, 3, 3), rows (a, b, c), (d, e, f), (0, 0, 1): maps driving coordinates (x, y, 1) to source coordinates.
        """
        both = torch.cat([source, driving], dim=1)
        if self.resnet is not None:
            numbers = self.resnet(both)
        else:
            *_, deepest = self.encoder(both)
            numbers = self.fc(deepest.mean(dim=(2, 3)))
        rows = numbers.unflatten(1, (2, 3))
        last = torch.tensor([0.0, 0, 1], dtype=rows.dtype, device=rows.device).expand(rows.shape[0], 1, 3)
        return torch.cat([rows, last], dim=1)


def _start_still(layer: nn.Linear) -> None:
    """Lets a layer of six outputs give the identity, whatever it sees."""
    nn.init.zeros_(layer.weight)
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0]))


def background_grid(matrix: Tensor, grid: Tensor) -> Tensor:
    """Applies the background's motion to a grid.

    Args:
        matrix: (B, 3, 3) from the predictor.
        grid: (h, w, 2), (x, y) in [-1, 1].

    Returns:
        (B, h, w, 2): the source coordinate of the background at each driving coordinate.
    """
    matrix = matrix[:, None, None]
    moved = transform_points(matrix[..., :2, :2], grid) + matrix[..., :2, 2]
    depth = matrix[..., 2, 0] * grid[..., 0] + matrix[..., 2, 1] * grid[..., 1] + matrix[..., 2, 2]
    return moved / depth[..., None]
