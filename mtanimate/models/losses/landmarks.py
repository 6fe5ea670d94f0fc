"""Terms that know where mouths and eyes are: small in the picture, large to whoever looks at it."""

from functools import lru_cache

import torch
from torch import Tensor

from mtanimate.face_mesh import CONTOURS, IRISES
from mtanimate.geometry import coordinate_grid, sample

# The terms read the points of these contours of the face mesh, one contour after the other.
_SIZES = [len(vertices) for vertices in CONTOURS.values()]
POINTS = sum(_SIZES)
LIPS = slice(0, len(CONTOURS["LIPS"]))
EYES = slice(LIPS.stop, LIPS.stop + len(CONTOURS["RIGHT_EYE"]) + len(CONTOURS["LEFT_EYE"]))
# What expressions are made of: vertices, and how much their shape counts; and how much the place of each does.
_FEATURES = [(CONTOURS["LIPS"], 4.0), (CONTOURS["RIGHT_EYE"], 4.0), (CONTOURS["LEFT_EYE"], 4.0)]
_FEATURES += [(iris, 1.5) for iris in IRISES]
_FEATURES += [(CONTOURS["RIGHT_EYEBROW"], 1.5), (CONTOURS["LEFT_EYEBROW"], 1.5)]
_PLACE = 0.5
_SMALLEST = 0.1  # distance of the outer eye corners, in coordinates: smaller faces do not count for more
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


def expression_loss(flow: Tensor, source: Tensor, driving: Tensor) -> Tensor:
    """How far from where they are in the source the flow says that lips, lids, irises and brows come from, relative to
    the middle of each (and a little their middles): mean |difference|, in distances of the outer eye corners.

    Every feature counts by itself, however small it is beside the head. flow: backward, (B, h, w, 2). source, driving:
    meshes (B, 478, 2), not a number where there is no face: such pictures do not count.
    """
    seen = ~(source + driving).isnan().flatten(1).any(dim=1)[:, None, None]
    source, driving = (torch.where(seen, mesh, torch.zeros_like(mesh)) for mesh in (source, driving))
    apart = (driving[:, 33] - driving[:, 263]).norm(dim=-1).clamp_min(_SMALLEST)[:, None, None]
    total = flow.new_zeros(())
    for (_, weight), vertices in zip(_FEATURES, _feature_vertices(flow.device), strict=True):
        places, origins = driving.index_select(1, vertices), source.index_select(1, vertices)
        read = sample(flow.permute(0, 3, 1, 2), places[:, None], exact=True)[:, :, 0].transpose(1, 2)
        error = torch.where(seen, (read - origins) / apart, 0.0)
        shape = error - error.mean(dim=1, keepdim=True)
        total = total + weight * shape.abs().sum() / len(vertices) + _PLACE * error.abs().sum() / len(vertices)
    return total / (2 * seen.sum().clamp_min(1))


@lru_cache
def _feature_vertices(device: torch.device) -> list[Tensor]:
    with torch.inference_mode(False):
        return [torch.tensor(vertices, device=device) for vertices, _ in _FEATURES]


def close_ups(pictures: Tensor, landmarks: Tensor, faces: Tensor) -> Tensor:
    """The mouths, then the pairs of eyes, of pictures (B, C, H, W) with `contour_points` (B, 152, 2), each in a square
    of 64 pixels: (2 B', C, 64, 64). Half as large again as the distance of its outermost landmarks.

    faces: the numbers (B',) of the pictures that have one; a GPU that had to say would be waited for.
    """
    pictures, landmarks = pictures.index_select(0, faces), landmarks.index_select(0, faces)
    grid = coordinate_grid(SIDE, SIDE, landmarks)
    views = []
    for part in (LIPS, EYES):
        points = landmarks[:, part]
        low, high = points.amin(dim=1), points.amax(dim=1)
        half = (high - low).amax(dim=1) * _MARGIN / 2
        centre = (low + high) / 2
        views.append(sample(pictures, grid * half[:, None, None, None] + centre[:, None, None], exact=True))
    return torch.cat(views)
