"""Pairs of frames out of single pictures: heads that nod, turn and lean a little, by a warp.

A small data set has few people, who move little. Each photograph brings one more; what it would look like if the head
were turned by some degrees follows from its shape in space (MediaPipe's face mesh), as long as little comes into view
that was hidden. Where no face is found, the picture bends smoothly.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mtanimate.data.clips import Still, identity_of
from mtanimate.errors import InputError
from mtanimate.face_mesh import SKIN
from mtanimate.geometry import coordinate_grid
from mtanimate.video.folder import is_picture

# Each frame of a pair has its own, uniform in +-: degrees; coordinates of the picture; a factor's distance from 1.
NOD, TURN, ROLL = 9.0, 9.0, 8.0
SHIFT = 0.06
ZOOM = 0.06
BEND = 0.012  # height of the waves, in coordinates, that shapes are bent by
GRID = 33  # points along each side, at which the warp is computed: it is smooth
STIFFNESS = 1e-3  # of the spline, which need not go through its points: a nose before a cheek would fold it

# Points of the face mesh, enough for a face's shape: its outline, and what lies in it.
_OUTLINE = [10, 297, 284, 389, 454, 361, 397, 379, 400, 152, 176, 150, 172, 132, 234, 162, 54, 67]
_INSIDE = [0, 1, 2, 4, 5, 6, 9, 17, 33, 50, 61, 70, 97, 98, 133, 151, 168, 199, 205, 263, 280, 291, 300, 327, 362, 425]


def find_stills(folder: Path) -> list[Still]:
    """The pictures in a folder, sorted by name. Raises InputError where there are none."""
    if not folder.is_dir():
        raise InputError(f"no folder of stills '{folder}': give a folder of pictures")
    files = sorted(file for file in folder.iterdir() if is_picture(file))
    if not files:
        raise InputError(f"no pictures in the folder of stills '{folder}'")
    return [Still(file, identity_of(file.stem)) for file in files]


def draw_flow(mesh: np.ndarray, random: np.random.Generator) -> Tensor:
    """Of both frames of a pair that is made of one picture: backward, (2, 33, 33, 2).

    mesh: of its face, (478, 3), as a cache has it; not a number where there is none.
    """
    nobody = bool(np.isnan(mesh).any())
    return torch.stack([bent(random) if nobody else turned(mesh, random) for _ in range(2)])


def turned(mesh: np.ndarray, random: np.random.Generator) -> Tensor:
    """Backward flow (33, 33, 2) of a picture whose head nods, turns, leans, and moves; what is far from it stays.

    mesh: of its face, (478, 3), x and y in coordinates of the picture, z to the same scale, smaller nearer.
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
    """Backward flow (33, 33, 2) of a picture whose middle leans, moves and bends, and whose border stays."""
    places = 0.6 * coordinate_grid(4, 4, torch.zeros(1)).flatten(0, 1).numpy()
    rotation = _rotation(0, 0, random.uniform(-ROLL, ROLL))[:2, :2]
    origins = random.uniform(1 - ZOOM, 1 + ZOOM) * places @ rotation.T + random.uniform(-SHIFT, SHIFT, 2)
    return _flow(places, origins + _waves(places, random), _border())


def _head(mesh: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 3) of face and skull, and where the head turns: in the neck, behind the mouth."""
    outline, centre = mesh[_OUTLINE], mesh[:SKIN].mean(axis=0)
    half = np.ptp(outline[:, 0]) / 2
    below = (outline[:, 1] - centre[1]) / half
    # Hair and ears, which the mesh has not: the outline once more, wider, most so above, and as far back as it goes.
    skull = centre + (outline - centre) * np.where(below < 0.3, 1.45, 1.2)[:, None]
    skull[:, 2] = outline[:, 2].max()
    return np.concatenate([outline, mesh[_INSIDE], skull[below < 0.8]]), centre + half * np.array([0, 0.6, 1])


def _rotation(nod: float, turn: float, roll: float) -> np.ndarray:
    """About x, then y, then z, in degrees: (3, 3)."""
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
    """By the thin-plate spline that brings `places` (N, 2) to their origins and leaves `still` (M, 2) where it is."""
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
