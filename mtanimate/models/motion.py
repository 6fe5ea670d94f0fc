"""The motion of one picture: K keypoints and K affine matrices (section 3.1), and its transfer."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mtanimate.geometry import inverse_2x2, matmul_2x2, transform_points


@dataclass(frozen=True)
class Motion:
    """What a motion estimator says of a batch of pictures.

    keypoints: (B, K, 2), the paper's t^k as (x, y) in [-1, 1].
    affine: (B, K, 2, 2), the paper's A^k: from the latent reference frame to the picture, near keypoint k.
    """

    keypoints: Tensor
    affine: Tensor

    def __len__(self) -> int:
        return self.keypoints.shape[0]

    def __getitem__(self, index: slice) -> "Motion":
        return Motion(self.keypoints[index], self.affine[index])

    def roll(self, shift: int) -> "Motion":
        """The batch turned by `shift` places."""
        return Motion(self.keypoints.roll(shift, dims=0), self.affine.roll(shift, dims=0))

    def detach(self) -> "Motion":
        return Motion(self.keypoints.detach(), self.affine.detach())

    def to(self, target: torch.device | torch.dtype | str) -> "Motion":
        return Motion(self.keypoints.to(target), self.affine.to(target))


def sparse_motions(source: Motion, driving: Motion, grid: Tensor) -> Tensor:
    """Eq. 1 for every part: where in the source to read each driving coordinate.

    source and driving have batch B (or source 1); `grid` is (h, w, 2). Returns (B, K, h, w, 2).
    """
    matrix = matmul_2x2(source.affine, inverse_2x2(driving.affine))
    offset = grid[None, None] - driving.keypoints[:, :, None, None]
    return transform_points(matrix[:, :, None, None], offset) + source.keypoints[:, :, None, None]


def convex_hull_area(points: np.ndarray) -> float:
    """Area of the convex hull of (N, 2) points: Andrew's monotone chain, then the shoelace formula."""
    ordered = sorted(map(tuple, points.astype(np.float64)))

    def half(points: list) -> list:
        chain: list = []
        for p in points:
            while len(chain) > 1 and _cross(chain[-2], chain[-1], p) <= 0:
                chain.pop()
            chain.append(p)
        return chain[:-1]

    hull = half(ordered) + half(ordered[::-1])
    x, y = np.array(hull).reshape(-1, 2).T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def _cross(o: tuple, a: tuple, b: tuple) -> float:
    return (a[0] - o[0]) * (b[1] - o[1]) - (a[1] - o[1]) * (b[0] - o[0])


def movement_scale(source: Motion, reference: Motion) -> float:
    """How much larger the source's subject is than the driver's: the ratio of the hulls' square roots.

    1 where either's keypoints lie on one line, up to rounding: no size can be read off them.
    """
    source_area, reference_area = (
        convex_hull_area(motion.keypoints[0].detach().double().cpu().numpy()) for motion in (source, reference)
    )
    if min(source_area, reference_area) < 1e-6:
        return 1.0
    return float(np.sqrt(source_area / reference_area))


def transfer_relative(
    source: Motion, driving: Motion, reference: Motion, scale: float = 1.0, strength: float = 1.0
) -> Motion:
    """The source's motion after the movement that leads from `reference` to `driving`.

    source has batch 1 or B, reference 1, driving B. `scale` multiplies the keypoints' movement, `strength` that and
    the matrices' change: 0 leaves the source where it is.
    (Absolute transfer needs no function: the driving motion is used as it is.)
    """
    keypoints = source.keypoints + (driving.keypoints - reference.keypoints) * (scale * strength)
    turn = matmul_2x2(driving.affine, inverse_2x2(reference.affine))
    if strength != 1:
        still = torch.eye(2, dtype=turn.dtype, device=turn.device)
        turn = still + (turn - still) * strength
    return Motion(keypoints, matmul_2x2(turn, source.affine))
