"""Eyes and mouth as openings between two curves: what lies inside them, from the tied keypoints of a face."""

from functools import lru_cache

import torch
from torch import Tensor

from mtanimate.geometry import CPU
from mtanimate.models.face_points import indices

# Right eye, left eye, mouth: corner, middles of the upper and the lower edge, other corner, from left to right in the
# picture.
OPENINGS = ((33, 159, 145, 133), (362, 386, 374, 263), (61, 13, 14, 291))
COUNT = len(OPENINGS)
OPENING_MAPS = 6  # channels of `mtanimate.models.dense_motion.DenseMotion.openings`
_NARROWEST = 0.03  # from a corner to the middle, in face coordinates: narrower ones are profiles, or misread
_EDGE = 0.02  # inside begins at an edge and is whole at this depth, in face coordinates


class Openings:
    """The openings of faces. points: tied keypoints (B, K, 2) with the axes and the size of the face.

    An edge is a parabola on each side of its middle, level there: within 0.005 of the mesh's lids and inner lips, in
    distances of the outer eye corners.
    """

    def __init__(self, points: Tensor) -> None:
        left, middle, right = points.index_select(1, _edges(points.device)).unflatten(1, (3, -1)).unbind(dim=1)
        self._middle = middle[..., None]  # (B, 6, 2, 1): edges from upper to lower, opening by opening
        self.gaps = middle[:, 1::2, 1] - middle[:, ::2, 1]  # (B, 3): how far apart an opening's edges are
        reach = torch.stack([left - middle, right - middle])
        across = torch.stack([reach[0, ..., 0].clamp_max(-_NARROWEST), reach[1, ..., 0].clamp_min(_NARROWEST)])
        self._per_reach, self._drop = 1 / across[..., None], reach[..., 1, None]  # (2, B, 6, 1)

    def depths(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """How far below its upper edge, and how far above its lower one, a place lies: 2 x (B, 3, h, w).

        places: (B, h, w, 2), as `points`. Beyond a corner both edges go on at the corner's height.
        """
        x, y = places.flatten(1, 2).transpose(1, 2)[:, :, None].unbind(dim=1)  # (B, 1, h w)
        beside = x - self._middle[:, :, 0]
        left, right = (beside * per_reach for per_reach in self._per_reach)
        drop = torch.where(beside < 0, self._drop[0], self._drop[1])
        heights = self._middle[:, :, 1] + drop * torch.maximum(left, right).clamp_max(1).square()
        below = (y - heights).unflatten(1, (COUNT, 2)).unflatten(3, places.shape[1:3])
        return below[:, :, 0], -below[:, :, 1]

    def inside(self, places: Tensor) -> Tensor:
        """How much of each opening a place (B, h, w, 2) belongs to: (B, 3, h, w) in [0, 1]."""
        return inside(*self.depths(places))


def inside(below_upper: Tensor, above_lower: Tensor) -> Tensor:
    """From `Openings.depths`: 0 on the edges and outside, 1 well within."""
    return (torch.minimum(below_upper, above_lower) / _EDGE).clamp(0, 1)


@lru_cache
def _edges(device: torch.device = CPU) -> Tensor:
    """The tokens of left corners, middles and right corners of all edges: (3 * 6,). On the device: a list of numbers
    would be brought there at each use."""
    edges = [(left, middle, right) for left, *middles, right in OPENINGS for middle in middles]
    with torch.inference_mode(False):  # kept for all callers: training cannot use an inference tensor
        tokens = [token for vertices in zip(*edges, strict=True) for token in indices(vertices)]
        return torch.tensor(tokens, device=CPU).to(device)
