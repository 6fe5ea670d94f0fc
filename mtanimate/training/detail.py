"""Results at full size, in a way that gradients pass: what detail the flow and the gate let through."""

import torch
from torch import Tensor
from torch.nn import functional as F

from mtanimate.geometry import coordinate_grid, full_precision
from mtanimate.inference.enlargement import MIDDLE, take_apart
from mtanimate.models.dense_motion import DenseMotion


def at_full_size(full: Tensor, picture: Tensor, prediction: Tensor, dense: DenseMotion) -> Tensor:
    """The prediction with the detail of the source at full size, as `SourcePixels` renders it.

    Gradients reach the prediction, the flow and the occlusion.

    Args:
        full: The sources at full size, (B, 3, F, F) in [0, 1].
        picture: The same, reduced: (B, 3, R, R).
        prediction: What the network made of it, the same shape.
        dense: The dense motion that it was made with.

    Returns:
        (B, 3, F, F).
    """
    with full_precision(full.device):
        layers = take_apart(picture, prediction, dense)
        size = (full.shape[2], full.shape[3])
        maps = torch.cat([layers.painted, layers.gate], dim=1)
        large = F.interpolate(maps, size, mode="bicubic", align_corners=False, antialias=True)
        painted, gate = large.split([3, 1], dim=1)
        centres = coordinate_grid(*size, like=full) * (1 - 1 / size[0])  # -1 and 1 are the picture's edges
        knots = (centres / (1 - 2 * layers.inset)).expand(len(full), -1, -1, -1)
        movement = F.grid_sample(layers.movement, knots, mode="bicubic", padding_mode="border", align_corners=True)
        read = centres + 2 * movement.permute(0, 2, 3, 1)
        detail = F.grid_sample(full - MIDDLE, read, padding_mode="border", align_corners=False)
        return painted + gate * detail
