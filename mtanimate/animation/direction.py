"""From the driver's motion to the source's: which frame is rest, how strong, how smooth."""

import math
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mtanimate.models.face_transfer import face_distances, transfer_face
from mtanimate.models.motion import Motion, movement_scale, transfer_relative

# Between the normalised keypoints of two pictures; see `pose_distances`. 0.05 to 0.1 within one person's talking,
# 0.2 and more where a head is turned the other way.
FAR = 0.25


def smoothed(motion: Motion, seconds: float, fps: float) -> Motion:
    """Every keypoint and matrix averaged over time by a Gaussian of this standard deviation: no lag, since it looks
    ahead as far as back. The ends are mirrored."""
    sigma = seconds * fps
    if sigma <= 0 or len(motion) < 2:
        return motion
    radius = min(math.ceil(3 * sigma), len(motion) - 1)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    window = torch.exp(-(offsets**2) / (2 * sigma**2))
    window /= window.sum()
    motion = motion.unwound()
    return replace(motion, keypoints=_filtered(motion.keypoints, window), affine=_filtered(motion.affine, window))


def _filtered(values: Tensor, window: Tensor) -> Tensor:
    """(T, ...) over T."""
    tracks = values.double().flatten(1).T[:, None]
    radius = len(window) // 2
    return F.conv1d(F.pad(tracks, (radius, radius), "reflect"), window[None, None])[:, 0].T.view_as(values).to(values)


def held(count: int, lost: list[int]) -> list[int]:
    """Of `count` frames, the one that each takes its motion from: a lost one from the last that is not lost; at the
    beginning, from the first one after it."""
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
    """How far each driving frame's pose is from the source's, and of faces their expression: (T,).

    Keypoints are centred on their mean and divided by their root mean square distance from it, so that neither place
    nor size counts; then the mean Euclidean distance.
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
    """The frame that counts as rest, and how far its pose is from the source's."""
    distances = pose_distances(source, driving)
    number = int(distances.argmin()) if reference == "best" else reference
    return number, float(distances[number])


def transferred(
    source: Motion, first: Motion, driving: Motion, reference: Motion, adapt_scale: bool, strength: float
) -> Motion:
    """The driver's movement since the reference frame, added to the source's own motion.

    source: batch 1 or that of driving; first: the source's first picture, whose subject's size counts, batch 1, as
    reference. adapt_scale: by the sizes of the two subjects. strength: as `transfer_relative` takes it.
    """
    if source.kind == "face":
        return transfer_face(source, driving, reference, adapt_scale, strength)
    scale = movement_scale(first, reference) if adapt_scale else 1.0
    return transfer_relative(source, driving, reference, scale, strength)
