"""What ties motion tokens to a face: the distance of their keypoints to points of its mesh."""

from functools import lru_cache

import torch
from torch import Tensor

from mtanimate.geometry import CPU
from mtanimate.models.face_points import (
    COUNT,
    LEFT_BROW,
    LEFT_EYE,
    MOUTH,
    RIGHT_BROW,
    RIGHT_EYE,
    VERTICES,
    indices,
)

# Features move by less than a head does, so their shapes count by themselves: points relative to their group's middle,
# openings, and irises between the corners of their eyes. So do those by whose places a head is seen to turn and nod,
# the nose's tip against the eyes above all.
_FEATURES = (MOUTH, RIGHT_EYE, LEFT_EYE, [*RIGHT_BROW, *LEFT_BROW, 33, 263])
_POSE = (1, 152, 168, 10, 33, 263, 133, 362, 234, 454, 50, 280)
_GROUPS = [(3.0, indices(group)) for group in _FEATURES] + [(6.0, indices(_POSE))]
_TIP, _EYES = indices([1])[0], indices((33, 133, 263, 362, 168))
_OPENINGS = [indices(pair) for pair in ((13, 14), (81, 178), (311, 402), (61, 291), (159, 145), (386, 374))]
_IRISES = [indices(three) for three in ((468, 33, 133), (473, 263, 362))]
_OPENING, _GAZE, _NOSE = 1.5, 4.0, 3.0
_SMALLEST = 0.1  # distance of the outer eye corners, in coordinates: smaller faces do not count for more


def token_landmark_loss(keypoints: Tensor, mesh: Tensor) -> Tensor:
    """Mean |difference| of tied keypoints and their vertices, in distances of the outer eye corners, and more for the
    shapes of mouth, eyes, brows and of what shows the pose, for openings, and for gaze.

    keypoints: (B, K, 2), the tied ones first. mesh: (B, 478, 2) of the same pictures, (x, y) in [-1, 1]; not a number
    where there is no face: such pictures do not count.
    """
    seen = ~mesh.isnan().flatten(1).any(dim=1)
    mesh = torch.where(seen[:, None, None], mesh, torch.zeros_like(mesh))
    apart = (mesh[:, 33] - mesh[:, 263]).norm(dim=-1).clamp_min(_SMALLEST)[:, None, None]
    vertices, eyes, groups = _indices(mesh.device)
    error = torch.where(seen[:, None, None], (keypoints[:, :COUNT] - mesh[:, vertices]) / apart, 0.0)
    total = _size(error)
    for (weight, _), group in zip(_GROUPS, groups, strict=True):
        total = total + weight * _size(error[:, group] - error[:, group].mean(dim=1, keepdim=True))
    total = total + _NOSE * _size(error[:, _TIP] - error[:, eyes].mean(dim=1))
    for one, other in _OPENINGS:
        total = total + _OPENING * _size(error[:, one] - error[:, other])
    for iris, outer, inner in _IRISES:
        total = total + _GAZE * _size(error[:, iris] - (error[:, outer] + error[:, inner]) / 2)
    return total.sum() / seen.sum().clamp_min(1)


def _size(error: Tensor) -> Tensor:
    """Mean |error| of each picture: (B,)."""
    return error.abs().flatten(1).mean(dim=1)


@lru_cache
def _indices(device: torch.device) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Of the vertices, the eyes and each group, on the device: lists would be copied there at every call, which
    waits."""
    with torch.inference_mode(False):  # kept for all callers: training cannot use an inference tensor
        lists = (VERTICES, _EYES, *(group for _, group in _GROUPS))
        vertices, eyes, *groups = (torch.tensor(numbers, device=CPU).to(device) for numbers in lists)
        return vertices, eyes, groups
