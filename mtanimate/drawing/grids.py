"""Pictures in rows and columns."""

import numpy as np
from torch import Tensor

from mtanimate.video.crop import to_frames


def grid(columns: list[Tensor]) -> np.ndarray:
    """One column a list entry (B, 3 or 1, H, W) in [0, 1], one row a batch item -> (B H, columns W, 3) uint8."""
    pictures = [to_frames(column.detach().expand(-1, 3, -1, -1)) for column in columns]
    return np.concatenate([np.concatenate(row, axis=1) for row in zip(*pictures, strict=True)])
