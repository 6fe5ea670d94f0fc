"""Eyes that look elsewhere: irises moved along their eyes by a local warp. People in clips seldom look away, and a
network does not learn from little what an iris is."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# As a share of the distance of the outer eye corners: how far an iris moves along and across its eye, at most, and the
# standard deviations of the warp, which reaches little beyond the eye.
_REACH = (0.055, 0.012)
_WIDTH = (0.065, 0.045)
_STEPS = 3
_IRISES = (468, 473)
_CORNERS = (33, 263)


@dataclass(frozen=True)
class Glance:
    """Where the irises of each frame go, in coordinates of the raw frames; stacked, of B pairs.

    irises: (2, 2, 2), or (2, B, 2, 2): of each frame, where both are. shift: (2, 2), or (2, B, 2). axis: the same;
    along the eyes, as long as the outer corners are apart.
    """

    irises: Tensor
    shift: Tensor
    axis: Tensor

    @staticmethod
    def draw(meshes: np.ndarray, random: np.random.Generator) -> "Glance | None":
        """Each frame's own. meshes: (2, 478, 3), not a number where there is no face; None where one has none."""
        if np.isnan(meshes).any():
            return None
        places = torch.from_numpy(meshes[:, :, :2]).float()
        axis = places[:, _CORNERS[1]] - places[:, _CORNERS[0]]
        along, across = torch.from_numpy(random.uniform(-1, 1, (2, 2, 1)) * np.array(_REACH)[:, None]).float().unbind(1)
        return Glance(places[:, _IRISES], along * axis + across * _upright(axis), axis)

    @staticmethod
    def stack(glances: "list[Glance | None]") -> "Glance | None":
        """None where no pair has one; else those that have none look where they looked."""
        found = next((glance for glance in glances if glance is not None), None)
        if found is None:
            return None
        nowhere = Glance(found.irises, torch.zeros_like(found.shift), found.axis)
        every = [glance or nowhere for glance in glances]
        return Glance(
            torch.stack([glance.irises for glance in every], dim=1),
            torch.stack([glance.shift for glance in every], dim=1),
            torch.stack([glance.axis for glance in every], dim=1),
        )

    def each(self, do: Callable[[Tensor], Tensor]) -> "Glance":
        """The same with every tensor changed by `do`."""
        return Glance(do(self.irises), do(self.shift), do(self.axis))

    def origins(self, places: Tensor) -> Tensor:
        """Where in the raw frames to read what is at `places` (2 B, h, w, 2) after the glance, which is stacked."""
        flat = self.each(lambda tensor: tensor.flatten(0, 1)[:, None, None])
        origins = places - flat.shift / 2
        for _ in range(_STEPS):  # towards the place that `carry` brings here
            right, left = (_share(origins, flat.irises[..., eye, :], flat.axis) for eye in range(2))
            origins = places - (right + left)[..., None] * flat.shift
        return origins

    def carry(self, meshes: Tensor) -> Tensor:
        """Where the vertices (2, N, 2) of the raw frames' faces go."""
        one = self.each(lambda tensor: tensor[:, None])
        right, left = (_share(meshes, one.irises[:, :, eye], one.axis) for eye in range(2))
        return meshes + (right + left)[..., None] * one.shift


def _share(places: Tensor, iris: Tensor, axis: Tensor) -> Tensor:
    """How much of the shift each of `places` (..., 2) takes part in: (...)."""
    size = axis.square().sum(dim=-1)
    along = ((places - iris) * axis).sum(dim=-1) / size
    across = ((places - iris) * _upright(axis)).sum(dim=-1) / size
    return torch.exp(-(along**2) / (2 * _WIDTH[0] ** 2) - across**2 / (2 * _WIDTH[1] ** 2))


def _upright(axis: Tensor) -> Tensor:
    return torch.stack([-axis[..., 1], axis[..., 0]], dim=-1)
