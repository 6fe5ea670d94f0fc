"""Squares out of training pictures: a generator learns from them what it learns from whole pictures, for less work."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mtanimate.geometry import coordinate_grid, resize, sample
from mtanimate.models.dense_motion import DenseMotion
from mtanimate.models.motion import Motion

_MOUTH, _EYES = 14, 168  # vertices of the face mesh: the lower lip, and the nose between the eyes
_SPREAD = 0.08  # standard deviation of a window's middle about them, in coordinates


@dataclass(frozen=True)
class Windows:
    """A square of whole pixels for each picture of a batch: middles (B, 2) and half the side, in coordinates."""

    middles: Tensor
    half: float
    side: int

    @staticmethod
    def draw(driving: Tensor, side: int, meshes: Tensor | None) -> "Windows":
        """`side` pixels wide: a third about mouths, a third about eyes, the rest anywhere.

        driving: (B, 3, R, R). meshes: their faces, (B, 478, 2), not a number where there is none.
        """
        batch, size = len(driving), driving.shape[-1]
        side = min(side, size)
        anywhere = 2 * torch.rand(batch, 2, device=driving.device) - 1
        middles = anywhere
        if meshes is not None:
            kind = torch.rand(batch, 1, device=driving.device)
            chosen = torch.where(kind < 1 / 3, meshes[:, _MOUTH], meshes[:, _EYES])
            chosen = chosen + _SPREAD * torch.randn_like(chosen)
            middles = torch.where((kind > 2 / 3) | chosen.isnan(), anywhere, chosen)
        corners = ((middles + 1) / 2 * (size - 1) - (side - 1) / 2).round().clamp(0, size - side)
        return Windows((2 * corners + side - 1) / (size - 1) - 1, (side - 1) / (size - 1), side)

    def cut(self, pictures: Tensor) -> Tensor:
        """(B, C, R, R) -> (B, C, side, side)."""
        grid = self.half * coordinate_grid(self.side, self.side, self.middles) + self.middles[:, None, None]
        return sample(pictures, grid, exact=True).contiguous(memory_format=torch.channels_last)

    def motion(self, motion: Motion) -> Motion:
        """As seen in the windows."""
        keypoints = (motion.keypoints - self.middles[:, None]) / self.half
        return replace(motion, keypoints=keypoints, affine=motion.affine / self.half)

    def dense(self, dense: DenseMotion, size: int) -> DenseMotion:
        """Inside the windows; what the flow reads outside of them is their edge. size: R, of the pictures."""
        flow = self.cut(resize(dense.flow.permute(0, 3, 1, 2), (size, size), exact=dense.exact)).permute(0, 2, 3, 1)
        flow = (flow - self.middles[:, None, None]) / self.half
        occlusion = None if dense.occlusion is None else self.cut(resize(dense.occlusion, (size, size)))
        openings = None if dense.openings is None else self.cut(resize(dense.openings, (size, size)))
        return DenseMotion(self.cut(resize(dense.masks, (size, size))), flow, occlusion, dense.exact, openings)
