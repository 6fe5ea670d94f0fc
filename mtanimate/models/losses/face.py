"""Losses on facial landmarks, mouths and eyes, which are small in a picture but what people look at."""

from functools import lru_cache

import torch
from torch import Tensor

from mtanimate.faces.mesh import CONTOURS, IRISES, SKIN
from mtanimate.faces.mesh import VERTICES as MESH_VERTICES
from mtanimate.geometry import CPU, coordinate_grid, inverse_2x2, sample, transform_points
from mtanimate.models.face_points import (
    COUNT,
    LEFT_BROW,
    LEFT_EYE,
    MOUTH,
    RIGHT_BROW,
    RIGHT_EYE,
    VERTICES,
    Openings,
    face_frame,
    token_indices,
)

# The terms read the points of these contours of the face mesh, one contour after the other.
_SIZES = [len(vertices) for vertices in CONTOURS.values()]
POINTS = sum(_SIZES)
LIPS = slice(0, len(CONTOURS["LIPS"]))
EYES = slice(LIPS.stop, LIPS.stop + len(CONTOURS["RIGHT_EYE"]) + len(CONTOURS["LEFT_EYE"]))
# What expressions are made of: vertices, and how much their shape counts; and how much the place of each does.
_FEATURES = [(CONTOURS["LIPS"], 4.0), (CONTOURS["RIGHT_EYE"], 4.0), (CONTOURS["LEFT_EYE"], 4.0)]
_FEATURES += [(iris, 1.5) for iris in IRISES]
_FEATURES += [(CONTOURS["RIGHT_EYEBROW"], 1.5), (CONTOURS["LEFT_EYEBROW"], 1.5)]
_IRISES = slice(SKIN, MESH_VERTICES)
_PLACE = 0.5
# Edges of eyes and mouth are two places at once; what is meant is the skin beside them, so far away, in face
# coordinates.
_UPPER = [246, 161, 160, 159, 158, 157, 173, 466, 388, 387, 386, 385, 384, 398, 191, 80, 81, 82, 13, 312, 311, 310, 415]
_LOWER = [7, 163, 144, 145, 153, 154, 155, 249, 390, 373, 374, 380, 381, 382, 95, 88, 178, 87, 14, 317, 402, 318, 324]
_BESIDE = 0.014
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

    Every feature counts by itself, however small it is beside the head; of irises, the points that no lid hides. flow:
    backward, (B, h, w, 2). source, driving: meshes (B, 478, 2), not a number where there is no face: such pictures do
    not count.
    """
    seen = ~(source + driving).isnan().flatten(1).any(dim=1)[:, None, None]
    source, driving = (torch.where(seen, mesh, torch.zeros_like(mesh)) for mesh in (source, driving))
    apart = (driving[:, 33] - driving[:, 263]).norm(dim=-1).clamp_min(_SMALLEST)[:, None, None]
    (origins, source_shown), (places, driving_shown) = _beside_edges(source), _beside_edges(driving)
    read = sample(flow.permute(0, 3, 1, 2), places[:, None], exact=True)[:, :, 0].transpose(1, 2)
    errors = torch.where(seen, source_shown * driving_shown * (read - origins) / apart, 0.0)
    total = flow.new_zeros(())
    for (_, weight), vertices in zip(_FEATURES, _feature_vertices(flow.device), strict=True):
        error = errors.index_select(1, vertices)
        shape = error - error.mean(dim=1, keepdim=True)
        total = total + weight * shape.abs().sum() / len(vertices) + _PLACE * error.abs().sum() / len(vertices)
    return total / (2 * seen.sum().clamp_min(1))


def _beside_edges(mesh: Tensor) -> tuple[Tensor, Tensor]:
    """The mesh (B, 478, 2) with lids and inner lips on the skin's side of their edges; and how much is seen of each
    vertex, (B, 478, 1): an iris is hidden by its lids."""
    tied = mesh.index_select(1, _tied(mesh.device))
    matrix, origin = face_frame(tied)
    beside = mesh + _BESIDE * _sides(mesh.device) * matrix[:, None, :, 1]
    # In pictures without a face no axes can be inverted; those do not count.
    back = inverse_2x2(matrix + 1e-6 * torch.eye(2, device=mesh.device))[:, None]
    irises = transform_points(back, mesh[:, _IRISES] - origin[:, None])
    opened = Openings(transform_points(back, tied - origin[:, None])).inside(irises[:, None])[:, :2, 0]
    shown = torch.cat([torch.ones_like(mesh[:, : _IRISES.start, :1]), opened.amax(dim=1)[..., None]], dim=1)
    return beside, shown


@lru_cache
def _tied(device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(VERTICES, device=device)


@lru_cache
def _sides(device: torch.device) -> Tensor:
    """Up for upper edges, down for lower ones: (478, 1)."""
    with torch.inference_mode(False):
        sides = torch.zeros(MESH_VERTICES, 1)
        sides[_UPPER], sides[_LOWER] = -1.0, 1.0
        return sides.to(device)


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


# Features move by less than a head does, so their shapes count by themselves: points relative to their group's middle,
# openings, and irises between the corners of their eyes. So do those by whose places a head is seen to turn and nod,
# the nose's tip against the eyes above all.
_SHAPES = (MOUTH, RIGHT_EYE, LEFT_EYE, [*RIGHT_BROW, *LEFT_BROW, 33, 263])
_POSE = (1, 152, 168, 10, 33, 263, 133, 362, 234, 454, 50, 280)
_GROUPS = [(3.0, token_indices(group)) for group in _SHAPES] + [(6.0, token_indices(_POSE))]
_TIP, _EYES = token_indices([1])[0], token_indices((33, 133, 263, 362, 168))
_OPENINGS = [token_indices(pair) for pair in ((13, 14), (81, 178), (311, 402), (61, 291), (159, 145), (386, 374))]
_GAZES = [token_indices(three) for three in ((468, 33, 133), (473, 263, 362))]
_OPENING, _GAZE, _NOSE = 1.5, 4.0, 3.0


def token_landmark_loss(keypoints: Tensor, mesh: Tensor) -> Tensor:
    """Mean |difference| of tied keypoints and their vertices, in distances of the outer eye corners, and more for the
    shapes of mouth, eyes, brows and of what shows the pose, for openings, and for gaze.

    keypoints: (B, K, 2), the tied ones first. mesh: (B, 478, 2) of the same pictures, (x, y) in [-1, 1]; not a number
    where there is no face: such pictures do not count.
    """
    seen = ~mesh.isnan().flatten(1).any(dim=1)
    mesh = torch.where(seen[:, None, None], mesh, torch.zeros_like(mesh))
    apart = (mesh[:, 33] - mesh[:, 263]).norm(dim=-1).clamp_min(_SMALLEST)[:, None, None]
    vertices, eyes, groups = _indices(mesh.device)
    error = torch.where(seen[:, None, None], (keypoints[:, :COUNT] - mesh[:, vertices]) / apart, 0.0)
    total = _size(error)
    for (weight, _), group in zip(_GROUPS, groups, strict=True):
        total = total + weight * _size(error[:, group] - error[:, group].mean(dim=1, keepdim=True))
    total = total + _NOSE * _size(error[:, _TIP] - error[:, eyes].mean(dim=1))
    for one, other in _OPENINGS:
        total = total + _OPENING * _size(error[:, one] - error[:, other])
    for iris, outer, inner in _GAZES:
        total = total + _GAZE * _size(error[:, iris] - (error[:, outer] + error[:, inner]) / 2)
    return total.sum() / seen.sum().clamp_min(1)


def _size(error: Tensor) -> Tensor:
    """Mean |error| of each picture: (B,)."""
    return error.abs().flatten(1).mean(dim=1)


@lru_cache
def _indices(device: torch.device) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Of the vertices, the eyes and each group, on the device: lists would be copied there at every call, which
    waits."""
    with torch.inference_mode(False):  # kept for all callers: training cannot use an inference tensor
        lists = (VERTICES, _EYES, *(group for _, group in _GROUPS))
        vertices, eyes, *groups = (torch.tensor(numbers, device=CPU).to(device) for numbers in lists)
        return vertices, eyes, groups
