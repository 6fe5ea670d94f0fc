"""Warps that augment training pairs: a still's head turns and nods (`draw_flow`), and eyes look elsewhere (`Glance`).

People in clips seldom look away, and from so few examples a network does not learn what an iris is.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mtanimate.faces.mesh import SKIN
from mtanimate.geometry import coordinate_grid

# The ranges of a still's movement, drawn for each frame of a pair, uniform in +- x: degrees; a shift in coordinates;
# and how far the zoom factor is from 1.
NOD, TURN, ROLL = 9.0, 9.0, 8.0
SHIFT = 0.06
ZOOM = 0.06
BEND = 0.012  # height of the waves that bend shapes, in coordinates
GRID = 33  # points along each side at which the smooth warp is computed
STIFFNESS = 1e-3  # of the spline, which need not pass through its points: a nose in front of a cheek would fold it

# Vertices of the face mesh that describe a face's shape: its outline, and points inside of it.
_OUTLINE = [10, 297, 284, 389, 454, 361, 397, 379, 400, 152, 176, 150, 172, 132, 234, 162, 54, 67]
_INSIDE = [0, 1, 2, 4, 5, 6, 9, 17, 33, 50, 61, 70, 97, 98, 133, 151, 168, 199, 205, 263, 280, 291, 300, 327, 362, 425]

# In distances of the outer eye corners: how far an iris moves at most, along and across the eye, and the standard
# deviations of the warp, which hardly reaches beyond the eye.
_REACH = (0.055, 0.012)
_WIDTH = (0.065, 0.045)
_STEPS = 3
_IRISES = (468, 473)
_CORNERS = (33, 263)


def draw_flow(mesh: np.ndarray, random: np.random.Generator) -> Tensor:
    """Draw the warps that make a pair of frames from one picture.

    Args:
        mesh: The picture's face, (478, 3) as from a cache, NaN where there is none.
        random: The source of chance.

    Returns:
        Backward flow of both frames, (2, 33, 33, 2) in coordinates.
    """
    nobody = bool(np.isnan(mesh).any())
    return torch.stack([bent(random) if nobody else turned(mesh, random) for _ in range(2)])


def turned(mesh: np.ndarray, random: np.random.Generator) -> Tensor:
    """Backward flow (33, 33, 2) that makes the head nod, turn, lean and move, and leaves the rest where it is.

    mesh: (478, 3), x and y in coordinates of the picture, z to the same scale, smaller nearer to the camera.
    """
    head, pivot = _head(mesh)
    rotation = _rotation(*random.uniform(-1, 1, 3) * (NOD, TURN, ROLL))
    moved = random.uniform(1 - ZOOM, 1 + ZOOM) * (head - pivot) @ rotation.T + pivot
    places = moved[:, :2] + random.uniform(-SHIFT, SHIFT, 2)
    origins = head[:, :2] + _waves(head[:, :2], random)
    border = _border()
    near = np.linalg.norm(border[:, None] - places, axis=-1).min(axis=1) < 0.25
    return _flow(places, origins, border[~near])


def bent(random: np.random.Generator) -> Tensor:
    """Backward flow (33, 33, 2) that makes the middle of a picture lean, move and bend, and leaves its border."""
    places = 0.6 * coordinate_grid(4, 4, torch.zeros(1)).flatten(0, 1).numpy()
    rotation = _rotation(0, 0, random.uniform(-ROLL, ROLL))[:2, :2]
    origins = random.uniform(1 - ZOOM, 1 + ZOOM) * places @ rotation.T + random.uniform(-SHIFT, SHIFT, 2)
    return _flow(places, origins + _waves(places, random), _border())


def _head(mesh: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 3) of face and skull, and the pivot of the head: in the neck, behind the mouth."""
    outline, centre = mesh[_OUTLINE], mesh[:SKIN].mean(axis=0)
    half = np.ptp(outline[:, 0]) / 2
    below = (outline[:, 1] - centre[1]) / half
    # The mesh has no hair and no ears: the outline stands for them, widened, more so at the top, and farthest back.
    skull = centre + (outline - centre) * np.where(below < 0.3, 1.45, 1.2)[:, None]
    skull[:, 2] = outline[:, 2].max()
    return np.concatenate([outline, mesh[_INSIDE], skull[below < 0.8]]), centre + half * np.array([0, 0.6, 1])


def _rotation(nod: float, turn: float, roll: float) -> np.ndarray:
    """The rotation about x, then y, then z, in degrees: (3, 3)."""
    (a, b, c), (u, v, w) = np.cos(np.radians([nod, turn, roll])), np.sin(np.radians([nod, turn, roll]))
    about_x = np.array([[1, 0, 0], [0, a, -u], [0, u, a]])
    about_y = np.array([[b, 0, v], [0, 1, 0], [-v, 0, b]])
    about_z = np.array([[c, -w, 0], [w, c, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def _waves(places: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A smooth shift of each of `places` (N, 2)."""
    return BEND * np.sin(places @ random.uniform(2, 5, (2, 2)) + random.uniform(0, 2 * np.pi, 2))


def _border() -> np.ndarray:
    """Points (16, 2) just outside the picture."""
    places = coordinate_grid(5, 5, torch.zeros(1)).flatten(0, 1).numpy()
    return 1.05 * places[np.abs(places).max(axis=1) == 1]


def _flow(places: np.ndarray, origins: np.ndarray, still: np.ndarray) -> Tensor:
    """By the thin-plate spline that maps `places` (N, 2) to their origins and `still` (M, 2) to itself."""
    points = np.concatenate([places, still])
    shifts = np.concatenate([origins - places, np.zeros_like(still)])
    count = len(points)
    system = np.zeros((count + 3, count + 3))
    system[:count, :count] = _radial(points, points) + STIFFNESS * np.eye(count)
    system[:count, count:] = np.insert(points, 0, 1, axis=1)
    system[count:, :count] = system[:count, count:].T
    weights = np.linalg.solve(system, np.concatenate([shifts, np.zeros((3, 2))]))
    grid = coordinate_grid(GRID, GRID, torch.zeros(1)).flatten(0, 1).numpy()
    flow = grid + np.concatenate([_radial(grid, points), np.insert(grid, 0, 1, axis=1)], axis=1) @ weights
    return torch.from_numpy(flow.reshape(GRID, GRID, 2)).float()


def _radial(places: np.ndarray, points: np.ndarray) -> np.ndarray:
    """r^2 log r from each place to each point."""
    squared = np.square(places[:, None] - points).sum(axis=-1)
    return squared * np.log(np.maximum(squared, 1e-12)) / 2


@dataclass(frozen=True)
class Glance:
    """A local warp of each frame of a pair that moves the irises along their eyes; or stacked, of B pairs.

    Coordinates are those of the raw frames.

    Attributes:
        irises: (2, 2, 2), or (2, B, 2, 2): the centres of both irises in each frame.
        shift: (2, 2), or (2, B, 2): how far they move.
        axis: The same shape; the vector from one outer eye corner to the other.
    """

    irises: Tensor
    shift: Tensor
    axis: Tensor

    @staticmethod
    def draw(meshes: np.ndarray, random: np.random.Generator) -> "Glance | None":
        """Draw one for each frame. meshes: (2, 478, 3), NaN where there is no face; None if that is so in any frame."""
        if np.isnan(meshes).any():
            return None
        places = torch.from_numpy(meshes[:, :, :2]).float()
        axis = places[:, _CORNERS[1]] - places[:, _CORNERS[0]]
        along, across = torch.from_numpy(random.uniform(-1, 1, (2, 2, 1)) * np.array(_REACH)[:, None]).float().unbind(1)
        return Glance(places[:, _IRISES], along * axis + across * _upright(axis), axis)

    @staticmethod
    def stack(glances: "list[Glance | None]") -> "Glance | None":
        """Stack those of B pairs; pairs without one are not changed. None if no pair has one."""
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
        """The same with `do` applied to every tensor."""
        return Glance(do(self.irises), do(self.shift), do(self.axis))

    def origins(self, places: Tensor) -> Tensor:
        """Backward: the place in the raw frames that is seen at each of `places` (2 B, h, w, 2); of B pairs."""
        flat = self.each(lambda tensor: tensor.flatten(0, 1)[:, None, None])
        origins = places - flat.shift / 2
        for _ in range(_STEPS):  # fixed-point steps: the inverse of `carry`
            right, left = (_share(origins, flat.irises[..., eye, :], flat.axis) for eye in range(2))
            origins = places - (right + left)[..., None] * flat.shift
        return origins

    def carry(self, meshes: Tensor) -> Tensor:
        """Forward: where the vertices (2, N, 2) of the raw frames' faces move to."""
        one = self.each(lambda tensor: tensor[:, None])
        right, left = (_share(meshes, one.irises[:, :, eye], one.axis) for eye in range(2))
        return meshes + (right + left)[..., None] * one.shift


def _share(places: Tensor, iris: Tensor, axis: Tensor) -> Tensor:
    """The share of the shift by which each of `places` (..., 2) moves, in [0, 1]: (...)."""
    size = axis.square().sum(dim=-1)
    along = ((places - iris) * axis).sum(dim=-1) / size
    across = ((places - iris) * _upright(axis)).sum(dim=-1) / size
    return torch.exp(-(along**2) / (2 * _WIDTH[0] ** 2) - across**2 / (2 * _WIDTH[1] ** 2))


def _upright(axis: Tensor) -> Tensor:
    return torch.stack([-axis[..., 1], axis[..., 0]], dim=-1)
