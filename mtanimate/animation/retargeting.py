"""Retargeting: what the driver's motion becomes on the source.

Between faces it works in each face's own coordinates. A keypoint's movement in the picture mixes the head's movement
with that of its features, and would bend a face of another shape. So the head's movement carries the source's own
shape, and features move in proportion to the source's own mouth and eyes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from mtanimate.geometry import inverse_2x2, matmul_2x2, transform_points
from mtanimate.models.face_points import LEFT_EYE, MOUTH, RIGHT_EYE, face_frame, token_indices
from mtanimate.models.motion import Motion, affine_change, movement_scale, scale_affine_change, transfer_relative

_MOUTH = token_indices(MOUTH)
_EYES = (token_indices(RIGHT_EYE), token_indices(LEFT_EYE))
_MOUTH_CORNERS = token_indices((61, 291))
_EYE_CORNERS = (token_indices((33, 133)), token_indices((362, 263)))
_LIPS = [token_indices(pair) for pair in ((13, 14), (81, 178), (311, 402))]  # upper, lower
_LIDS = [token_indices(pair) for pair in ((159, 145), (386, 374))]
_SIZES = (0.6, 1.6)  # the source's mouth or eye relative to the driver's; beyond, one of the two was misread
_WIDEST = 2.0  # the largest opening of lids, relative to the source's own eye
_SHUT = 0.03  # an opening, in face coordinates, below which a ratio to it means nothing
# The weight of lips and lids against that of the pose, when the reference frame is chosen.
_EXPRESSION = 2.0
# How far a head moves through the picture freely, and at most, in distances of the outer eye corners. Beyond that, the
# network draws hair out to a strand between where it was and where it is: few training clips hold such movement.
_FREELY, _AT_MOST = 0.3, 0.5
_SCALE = 0.6  # brings distances between faces to the scale of other motions, so that `FAR` holds for both


def own_coordinates(motion: Motion) -> Tensor:
    """Keypoints in the face's own coordinates: (B, K, 2)."""
    matrix, origin = face_frame(motion.keypoints)
    return transform_points(inverse_2x2(matrix)[:, None], motion.keypoints - origin[:, None])


def transfer_face(
    source: Motion, driving: Motion, reference: Motion, adapt_scale: bool = True, strength: float = 1.0
) -> Motion:
    """The source's motion after the driver's head and features moved from `reference` to `driving`.

    Args:
        source: Batch 1 or B.
        driving: Batch B.
        reference: Batch 1.
        adapt_scale: Scale the head's movement by the sizes of the heads, and that of mouth and eyes by theirs.
        strength: Of the whole movement; 0 leaves the source where it is.

    A head that moves farther through the picture than `_AT_MOST` of its size is held back; it still turns as far.
    """
    _, driver_origin = face_frame(driving.keypoints)
    rest_frame, rest_origin = face_frame(reference.keypoints)
    frame, origin = face_frame(source.keypoints)
    rest, own = own_coordinates(reference), own_coordinates(source)
    driver = own_coordinates(driving)
    moved = (driver - rest) * strength
    if adapt_scale:
        moved = moved * _part_sizes(own, rest)[..., None]
    features = _bounded(own, rest, driver, own + moved, strength)
    size = (_size(frame) / _size(rest_frame))[:, None] if adapt_scale else 1.0
    turned = matmul_2x2(scale_affine_change(affine_change(driving, reference)[:, 0], strength), frame)
    place = origin + _held_back((driver_origin - rest_origin) * size * strength, _size(frame))
    keypoints = transform_points(turned[:, None], features) + place[:, None]
    return Motion(keypoints, turned[:, None].expand(-1, keypoints.shape[1], -1, -1), kind="face")


def _held_back(step: Tensor, size: Tensor) -> Tensor:
    """A movement through the picture (B, 2), at most `_AT_MOST` sizes (B or 1,) long."""
    length = (step.norm(dim=-1) / size)[:, None]
    rest = _AT_MOST - _FREELY
    held = _FREELY + rest * torch.tanh((length - _FREELY) / rest)
    return torch.where(length > _FREELY, step * held / length.clamp_min(_FREELY), step)


def face_distances(source: Motion, driving: Motion) -> Tensor:
    """How far the pose and expression of each driving frame is from the source's: (T,).

    While one person talks it is 0.05 to 0.15. The nearest frame of another person's clip has a median of 0.14, or 0.28
    where that person looks another way.
    """
    frames, _ = face_frame(driving.keypoints)
    frame, _ = face_frame(source.keypoints[:1])
    turn = frames / _size(frames)[:, None, None] - frame / _size(frame)[:, None, None]
    openings = _openings(own_coordinates(driving)) - _openings(own_coordinates(source[:1]))
    shape = own_coordinates(driving) - own_coordinates(source[:1])
    pose = turn.flatten(1).norm(dim=1) / 2 + shape.norm(dim=2).mean(dim=1)
    return _SCALE * (pose + _EXPRESSION * openings.abs().mean(dim=1))


def _openings(own: Tensor) -> Tensor:
    """How far mouth, right eye and left eye are open, in face coordinates: (B, 3)."""
    pairs = [_LIPS[0], *_LIDS]
    return torch.stack([(own[:, lower] - own[:, upper]).norm(dim=-1) for upper, lower in pairs], dim=1)


def _part_sizes(own: Tensor, rest: Tensor) -> Tensor:
    """How much larger the source's mouth and eyes are than the driver's: (B, K), 1 for all other points."""
    parts = [(_MOUTH, _MOUTH_CORNERS), *zip(_EYES, _EYE_CORNERS, strict=True)]
    sizes = torch.ones(own.shape[:2], dtype=own.dtype, device=own.device)
    for part, (one, other) in parts:
        ratio = (own[:, one] - own[:, other]).norm(dim=-1) / (rest[:, one] - rest[:, other]).norm(dim=-1)
        sizes[:, part] = ratio.clamp(*_SIZES)[:, None]
    return sizes


def _bounded(own: Tensor, rest: Tensor, driving: Tensor, features: Tensor, strength: float) -> Tensor:
    """`features` with lips that do not pass through each other, and lids that open in the driver's proportion.

    An eye that the driver shuts is shut, however wide the source's own is. The other tensors are in face coordinates,
    as `own_coordinates` gives them.
    """
    features = features.clone()
    for upper, lower in _LIPS:
        gap = features[:, lower] - features[:, upper]
        _set_gap(features, upper, lower, torch.stack([gap[..., 0], gap[..., 1].clamp_min(0)], dim=-1))
    for upper, lower in _LIDS:
        openings = [(face[:, lower] - face[:, upper]).norm(dim=-1, keepdim=True) for face in (driving, rest)]
        share = (openings[0] / openings[1].clamp_min(_SHUT)).clamp_max(_WIDEST)
        _set_gap(features, upper, lower, (own[:, lower] - own[:, upper]) * (1 + (share - 1) * strength))
    return features


def _set_gap(features: Tensor, upper: int, lower: int, gap: Tensor) -> None:
    """In place: the two points keep their middle."""
    middle = (features[:, upper] + features[:, lower]) / 2
    features[:, upper], features[:, lower] = middle - gap / 2, middle + gap / 2


def _size(frame: Tensor) -> Tensor:
    """The size of a face, from its matrix (B, 2, 2): (B,)."""
    return torch.linalg.det(frame).abs().sqrt()


# A distance by `pose_distances`. While one person talks it is 0.05 to 0.1, and 0.2 or more where the head is turned the
# other way.
FAR = 0.25


def smoothed(motion: Motion, seconds: float, fps: float) -> Motion:
    """Every keypoint and matrix, averaged over time by a Gaussian.

    It looks ahead as far as back, so that nothing lags. The ends are mirrored.

    Args:
        motion: Batch T.
        seconds: The Gaussian's standard deviation; 0 leaves the motion as it is.
        fps: Frames a second.
    """
    sigma = seconds * fps
    if sigma <= 0 or len(motion) < 2:
        return motion
    radius = min(math.ceil(3 * sigma), len(motion) - 1)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    window = torch.exp(-(offsets**2) / (2 * sigma**2))
    window /= window.sum()
    motion = motion.with_continuous_signs()
    return replace(motion, keypoints=_filtered(motion.keypoints, window), affine=_filtered(motion.affine, window))


def _filtered(values: Tensor, window: Tensor) -> Tensor:
    """(T, ...), filtered over T."""
    tracks = values.double().flatten(1).T[:, None]
    radius = len(window) // 2
    return F.conv1d(F.pad(tracks, (radius, radius), "reflect"), window[None, None])[:, 0].T.view_as(values).to(values)


def held(count: int, lost: list[int]) -> list[int]:
    """For each of `count` frames, the number of the frame whose motion it takes.

    A lost frame takes that of the last one before it that is not lost; at the beginning, of the first one after it.
    """
    gone = set(lost)
    there = [number for number in range(count) if number not in gone]
    if not there:
        return list(range(count))
    rows, last = [], there[0]
    for number in range(count):
        last = last if number in gone else number
        rows.append(last)
    return rows


def pose_distances(source: Motion, driving: Motion) -> Tensor:
    """How far the pose of each driving frame, and of faces the expression, is from the source's: (T,).

    Keypoints are centred on their mean and divided by their root mean square distance from it, so that neither place
    nor size counts. The distance is the mean Euclidean one.
    """
    if source.kind == "face":
        return face_distances(source, driving)
    difference = _normalised(driving.keypoints) - _normalised(source.keypoints[:1])
    return difference.norm(dim=2).mean(dim=1)


def _normalised(keypoints: Tensor) -> Tensor:
    centred = keypoints - keypoints.mean(dim=1, keepdim=True)
    size = centred.square().sum(dim=2, keepdim=True).mean(dim=1, keepdim=True).sqrt()
    return centred / size.clamp_min(1e-6)


def choose_reference(source: Motion, driving: Motion, reference: int | Literal["best"]) -> tuple[int, float]:
    """The number of the driver's reference frame, and how far its pose is from the source's.

    Args:
        source: Batch 1.
        driving: Batch T.
        reference: A number, or "best" for the frame whose pose is nearest to the source's.
    """
    distances = pose_distances(source, driving)
    number = int(distances.argmin()) if reference == "best" else reference
    return number, float(distances[number])


def transferred(
    source: Motion, first: Motion, driving: Motion, reference: Motion, adapt_scale: bool, strength: float
) -> Motion:
    """The driver's movement since the reference frame, added to the source's own motion.

    Args:
        source: Batch 1, or that of `driving`.
        first: The source's first picture, batch 1. The size of its subject is the source's size.
        driving: Batch B.
        reference: The driver's frame at rest, batch 1.
        adapt_scale: Scale the movement by the sizes of the two subjects.
        strength: Of the movement: 1 as it is, 0 for none.

    Returns:
        Batch B.
    """
    if source.kind == "face":
        return transfer_face(source, driving, reference, adapt_scale, strength)
    scale = movement_scale(first, reference) if adapt_scale else 1.0
    return transfer_relative(source, driving, reference, scale, strength)


class MotionTransfer(Protocol):
    """Carries the driver's motion over to a source."""

    def onto(self, source: Motion, first: Motion, frames: slice = slice(None)) -> Motion:
        """The source's motion in these frames of the driver's sequence.

        Args:
            source: The motion of the source's own pictures: batch 1, or one for each of the frames.
            first: That of the source's first picture, batch 1.
            frames: Which frames of the sequence, B in all; by default all of them.

        Returns:
            Batch B, or 1 for a source that stays at rest.
        """
        ...


@dataclass(frozen=True)
class AtRest:
    """The source does not move."""

    def onto(self, source: Motion, first: Motion, frames: slice = slice(None)) -> Motion:
        return source


@dataclass(frozen=True)
class AbsoluteTransfer:
    """The source takes over the driver's pose. driving: batch T."""

    driving: Motion

    def onto(self, source: Motion, first: Motion, frames: slice = slice(None)) -> Motion:
        return self.driving[frames]


@dataclass(frozen=True)
class DisentangledTransfer:
    """The source takes over the driver's pose, and keeps its own shape.

    Attributes:
        driving: Batch T.
        disentangle: From the source's motion and the driver's, as `Predictor.disentangle`.
    """

    driving: Motion
    disentangle: Callable[[Motion, Motion], Motion]

    def onto(self, source: Motion, first: Motion, frames: slice = slice(None)) -> Motion:
        return self.disentangle(source, self.driving[frames])


@dataclass(frozen=True)
class RelativeTransfer:
    """The source adds the driver's movement since the reference frame to its own pose, as `transferred` does.

    Attributes:
        driving: Batch T.
        reference: The driver's frame at rest, batch 1.
        adapt_scale: Scale the movement by the sizes of the two subjects.
        strength: Of the movement: 1 as it is, 0 for none.
    """

    driving: Motion
    reference: Motion
    adapt_scale: bool = True
    strength: float = 1.0

    def onto(self, source: Motion, first: Motion, frames: slice = slice(None)) -> Motion:
        return transferred(source, first, self.driving[frames], self.reference, self.adapt_scale, self.strength)


@dataclass(frozen=True)
class RetargetedMotion:
    """How the source moves.

    Attributes:
        transfer: Carries the driver's motion over to the source.
        background: The background's motion, (T, 3, 3); None where it stands still.
        frames: How many frames the result has.
        fps: Frames a second.
        times: Of the driver's frames, in seconds since the first; None where the rate is constant.
        reference_frame: The number, in the driving video, of the frame that counts as rest; None without one.
        reference_distance: Between the poses of the source and of the reference frame.
    """

    transfer: MotionTransfer
    background: Tensor | None
    frames: int
    fps: Fraction
    times: list[Fraction] | None
    reference_frame: int | None = None
    reference_distance: float | None = None
