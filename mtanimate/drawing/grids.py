"""Pictures in rows and columns."""

import numpy as np
import torch
from torch import Tensor


def to_picture(image: Tensor) -> np.ndarray:
    """(3 or 1, H, W) in [0, 1] -> (H, W, 3) uint8, rounded."""
    rgb = image.detach().float().clamp(0, 1).expand(3, -1, -1)
    return (rgb * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()


def grid(columns: list[Tensor]) -> np.ndarray:
    """One column a list entry (B, 3 or 1, H, W) in [0, 1], one row a batch item -> (B H, columns W, 3) uint8."""
    rows = zip(*columns, strict=True)
    return np.concatenate([np.concatenate([to_picture(image) for image in row], axis=1) for row in rows])
