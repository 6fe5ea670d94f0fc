"""The points of a face that motion tokens are tied to, the frame of its skull, and the openings of eyes and mouth.

Face coordinates: the origin lies between the eyes, the outer eye corners are 1 apart, x points to the picture's right,
y down. Positions are medians over faces that look into the camera.
"""

from collections.abc import Iterable
from functools import lru_cache

import torch
from torch import Tensor

from mtanimate.geometry import CPU

# Vertex of MediaPipe's refined face mesh (Kartynnik et al., 2019) -> position, part by part. "Right" is the subject's.
MOUTH = {
    13: (0.0, 0.735),
    14: (0.0, 0.822),
    61: (-0.279, 0.771),
    291: (0.279, 0.771),
    0: (0.0, 0.667),
    17: (0.0, 0.942),
    81: (-0.128, 0.736),
    311: (0.128, 0.736),
    178: (-0.128, 0.808),
    402: (0.128, 0.808),
}
RIGHT_EYE = {
    159: (-0.372, -0.062),
    145: (-0.355, 0.032),
    33: (-0.5, -0.008),
    133: (-0.196, 0.007),
    468: (-0.356, -0.02),
}
LEFT_EYE = {386: (0.372, -0.062), 374: (0.355, 0.032), 263: (0.5, -0.008), 362: (0.196, 0.007), 473: (0.356, -0.02)}
RIGHT_BROW = {105: (-0.462, -0.281), 107: (-0.162, -0.258)}
LEFT_BROW = {334: (0.462, -0.281), 336: (0.162, -0.258)}
JAW = {1: (0.0, 0.438), 152: (0.0, 1.3)}
SKULL = {
    168: (0.0, -0.057),
    10: (0.0, -0.598),
    234: (-0.788, 0.226),
    454: (0.788, 0.226),
    50: (-0.546, 0.366),
    280: (0.546, 0.366),
    172: (-0.627, 0.913),
    397: (0.627, 0.913),
}
PLACES = MOUTH | RIGHT_EYE | LEFT_EYE | RIGHT_BROW | LEFT_BROW | JAW | SKULL
VERTICES = list(PLACES)
COUNT = len(VERTICES)
# Vertices that do not move against the skull: none of lips, lids, brows and jaw, nor the protruding tip of the nose.
RIGID = (33, 133, 263, 362, 168, 10, 234, 454)
# Right eye, left eye, mouth: corner, middles of the upper and the lower edge, other corner, from left to right in the
# picture.
OPENINGS = ((33, 159, 145, 133), (362, 386, 374, 263), (61, 13, 14, 291))
_OPENINGS = len(OPENINGS)
OPENING_MAPS = 6  # channels of `mtanimate.models.dense_motion.DenseMotion.openings`
_NARROWEST = 0.03  # least distance from corner to middle, in face coordinates: less means a profile, or an error
_EDGE = 0.02  # `inside` rises from 0 at an edge to 1 at this depth, in face coordinates


def token_indices(vertices: Iterable[int]) -> list[int]:
    """The indices of the tokens that are tied to these vertices of the face mesh, in the same order."""
    return [VERTICES.index(vertex) for vertex in vertices]


@lru_cache
def canonical_points(device: torch.device = CPU) -> Tensor:
    """The position of each point on a face that looks into the camera: (COUNT, 2) in face coordinates, cached."""
    with torch.inference_mode(False):  # cached for all callers; training cannot use inference tensors
        return torch.tensor(list(PLACES.values()), device=CPU).to(device)


def face_frame(points: Tensor, vertices: tuple[int, ...] = RIGID) -> tuple[Tensor, Tensor]:
    """Fits the affine map from face coordinates to the picture, by least squares.

    Args:
        points: (B, COUNT or more, 2), (x, y) in [-1, 1], the tied keypoints first.
        vertices: of the mesh that are fitted; by default those that do not move against the skull.

    Returns:
        The matrix (B, 2, 2), and the position of the origin (B, 2).
    """
    matrix, origin = _solver(vertices, points.device)
    tied = points[:, :COUNT]
    return (tied[..., None] * matrix[:, None]).sum(dim=1), (tied * origin).sum(dim=1)


class Openings:
    """The openings of eyes and mouth, between lids and between lips.

    An edge is a parabola on each side of its middle, where it is level: within 0.005 of the mesh's lids and inner lips,
    in distances of the outer eye corners.

    Args:
        points: tied keypoints (B, K, 2), in the axes and the scale of the face.

    Attributes:
        gaps: (B, 3), the height of each opening: right eye, left eye, mouth.
    """

    def __init__(self, points: Tensor) -> None:
        left, middle, right = points.index_select(1, _edges(points.device)).unflatten(1, (3, -1)).unbind(dim=1)
        self._middle = middle[..., None]  # (B, 6, 2, 1): upper and lower edge of each opening
        self.gaps = middle[:, 1::2, 1] - middle[:, ::2, 1]  # (B, 3): height of each opening
        reach = torch.stack([left - middle, right - middle])
        across = torch.stack([reach[0, ..., 0].clamp_max(-_NARROWEST), reach[1, ..., 0].clamp_min(_NARROWEST)])
        self._per_reach, self._drop = 1 / across[..., None], reach[..., 1, None]  # (2, B, 6, 1)

    def depths(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """How far positions lie below the upper and above the lower edge of each opening.

        Beyond a corner both edges continue at the corner's height.

        Args:
            places: (B, h, w, 2), as `points`.

        Returns:
            Two tensors (B, 3, h, w): below the upper edge, and above the lower one.
        """
        x, y = places.flatten(1, 2).transpose(1, 2)[:, :, None].unbind(dim=1)  # (B, 1, h w)
        beside = x - self._middle[:, :, 0]
        left, right = (beside * per_reach for per_reach in self._per_reach)
        drop = torch.where(beside < 0, self._drop[0], self._drop[1])
        heights = self._middle[:, :, 1] + drop * torch.maximum(left, right).clamp_max(1).square()
        below = (y - heights).unflatten(1, (_OPENINGS, 2)).unflatten(3, places.shape[1:3])
        return below[:, :, 0], -below[:, :, 1]

    def inside(self, places: Tensor) -> Tensor:
        """How much positions (B, h, w, 2) belong to each opening: (B, 3, h, w) in [0, 1]."""
        return inside(*self.depths(places))


def inside(below_upper: Tensor, above_lower: Tensor) -> Tensor:
    """Turns `Openings.depths` into a weight: 0 on the edges and outside, 1 well inside."""
    return (torch.minimum(below_upper, above_lower) / _EDGE).clamp(0, 1)


@lru_cache
def _solver(vertices: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """The weights by which `face_frame` combines points linearly to matrix and origin: (COUNT, 2), (COUNT, 1)."""
    with torch.inference_mode(False):
        chosen = token_indices(vertices)
        known = canonical_points()[chosen].double()
        middle = known.mean(dim=0)
        matrix = torch.zeros(COUNT, 2, dtype=torch.float64, device=CPU)
        matrix[chosen] = (known - middle) @ torch.linalg.inv((known - middle).T @ (known - middle))
        origin = torch.zeros(COUNT, 1, dtype=torch.float64, device=CPU)
        origin[chosen] = 1 / len(chosen)
        origin -= matrix @ middle[:, None]
        return matrix.float().to(device), origin.float().to(device)


@lru_cache
def _edges(device: torch.device = CPU) -> Tensor:
    """Indices of the tokens of left corners, middles and right corners of all edges: (3 * 6,).

    They are kept on the device: a list of numbers would be copied there at each use.
    """
    edges = [(left, middle, right) for left, *middles, right in OPENINGS for middle in middles]
    with torch.inference_mode(False):  # cached for all callers; training cannot use inference tensors
        tokens = [token for vertices in zip(*edges, strict=True) for token in token_indices(vertices)]
        return torch.tensor(tokens, device=CPU).to(device)
