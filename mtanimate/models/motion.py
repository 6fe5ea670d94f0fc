"""The motion of a picture, K keypoints and affine matrices (section 3.1), and how it is transferred (Eq. 1)."""

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

    Attributes:
        keypoints: (B, K, 2), the paper's t^k, (x, y) in [-1, 1].
        affine: (B, K, 2, 2), the paper's A^k: from the latent reference frame to the picture, near keypoint k.
        kind: what the matrices are. `parts`: free. `axes`: principal axes (MRAA), where A and -A mean the same. `face`:
            the first keypoints are points of a face (`mtanimate.models.face_points`), and every matrix is that of its
            skull.
    """

    keypoints: Tensor
    affine: Tensor
    kind: MotionKind = "parts"

    def __len__(self) -> int:
        return self.keypoints.shape[0]

    def __getitem__(self, index: slice | list[int]) -> "Motion":
        return self._each(lambda tensor: tensor[index])

    def roll(self, shift: int) -> "Motion":
        """Rolls the batch by `shift` places."""
        return self._each(lambda tensor: tensor.roll(shift, dims=0))

    def detach(self) -> "Motion":
        return self._each(Tensor.detach)

    def to(self, target: torch.device | torch.dtype | str) -> "Motion":
        return self._each(lambda tensor: tensor.to(target))

    def _each(self, function: Callable[[Tensor], Tensor]) -> "Motion":
        return replace(self, keypoints=function(self.keypoints), affine=function(self.affine))

    @staticmethod
    def cat(motions: "list[Motion]") -> "Motion":
        """Concatenates motions of one kind along the batch."""
        affine = torch.cat([motion.affine for motion in motions])
        return replace(motions[0], keypoints=torch.cat([motion.keypoints for motion in motions]), affine=affine)

    def is_finite(self) -> Tensor:
        """Whether all numbers of each picture are finite: bool (B,)."""
        return torch.cat([self.keypoints.flatten(1), self.affine.flatten(1)], dim=1).isfinite().all(dim=1)

    def with_continuous_signs(self) -> "Motion":
        """Chooses the signs of `axes` so that each matrix is near that of the frame before; frames in order of time."""
        if self.kind != "axes" or len(self) < 2:
            return self
        turned = _half_turn(matmul_2x2(self.affine[1:], inverse_2x2(self.affine[:-1])))
        signs = torch.cat([torch.ones_like(turned[:1]), turned]).cumprod(dim=0)
        return replace(self, affine=self.affine * signs)


def affine_change(first: Motion, second: Motion) -> Tensor:
    """The change of each part's frame from the second picture to the first, A_1 A_2^-1 (Eq. 1).

    Where matrices are known up to sign, the product that turns by less than a quarter turn is chosen.

    Args:
        first: batch size B or 1.
        second: batch size B or 1.

    Returns:
        (B, K, 2, 2).
    """
    product = matmul_2x2(first.affine, inverse_2x2(second.affine))
    return product * _half_turn(product) if first.kind == "axes" else product


def _half_turn(matrix: Tensor) -> Tensor:
    """-1 where a matrix (..., 2, 2) is nearer to the half turn -I than to I, else 1: (..., 1, 1)."""
    trace = matrix[..., 0, 0] + matrix[..., 1, 1]
    return torch.where(trace < 0, -1.0, 1.0).to(matrix)[..., None, None]


def sparse_motions(source: Motion, driving: Motion, grid: Tensor) -> Tensor:
    """The motion of each part (Eq. 1): A_S A_D^-1 (z - t_D) + t_S for each driving coordinate z.

    Args:
        source: batch size B or 1.
        driving: batch size B.
        grid: (h, w, 2), driving coordinates (x, y) in [-1, 1].

    Returns:
        (B, K, h, w, 2): the source coordinate to read.
    """
    matrix = affine_change(source, driving)
    offset = grid[None, None] - driving.keypoints[:, :, None, None]
    return transform_points(matrix[:, :, None, None], offset) + source.keypoints[:, :, None, None]


def convex_hull_area(points: np.ndarray) -> float:
    """Area of the convex hull of points (N, 2), by Andrew's monotone chain and the shoelace formula."""
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
    """How much larger the source's subject is than the driver's: the ratio of the square roots of the hulls' areas.

    Args:
        source: motion of the source; its first picture counts.
        reference: motion of the driver's reference frame; its first picture counts.

    Returns:
        The scale; 1 where the keypoints of either lie on a line and have no size.
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
    """Relative motion transfer: applies the movement from `reference` to `driving` to the source.

    Absolute transfer needs no function: the driving motion is used as it is.

    Args:
        source: batch size 1 or B.
        driving: batch size B.
        reference: batch size 1.
        scale: factor of the keypoints' movement; see `movement_scale`.
        strength: factor of all movement; 0 leaves the source where it is.

    Returns:
        The motion to animate the source by, batch size B.
    """
    keypoints = source.keypoints + (driving.keypoints - reference.keypoints) * (scale * strength)
    turn = scale_affine_change(affine_change(driving, reference), strength)
    return Motion(keypoints, matmul_2x2(turn, source.affine), source.kind)


def scale_affine_change(turn: Tensor, strength: float) -> Tensor:
    """Interpolates from the identity to a change of matrices (..., 2, 2) by `strength` (1: the whole change)."""
    if strength == 1:
        return turn
    still = torch.eye(2, dtype=turn.dtype, device=turn.device)
    return still + (turn - still) * strength
