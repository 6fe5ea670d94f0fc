"""Terms that know where mouths and eyes are: small in the picture, large to whoever looks at it."""

from functools import lru_cache

import torch
from torch import Tensor

from mtanimate.face_mesh import CONTOURS
from mtanimate.geometry import coordinate_grid, sample

# The terms read the points of these contours of the face mesh, one contour after the other.
_SIZES = [len(vertices) for vertices in CONTOURS.values()]
POINTS = sum(_SIZES)
LIPS = slice(0, len(CONTOURS["LIPS"]))
EYES = slice(LIPS.stop, LIPS.stop + len(CONTOURS["RIGHT_EYE"]) + len(CONTOURS["LEFT_EYE"]))
SHAPE = 3.0  # how much more than its place a contour's shape counts: lips part by less than a head moves
SIDE = 64  # of a close-up, in pixels
_MARGIN = 1.5  # a close-up's side, in widths of what it shows


def contour_points(meshes: Tensor) -> Tensor:
    """Of the vertices of face meshes (..., 478, D), those of the contours: (..., 152, D)."""
    return meshes.index_select(-2, _vertices(meshes.device))


@lru_cache
def _vertices(device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # kept for all callers: training cannot use an inference tensor
        return torch.tensor([vertex for contour in CONTOURS.values() for vertex in contour], device=device)


def landmark_loss(flow: Tensor, source: Tensor, driving: Tensor) -> Tensor:
    """Mean |difference|, summed over x and y, in coordinates, between where the flow says that a landmark of the
    driving frame comes from, and where it is in the source; and `SHAPE` times the same for the landmarks' places
    relative to the middle of their contour.

    flow: backward, (B, h, w, 2). source, driving: `contour_points`, (B, 152, 2); not a number where there are none.
    """
    seen = ~(source + driving).isnan()
    places = torch.where(seen, driving, torch.zeros_like(driving))
    read = sample(flow.permute(0, 3, 1, 2), places[:, None], exact=True)[:, :, 0].transpose(1, 2)
    error = torch.where(seen, read - source.nan_to_num(), torch.zeros_like(read))
    contours = error.split(_SIZES, dim=1)
    shape = torch.cat([contour - contour.mean(dim=1, keepdim=True) for contour in contours], dim=1)
    return 2 * (error.abs() + SHAPE * shape.abs()).sum() / seen.sum().clamp_min(1)


def close_ups(pictures: Tensor, landmarks: Tensor) -> Tensor:
    """The mouths, then the pairs of eyes, of those pictures (B, C, H, W) that have `contour_points` (B, 152, 2),
    each in a square of 64 pixels: (2 B', C, 64, 64). Half as large again as the distance of its outermost landmarks."""
    seen = ~landmarks.isnan().flatten(1).any(dim=1)
    pictures, landmarks = pictures[seen], landmarks[seen]
    grid = coordinate_grid(SIDE, SIDE, landmarks)
    views = []
    for part in (LIPS, EYES):
        points = landmarks[:, part]
        low, high = points.amin(dim=1), points.amax(dim=1)
        half = (high - low).amax(dim=1) * _MARGIN / 2
        centre = (low + high) / 2
        views.append(sample(pictures, grid * half[:, None, None, None] + centre[:, None, None], exact=True))
    return torch.cat(views)
