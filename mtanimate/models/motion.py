"""The motion of one picture: K keypoints and K affine matrices (section 3.1), and its transfer."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mtanimate.config.model import MotionKind
from mtanimate.geometry import inverse_2x2, matmul_2x2, transform_points


@dataclass(frozen=True)
class Motion:
    """What a motion estimator says of a batch of pictures.

    keypoints: (B, K, 2), the paper's t^k as (x, y) in [-1, 1].
    affine: (B, K, 2, 2), the paper's A^k: from the latent reference frame to the picture, near keypoint k.
    kind: `axes`: the matrices are principal axes (MRAA), which point both ways: A and -A say the same. `face`: the
    first keypoints are a face's points (`mtanimate.models.face_points`), and every matrix is its skull's.
    """

    keypoints: Tensor
    affine: Tensor
    kind: MotionKind = "parts"

    def __len__(self) -> int:
        return self.keypoints.shape[0]

    def __getitem__(self, index: slice | list[int]) -> "Motion":
        return self._each(lambda tensor: tensor[index])

    def roll(self, shift: int) -> "Motion":
        """The batch turned by `shift` places."""
        return self._each(lambda tensor: tensor.roll(shift, dims=0))

    def detach(self) -> "Motion":
        return self._each(Tensor.detach)

    def to(self, target: torch.device | torch.dtype | str) -> "Motion":
        return self._each(lambda tensor: tensor.to(target))

    def _each(self, function: Callable[[Tensor], Tensor]) -> "Motion":
        return replace(self, keypoints=function(self.keypoints), affine=function(self.affine))

    @staticmethod
    def cat(motions: "list[Motion]") -> "Motion":
        """One batch after the other."""
        affine = torch.cat([motion.affine for motion in motions])
        return replace(motions[0], keypoints=torch.cat([motion.keypoints for motion in motions]), affine=affine)

    def is_finite(self) -> Tensor:
        """Of each picture whether all of its numbers are: bool (B,)."""
        return torch.cat([self.keypoints.flatten(1), self.affine.flatten(1)], dim=1).isfinite().all(dim=1)

    def with_continuous_signs(self) -> "Motion":
        """Frames in the order of time: where matrices are known up to sign, each as its predecessor has it."""
        if self.kind != "axes" or len(self) < 2:
            return self
        turned = _half_turn(matmul_2x2(self.affine[1:], inverse_2x2(self.affine[:-1])))
        signs = torch.cat([torch.ones_like(turned[:1]), turned]).cumprod(dim=0)
        return replace(self, affine=self.affine * signs)


def affine_change(first: Motion, second: Motion) -> Tensor:
    """A_1 A_2^-1 of each part, from the second picture to the first: (B, K, 2, 2); batches as they broadcast.

    Where matrices are known up to sign, the product that turns by less than a quarter.
    """
    product = matmul_2x2(first.affine, inverse_2x2(second.affine))
    return product * _half_turn(product) if first.kind == "axes" else product


def _half_turn(matrix: Tensor) -> Tensor:
    """-1 where (..., 2, 2) is nearer to the half turn -I than to I, else 1: (..., 1, 1)."""
    trace = matrix[..., 0, 0] + matrix[..., 1, 1]
    return torch.where(trace < 0, -1.0, 1.0).to(matrix)[..., None, None]


def sparse_motions(source: Motion, driving: Motion, grid: Tensor) -> Tensor:
    """Eq. 1 for every part: where in the source to read each driving coordinate.

    source and driving have batch B (or source 1); `grid` is (h, w, 2). Returns (B, K, h, w, 2).
    """
    matrix = affine_change(source, driving)
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
        convex_hull_area(motion.keypoints[0].detach().cpu().double().numpy()) for motion in (source, reference)
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
    turn = scale_affine_change(affine_change(driving, reference), strength)
    return Motion(keypoints, matmul_2x2(turn, source.affine), source.kind)


def scale_affine_change(turn: Tensor, strength: float) -> Tensor:
    """A change of matrices (..., 2, 2), so much of it."""
    if strength == 1:
        return turn
    still = torch.eye(2, dtype=turn.dtype, device=turn.device)
    return still + (turn - still) * strength
