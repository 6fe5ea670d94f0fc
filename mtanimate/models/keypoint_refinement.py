"""Keypoint refinement for faces: the points of eyes and mouth are located in windows at the picture's full size."""

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtanimate.geometry import CPU, coordinate_grid, sample
from mtanimate.models.face_points import (
    JAW,
    LEFT_BROW,
    LEFT_EYE,
    MOUTH,
    RIGHT_BROW,
    RIGHT_EYE,
    SKULL,
    canonical_points,
    face_frame,
    token_indices,
)

SIDE = 64  # of a window, in samples; its features have half as many
# Each window in face coordinates: middle, half the side, and the points that are located in it.
_WINDOWS = (
    ((-0.36, -0.12), 0.4, RIGHT_EYE | RIGHT_BROW),
    ((0.36, -0.12), 0.4, LEFT_EYE | LEFT_BROW),
    ((0.0, 0.9), 0.75, MOUTH | JAW),
)
_PRIOR = 0.5  # standard deviation of a point's initial distribution, in halves of a window's side


class KeypointRefinement(nn.Module):
    """Relocates the points of eyes, brows, mouth and jaw.

    Each motion token attends to the features of its window. Positions take the place of values, so that a keypoint is
    the mean of the positions that its token attends to (Eq. 3-4, with one head).

    Args:
        dim: components d of a motion token.
        width: channels of the first convolutions.
    """

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 2 * width, 3, 2, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(2 * width)
        self.conv4 = nn.Conv2d(2 * width, 2 * width, 3, padding=1, bias=False)
        self.bn4 = nn.BatchNorm2d(2 * width)
        self.conv5 = nn.Conv2d(2 * width, 2 * width, 3, padding=1, bias=False)
        self.bn5 = nn.BatchNorm2d(2 * width)
        self.conv6 = nn.Conv2d(3 * width, 2 * width, 3, padding=1, bias=False)
        self.bn6 = nn.BatchNorm2d(2 * width)
        self.key = nn.Conv2d(2 * width, 2 * width, 1)
        self.norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, 2 * width)

    def forward(self, image: Tensor, motion: Tensor, keypoints: Tensor) -> Tensor:
        """Refines the keypoints of the windows' points.

        The other points say where the windows lie; no gradient flows through that.

        Args:
            image: (B, 3, H, W) in [0, 1].
            motion: motion tokens (B, M, d).
            keypoints: (B, M, 2), (x, y) in [-1, 1].

        Returns:
            Keypoints (B, M, 2); those outside of the windows are unchanged.
        """
        matrix, origin = (each.detach() for each in face_frame(keypoints, tuple(SKULL)))
        keys = self._features(self._cut(image, matrix, origin))  # (B * 3, C, h, w)
        keys = keys.flatten(2).unflatten(0, (-1, len(_WINDOWS)))
        queries = self.query(self.norm(motion)) * keys.shape[2] ** -0.5
        orders, rest, back = _orders(keypoints.shape[1], image.device)
        local = []  # in face coordinates
        for window, (order, (grid, prior)) in enumerate(zip(orders, _readings(image.device), strict=True)):
            logits = (queries.index_select(1, order) @ keys[:, window]).float() + prior  # (B, N, h * w)
            local.append(torch.softmax(logits, dim=-1)[..., None].mul(grid).sum(dim=2))
        read = (torch.cat(local, dim=1)[..., None, :] * matrix[:, None]).sum(dim=-1) + origin[:, None]
        # Restore the order of the tokens, without in-place writes.
        return torch.cat([read, keypoints.index_select(1, rest)], dim=1).index_select(1, back)

    def _features(self, windows: Tensor) -> Tensor:
        fine = F.relu(self.bn1(self.conv1(windows)))
        fine = fine + F.relu(self.bn2(self.conv2(fine)))
        coarse = F.relu(self.bn3(self.conv3(fine)))
        coarse = coarse + F.relu(self.bn4(self.conv4(coarse)))
        coarse = coarse + F.relu(self.bn5(self.conv5(coarse)))
        coarse = F.interpolate(coarse, scale_factor=2.0, mode="nearest")
        return self.key(F.relu(self.bn6(self.conv6(torch.cat([fine, coarse], dim=1)))))

    def _cut(self, image: Tensor, matrix: Tensor, origin: Tensor) -> Tensor:
        """Samples the windows of each picture: (B * 3, 3, SIDE, SIDE)."""
        grids = _grids(SIDE, image.device)
        reach = (grids[None, ..., None, :] * matrix[:, None, None, None]).sum(dim=-1) + origin[:, None, None, None]
        # The windows' grids are stacked along the height, so that the picture need not be copied three times.
        cut = sample(image, reach.flatten(1, 2), exact=True)
        return cut.unflatten(2, (len(_WINDOWS), SIDE)).transpose(1, 2).flatten(0, 1)


@lru_cache
def _grids(side: int, device: torch.device = CPU) -> Tensor:
    """The face coordinates of every sample of the windows: (3, side, side, 2)."""
    with torch.inference_mode(False):  # cached for all callers; training cannot use inference tensors
        square = coordinate_grid(side, side, torch.zeros(1, device=CPU))
        middles = [torch.tensor(middle, device=CPU) for middle, _, _ in _WINDOWS]
        grids = [half * square + middle for (_, half, _), middle in zip(_WINDOWS, middles, strict=True)]
        return torch.stack(grids).to(device)


@lru_cache
def _orders(tokens: int, device: torch.device = CPU) -> tuple[list[Tensor], Tensor, Tensor]:
    """The tokens of each window; the tokens of none; and the position of each token in the concatenation of these
    lists.

    They are kept on the device: lists of numbers would be copied there at each use.
    """
    placed = [token_indices(points) for _, _, points in _WINDOWS]
    order = [token for window in placed for token in window]
    rest = [token for token in range(tokens) if token not in order]
    back = sorted(range(tokens), key=[*order, *rest].__getitem__)
    with torch.inference_mode(False):  # cached for all callers; training cannot use inference tensors
        return [_index(window, device) for window in placed], _index(rest, device), _index(back, device)


def _index(numbers: list[int], device: torch.device) -> Tensor:
    return torch.tensor(numbers, device=CPU).to(device)


@lru_cache
def _readings(device: torch.device = CPU) -> list[tuple[Tensor, Tensor]]:
    """For each window, the face coordinates of its features (h * w, 2), and the initial logits (N, h * w) of its N
    points.
    """
    readings = []
    with torch.inference_mode(False):
        for (_, half, points), grid in zip(_WINDOWS, _grids(SIDE // 2).flatten(1, 2), strict=True):
            offset = (grid - canonical_points()[token_indices(points)][:, None]) / half
            prior = -offset.square().sum(dim=-1) / (2 * _PRIOR**2)
            readings.append((grid.to(device), prior.to(device)))
    return readings
