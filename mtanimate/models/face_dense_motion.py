"""The dense motion network for faces: masks that begin as Gaussians about the tied keypoints (Eq. 2)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtanimate.config import DenseMotionConfig
from mtanimate.geometry import (
    CPU,
    antialias_downsample,
    coordinate_grid,
    full_precision,
    inverse_2x2,
    matmul_2x2,
    sample,
    transform_points,
)
from mtanimate.models.blocks import Hourglass
from mtanimate.models.dense_motion import FARTHEST, DenseMotion
from mtanimate.models.face_points import (
    COUNT,
    JAW,
    LEFT_BROW,
    MOUTH,
    RIGHT_BROW,
    SKULL,
    VERTICES,
    Openings,
    canonical_points,
    face_frame,
    inside,
    token_indices,
)
from mtanimate.models.motion import Motion

# Initial standard deviations of the parts' masks, along and across the eyes, in face coordinates.
_LID, _IRIS, _CORNER = (0.09, 0.035), (0.05, 0.04), (0.05, 0.05)
_EYE = [_LID, _LID, _CORNER, _CORNER, _IRIS]
SIGMAS = [(0.08, 0.055)] * len(MOUTH) + _EYE + _EYE + [(0.12, 0.08)] * len(RIGHT_BROW | LEFT_BROW)
SIGMAS += [(0.2, 0.2)] * len(JAW) + [(0.26, 0.26)] * len(SKULL)
# Initial offsets of masks below their keypoints: those of lids and lips lie on their own side of the opening, so that
# two that touch can part there.
_SIDES = {
    159: -0.035,
    386: -0.035,
    145: 0.035,
    374: 0.035,
    13: -0.03,
    81: -0.03,
    311: -0.03,
    14: 0.03,
    178: 0.03,
    402: 0.03,
}
# Masks of lids and lips end at the opening, those of irises lie inside. _GAIN: what the logit gains on its own side.
# _EDGE: width of the edge in face coordinates, about a cell of the masks; not learned, since it would become so sharp
# that lids move cell by cell.
_GAIN, _EDGE = 4.0, 0.012
# The distance that applies to each vertex: 0-2 to upper edges, 3-5 to lower edges, 6-7 into the eyes' openings.
_EDGED = {159: 0, 386: 1, 13: 2, 81: 2, 311: 2, 145: 3, 374: 4, 14: 5, 178: 5, 402: 5, 468: 6, 473: 7}
# A slice, since a list of numbers would be copied to a GPU at each use.
_IRISES = slice(token_indices([468])[0], token_indices([473])[0] + 1, token_indices([473])[0] - token_indices([468])[0])
_TERMS = 5  # of a quadratic function, see `_terms`
STILL = -3.0  # initial logit of the background, which has no Gaussian
# What occlusion's logit loses where a position inside an opening is read from outside of it, or the reverse.
_UNLIKE = 2.0
_IRIS_HEAT = 0.06  # standard deviation of the generator's maps of irises, in face coordinates
_MOUTH_HEIGHT, _MOUTH_REACH = 0.78, 0.3  # middle and half the width of a mouth, in face coordinates
_HEAT = 0.1  # standard deviation of the hourglass's heat maps: its cells are coarser than an eyelid
_HIDDEN = 64
_UNIT = 0.1  # a typical movement in face coordinates
_LOGITS, _WIDTHS = 10.0, 3.0  # units of predicted logits and log widths: without them learning is slow


class FaceDenseMotionNetwork(nn.Module):
    """Predicts masks for the points of a face, in place of `DenseMotionNetwork`, at twice the hourglass's size.

    The mask of a part begins as a Gaussian about its driving keypoint, as wide as the part: an eyelid has a mask before
    anything is learned, finer than the hourglass's cells. Position, width and strength of a Gaussian also depend on the
    two expressions: an iris has no part in a closed eye. The hourglass sees the source in place, moved with the skull,
    and moved by those first masks, where the paper's sees it moved by every part. Movement of no part, such as hair
    around a turning head, is added to Eq. 2 as a residual (`DenseMotionConfig.residual`).

    Args:
        config: sizes, and whether occlusion and a residual are estimated.
    """

    usual: Tensor
    edges: Tensor

    def __init__(self, config: DenseMotionConfig) -> None:
        super().__init__()
        self.scale_factor = config.scale_factor
        self.exact = config.exact_sampling
        width = config.block_expansion
        self.hourglass = Hourglass(3 * 3 + COUNT, width, config.max_features, config.num_blocks)
        self.conv1 = nn.Conv2d(self.hourglass.out_channels, width, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width + COUNT, width, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(width)
        self.mask = nn.Conv2d(width, COUNT + 1, 3, padding=1)
        self.occlusion = nn.Conv2d(width, 1, 3, padding=1) if config.occlusion else None
        self.residual = nn.Conv2d(width, 2, 3, padding=1) if config.residual else None
        self.log_sigma = nn.Parameter(torch.tensor([(math.log(along), math.log(across)) for along, across in SIGMAS]))
        self.offset = nn.Parameter(torch.tensor([(0.0, _SIDES.get(vertex, 0.0)) for vertex in VERTICES]))
        self.still = nn.Parameter(torch.tensor(STILL))
        self.unlike = nn.Parameter(torch.tensor(_UNLIKE))
        # Buffers, not weights; lists of numbers would be copied to a GPU at each use.
        edges = torch.zeros(max(_EDGED.values()) + 1, 1 + COUNT, device=CPU)
        for vertex, distance in _EDGED.items():
            edges[distance, 1 + VERTICES.index(vertex)] = _GAIN
        self.register_buffer("edges", edges, persistent=False)
        self.register_buffer("usual", canonical_points().repeat(2, 1), persistent=False)
        # From the points of both faces: logits, log widths and offsets of each part's Gaussian, and features.
        self.expression1 = nn.Linear(4 * COUNT, _HIDDEN)
        self.expression2 = nn.Linear(_HIDDEN, 5 * COUNT + width)
        if not self.still.is_meta:
            for layer in (self.mask, self.expression2, self.residual):
                for parameter in layer.parameters() if layer is not None else ():
                    nn.init.zeros_(parameter)

    def reduce(self, source: Tensor) -> Tensor:
        """Reduces a source (B, 3, H, W) to the size of the hourglass: (B, 3, scale * H, scale * W)."""
        return antialias_downsample(source, self.scale_factor)

    def forward(
        self, reduced: Tensor, source: Motion, driving: Motion, background: Tensor | None = None
    ) -> DenseMotion:
        """Combines the motions of a face's points to a dense flow.

        Args:
            reduced: (B or 1, 3, h, w), the source from `reduce`.
            source: motion of the source, of kind `face`, batch size B or 1.
            driving: motion of the driving frames, of kind `face`, batch size B.
            background: ignored: the background stands still.

        Returns:
            Masks, flow, occlusion and openings of batch size B, at 2h x 2w.
        """
        height, width = reduced.shape[2:]
        with full_precision(reduced.device):  # half precision is not enough for coordinates
            moves = _Moves(source, driving)
            bias, log_sigma, offset, features = self._expression(moves)
            gaussians = _gaussians(moves.middles + offset, log_sigma, bias)
            grid = coordinate_grid(height, width, like=driving.keypoints)
            inputs = self._inputs(reduced, source, moves, gaussians, grid)
        x = F.relu(self.bn1(self.conv1(self.hourglass(inputs))))
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        grid = coordinate_grid(2 * height, 2 * width, like=driving.keypoints)
        with full_precision(reduced.device):
            spots = moves.places(grid)
            depths = moves.driving_openings.depths(spots)
            logits, heat = self._logits(gaussians, depths, spots), _heat(moves.middles, spots)
        x = torch.cat([x + features[:, :, None, None].to(x.dtype), heat.to(x.dtype)], dim=1)
        found, residual, hidden = self._heads(F.relu(self.bn2(self.conv2(x))))
        masks = torch.softmax(found.permute(0, 2, 3, 1).to(logits.dtype) + logits, dim=3)
        with full_precision(reduced.device):
            flow = moves.flow(masks, grid)
            if residual is not None:
                flow = flow + moves.residual(residual.to(flow.dtype))
            openings = moves.openings(spots, inside(*depths), flow)
        occlusion = None
        if hidden is not None:
            occlusion = torch.sigmoid(hidden - self.unlike * openings[:, :1])
        return DenseMotion(masks.permute(0, 3, 1, 2), flow, occlusion, self.exact, openings)

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """What the last features (B, C, h, w) give for masks, residual and occlusion, by one convolution for all."""
        heads = [head for head in (self.mask, self.residual, self.occlusion) if head is not None]
        weight = torch.cat([head.weight for head in heads])
        bias = torch.cat([head.bias for head in heads if head.bias is not None])
        mask, *others = F.conv2d(x, weight, bias, padding=1).split([head.out_channels for head in heads], dim=1)
        residual = others.pop(0) if self.residual is not None else None
        return mask, residual, others.pop() if self.occlusion is not None else None

    def _expression(self, moves: "_Moves") -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Predicts, from both expressions, logits (B, K), log widths and offsets (B, K, 2) of Gaussians, and features
        (B, C).
        """
        both = torch.cat([moves.own.expand_as(moves.driver), moves.driver], dim=1)
        found = self.expression2(F.relu(self.expression1(((both - self.usual) / _UNIT).flatten(1))))
        bias, width, offset, features = found.split([COUNT, 2 * COUNT, 2 * COUNT, found.shape[1] - 5 * COUNT], dim=1)
        log_sigma = self.log_sigma + _WIDTHS * width.unflatten(1, (COUNT, 2))
        return _LOGITS * bias, log_sigma, self.offset + _UNIT * offset.unflatten(1, (COUNT, 2)), features

    def _inputs(self, reduced: Tensor, source: Motion, moves: "_Moves", gaussians: Tensor, grid: Tensor) -> Tensor:
        """The source three times (in place, with the skull, by the first masks), and heat maps of the driving face
        minus those of the source: (B, 9 + K, h, w).
        """
        spots, back = moves.places(grid), moves.back[:, None]
        of_source = _heat(transform_points(back, source.keypoints), transform_points(back[:, None], grid))
        heat = _heat(moves.middles, spots) - of_source
        masks = torch.softmax(self._logits(gaussians, moves.driving_openings.depths(spots), spots), dim=3)
        flows = [moves.with_skull(grid), moves.flow(masks, grid)]
        still = reduced.float().expand(heat.shape[0], -1, -1, -1)
        moved = [sample(still, flow, exact=self.exact) for flow in flows]
        return torch.cat([still, *moved, heat], dim=1)

    def _logits(self, gaussians: Tensor, depths: tuple[Tensor, Tensor], spots: Tensor) -> Tensor:
        """Logits of the first masks at positions `spots`, the background's first: (B, h, w, K+1).

        Lids, lips and irises gain on their own side of an opening's edge, and lose on the other.

        gaussians: from `_gaussians`. depths: of these positions in the driving openings.
        """
        below_upper, above_lower = depths
        distances = torch.cat([-below_upper, -above_lower, torch.minimum(below_upper, above_lower)[:, :2]], dim=1)
        sides = torch.tanh(distances / _EDGE).permute(0, 2, 3, 1)
        background = F.pad(self.still.view(1, 1), (0, 0, _TERMS - 1, 0)).expand(spots.shape[0], -1, -1)
        parts = torch.cat([background, gaussians], dim=2)
        edges = self.edges.expand(spots.shape[0], -1, -1)
        return _combined(torch.cat([_terms(spots), sides], dim=3), torch.cat([parts, edges], dim=1))


def _heat(middles: Tensor, spots: Tensor, sigma: float = _HEAT) -> Tensor:
    """Gaussians of one width about `middles` (B, K, 2), at positions `spots` (B, h, w, 2): (B, K, h, w)."""
    width = torch.full_like(middles, math.log(sigma))
    logarithms = _combined(_terms(spots), _gaussians(middles, width, torch.zeros_like(width[..., 0])))
    # Below float32's normal numbers, `exp` takes ten times as long on a CPU.
    return logarithms.clamp_min(-FARTHEST).exp().permute(0, 3, 1, 2)


def _gaussians(middles: Tensor, log_sigma: Tensor, bias: Tensor) -> Tensor:
    """The logarithms of K Gaussians along the axes of the face, as weights (B, 5, K) of `_terms`.

    middles, log_sigma: (B, K, 2). bias: (B, K), the logarithm at the middle.
    """
    half = (-2 * log_sigma).exp() / 2
    constant = bias - (half * middles.square()).sum(dim=-1)
    return torch.cat([-half, 2 * half * middles, constant[..., None]], dim=2).transpose(1, 2)


def _terms(places: Tensor) -> Tensor:
    """What quadratic functions of positions (B, h, w, 2) combine, x^2, y^2, x, y and 1: (B, h, w, 5)."""
    return torch.cat([places.square(), places, torch.ones_like(places[..., :1])], dim=3)


def _combined(terms: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of terms (B, h, w, T), by weights (B, T, K): (B, h, w, K).

    As a matrix product: term by term this would take longer than the convolutions. Channels come last in memory, as
    convolutions have them.
    """
    return (terms.flatten(1, 2) @ weights).unflatten(1, terms.shape[1:3])


class _Moves:
    """Eq. 1 for all points of a face, which share the rotation of the skull: turn z + shift for a driving coordinate z.

    own, driver: points of the source face and of the driving face, in face coordinates, (B, K, 2).
    """

    def __init__(self, source: Motion, driving: Motion) -> None:
        self.inverse = inverse_2x2(driving.affine[:, 0])
        self.middles = transform_points(self.inverse[:, None], driving.keypoints)
        self.turn = matmul_2x2(source.affine[:, 0], self.inverse)
        self.shifts = source.keypoints - transform_points(self.turn[:, None], driving.keypoints)
        origin, driving_origin = (face_frame(motion.keypoints)[1] for motion in (source, driving))
        self.skull = origin - transform_points(self.turn, driving_origin)
        self.origin = transform_points(self.inverse, driving_origin)
        self.driver = self.middles - self.origin[:, None]
        self.axes = source.affine[:, 0]
        self.apart = (driving.keypoints - source.keypoints).detach()
        self.back = inverse_2x2(self.axes)
        self.own = transform_points(self.back[:, None], source.keypoints - origin[:, None])
        self.driving_openings = Openings(self.middles)
        self.source_openings = Openings(transform_points(self.back[:, None], source.keypoints))

    def places(self, grid: Tensor) -> Tensor:
        """Positions of the driving picture in the axes and the scale of the face: (B, h, w, 2), as `middles`."""
        return transform_points(self.inverse[:, None, None], grid)

    def with_skull(self, grid: Tensor) -> Tensor:
        """The flow (B, h, w, 2) of a face that moves as its skull does, without an expression."""
        return transform_points(self.turn[:, None, None], grid) + self.skull[:, None, None]

    def flow(self, masks: Tensor, grid: Tensor) -> Tensor:
        """The dense flow (B, h, w, 2) of masks (B, h, w, K+1), the background's first (Eq. 2)."""
        moved = transform_points(self.turn[:, None, None], grid)
        shifted = _combined(masks, F.pad(self.shifts, (0, 0, 1, 0)))
        return torch.lerp(moved, grid.expand_as(moved), masks[..., :1]) + shifted

    def residual(self, found: Tensor) -> Tensor:
        """Turns a convolution's output (B, 2, h, w), in axes and scale of the source face, into a flow (B, h, w, 2).

        It is zero where the points of both faces coincide, and in full where they are far apart.
        """
        apart = transform_points(self.back[:, None], self.apart).norm(dim=-1).mean(dim=1)
        amount = _UNIT * torch.tanh(apart / _UNIT)[:, None, None, None]
        return transform_points(self.axes[:, None, None], amount * found.permute(0, 2, 3, 1))

    def openings(self, spots: Tensor, own: Tensor, flow: Tensor) -> Tensor:
        """What the generator is told of eyes and mouth: (B, 6, h, w).

        The channels: how much an opening is read where there is none, or the reverse, or one less open than in the
        driving face; the eyes, irises and mouth of the driving face; and the position in the mouth, x and y (teeth
        stand still in the skull).

        spots: positions from `places`. own: (B, 3, h, w), how much each belongs to the driving openings. flow: there.
        """
        unlike = self._unlike(own, flow.detach())
        # An enlarged flow that reads one lid and then the other reads the eye between them.
        halfway = self.driving_openings.inside((spots[:, 1:] + spots[:, :-1]) / 2)
        between = self._unlike(halfway, (flow[:, 1:] + flow[:, :-1]).detach() / 2)
        unlike = torch.maximum(unlike, torch.maximum(F.pad(between, (0, 0, 1, 0)), F.pad(between, (0, 0, 0, 1))))
        eyes, mouth = own[:, :2].sum(dim=1, keepdim=True), own[:, 2:]
        irises = eyes * _heat(self.middles[:, _IRISES], spots, _IRIS_HEAT).sum(dim=1, keepdim=True)
        across, down = (spots - self.origin[:, None, None])[:, None].unbind(dim=-1)
        place = torch.cat([across, down - _MOUTH_HEIGHT], dim=1) / _MOUTH_REACH
        return torch.cat([unlike, eyes, irises, mouth, mouth * place], dim=1)

    def _unlike(self, own: Tensor, flow: Tensor) -> Tensor:
        """How far the openings that the flow reads differ from the driving face's, `own`: (B, 1, h, w)."""
        read = self.source_openings.inside(transform_points(self.back[:, None, None], flow))
        less = self.source_openings.gaps / self.driving_openings.gaps.clamp_min(1e-3)
        shown = less.clamp(0, 1)[:, :, None, None] * own
        return torch.maximum(own - torch.minimum(read, shown), read - own).amax(dim=1, keepdim=True)
