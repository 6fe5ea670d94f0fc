"""Thin-plate splines: smooth maps of the plane that carry control points to their targets (Bookstein, 1989), as the
Thin-Plate Spline Motion Model fits them (Zhao and Zhang, CVPR 2022).

A spline of n control points c_j is T(z) = theta [z; 1] + sum_j w_j U(|z - c_j|^2), with U(q) = q ln(q + 1e-9). Its
weights and theta solve one linear system of n + 3 equations, softened by 0.01 on the whole diagonal: control points
that coincide, as those of an untrained network nearly do, still have a solution.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

_SOFT = 0.01
_TINY = 1e-9


@dataclass(frozen=True)
class Splines:
    """A batch of thin-plate splines, G for each picture.

    Attributes:
        centres: (B, G, n, 2), the control points c.
        theta: (B, G, 2, 3), the affine part; its columns belong to x, y and 1.
        weights: (B, G, n, 2), w.
    """

    centres: Tensor
    theta: Tensor
    weights: Tensor

    def __call__(self, grid: Tensor) -> Tensor:
        """Maps the points of a grid (h, w, 2): (B, G, h, w, 2)."""
        x, y = grid.flatten(0, 1).unbind(dim=-1)
        across, down = self.centres[..., 0, None], self.centres[..., 1, None]
        bent = _radial((x - across).square() + (y - down).square())  # (B, G, n, h w)
        flat = torch.stack([x, y, torch.ones_like(x)])
        moved = self.theta @ flat + self.weights.transpose(2, 3) @ bent  # (B, G, 2, h w)
        return moved.transpose(2, 3).unflatten(2, grid.shape[:2])


def fit_splines(centres: Tensor, targets: Tensor) -> Splines:
    """Fits splines that carry control points to targets.

    Args:
        centres: (B, G, n, 2), (x, y).
        targets: (B or 1, G, n, 2), (x, y).

    Returns:
        The splines; control points are met up to the softening.
    """
    count = centres.shape[2]
    offsets = centres[:, :, :, None] - centres[:, :, None]
    radial = _radial(offsets.square().sum(dim=-1))  # (B, G, n, n)
    flat = torch.cat([centres, torch.ones_like(centres[..., :1])], dim=-1)  # (B, G, n, 3)
    corner = flat.new_zeros(3, 3).expand(*flat.shape[:2], 3, 3)
    system = torch.cat([torch.cat([radial, flat], dim=3), torch.cat([flat.transpose(2, 3), corner], dim=3)], dim=2)
    system = system + _SOFT * torch.eye(count + 3, dtype=system.dtype, device=system.device)
    wanted = torch.cat([targets.expand_as(centres), torch.zeros_like(flat[:, :, :3, :2])], dim=2)
    solution = solve(system, wanted)
    return Splines(centres, solution[:, :, count:].transpose(2, 3), solution[:, :, :count])


def solve(matrix: Tensor, wanted: Tensor) -> Tensor:
    """Solves small linear systems by modified Gram-Schmidt.

    Written out, column by column: exported graphs and captured kernels have no solver, and a batch of tiny systems is
    fast this way. The right-hand side takes part in the orthogonalisation, which makes it as stable as Householder's.

    Args:
        matrix: (..., m, m), regular.
        wanted: (..., m, k).

    Returns:
        (..., m, k).
    """
    size = matrix.shape[-1]
    rest = torch.cat([matrix, wanted], dim=-1)
    rows = []  # of the triangle, each with its right-hand side
    for _ in range(size):
        first = rest[..., :1]
        length = first.square().sum(dim=-2, keepdim=True).sqrt()
        direction = first / length
        row = direction.transpose(-1, -2) @ rest[..., 1:]  # (..., 1, m - column - 1 + k)
        rest = rest[..., 1:] - direction @ row
        rows.append((length, row))
    found: list[Tensor] = []  # from the last unknown to the first
    for column in reversed(range(size)):
        length, row = rows[column]
        known = row[..., size - column - 1 :]
        for place, value in enumerate(reversed(found)):
            known = known - row[..., place : place + 1] * value
        found.append(known / length)
    return torch.cat(found[::-1], dim=-2)


def _radial(square: Tensor) -> Tensor:
    """U of squared distances."""
    # The sum is written so since PyTorch's ONNX exporter takes an addend of 1e-9 for zero, and leaves it out.
    return square * torch.log((square / _TINY + 1) * _TINY)
