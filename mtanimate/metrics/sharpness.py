"""How sharp a generated frame is, against the true one."""

import math

import numpy as np
import torch
from torch import Tensor

_LUMA = (0.299, 0.587, 0.114)  # of R, G and B (BT.601)


def sharpness(truth: Tensor, generated: Tensor, landmarks: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The mean gradient magnitude of generated frames over that of the true ones, within the subject's box.

    Args:
        truth: (B, 3, H, W) in [0, 1], at least 3 pixels a side.
        generated: The same shape.
        landmarks: Of the true frames, (B, N, 2 or 3) in pixels, NaN where they are not found. A frame without any
            counts as a whole.

    Returns:
        Ratios (B,), 1 for a frame as sharp as the truth; counts (B,), 0 where the truth is of a single colour.
    """
    true_edges, edges = _gradients(truth), _gradients(generated)
    ratios, counts = np.zeros(len(truth)), np.zeros(len(truth), int)
    for index in range(len(truth)):
        box = _box(None if landmarks is None else landmarks[index], edges.shape[1], edges.shape[2])
        of_truth = float(true_edges[index][box].mean())
        if of_truth > 0:
            ratios[index], counts[index] = float(edges[index][box].mean()) / of_truth, 1
    return ratios, counts


def _gradients(frames: Tensor) -> Tensor:
    """Magnitudes of the luminance's gradient, by central differences: (B, 3, H, W) -> (B, H - 2, W - 2)."""
    light = (frames * frames.new_tensor(_LUMA)[:, None, None]).sum(dim=1)
    across = light[:, 1:-1, 2:] - light[:, 1:-1, :-2]
    down = light[:, 2:, 1:-1] - light[:, :-2, 1:-1]
    return torch.hypot(across, down) / 2


def _box(landmarks: np.ndarray | None, height: int, width: int) -> tuple[slice, slice]:
    """The rows and columns of gradients that hold the landmarks (N, 2 or 3); all where none lies in the frame."""
    if landmarks is not None and np.isfinite(landmarks).any():
        (left, top), (right, bottom) = np.nanmin(landmarks[:, :2], axis=0), np.nanmax(landmarks[:, :2], axis=0)
        # The first gradient is that of pixel 1.
        rows = slice(max(math.floor(top) - 1, 0), min(math.ceil(bottom), height))
        columns = slice(max(math.floor(left) - 1, 0), min(math.ceil(right), width))
        if rows.start < rows.stop and columns.start < columns.stop:
            return rows, columns
    return slice(None), slice(None)
