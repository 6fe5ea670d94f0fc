"""Gestures of a face, by its 68 landmarks or by the face mesh, and how one face follows another in them.

The 68 landmarks are those of iBUG 300-W, in their order.
"""

from dataclasses import dataclass
from typing import TypedDict

import numpy as np

POINTS = 68
_LANDMARK_EYES = (slice(36, 42), slice(42, 48))  # left and right in the picture
_NOSE, _CORNERS = 30, (48, 54)
_LIPS = ((61, 67), (62, 66), (63, 65))  # inner, upper and lower
# A standard deviation below this cannot be told from dlib's noise on a still face.
_STILL = 0.02
FEWEST = 10  # frames for a correlation


def landmark_gestures(landmarks: np.ndarray) -> dict[str, np.ndarray]:
    """Three gestures by 68 landmarks: (T, 68, 2) in pixels, y down -> (T,) each; NaN where no face is found.

    They do not depend on the face's place, size and roll. `yaw`: how far the tip of the nose is right of the
    middle of the eyes in the picture. `pitch`: how far it is below the eyes. `mouth`: how far the lips are open.
    The unit is the geometric mean of the distances between the eyes and from eyes to mouth, which a turn of the head
    changes little.
    """
    left, right = (landmarks[:, eye].mean(axis=1) for eye in _LANDMARK_EYES)
    middle = (left + right) / 2
    apart = np.linalg.norm(right - left, axis=1, keepdims=True)
    across = (right - left) / apart
    down = np.stack([-across[:, 1], across[:, 0]], axis=1)
    mouth = landmarks[:, _CORNERS].mean(axis=1)
    unit = np.sqrt(apart[:, 0] * np.abs(((mouth - middle) * down).sum(axis=1)))
    nose = landmarks[:, _NOSE] - middle
    lips = [np.linalg.norm(landmarks[:, upper] - landmarks[:, lower], axis=1) for upper, lower in _LIPS]
    return {
        "yaw": (nose * across).sum(axis=1) / unit,
        "pitch": (nose * down).sum(axis=1) / unit,
        "mouth": np.mean(lips, axis=0) / unit,
    }


def landmark_following(driving: np.ndarray, generated: np.ndarray) -> dict[str, tuple[float, int]]:
    """Pearson's correlation, over a clip's frames, of each gesture of the driving and of the generated face.

    Two (T, 68, 2) -> for each gesture the correlation and 1; or 0 and 0 where the driving face hardly makes it, or too
    few frames show both faces. A generated face that does not move at all has a correlation of 0.
    """
    wanted, found = landmark_gestures(driving), landmark_gestures(generated)
    return {name: _correlation(wanted[name], found[name]) for name in wanted}


def _correlation(wanted: np.ndarray, found: np.ndarray) -> tuple[float, int]:
    both = np.isfinite(wanted) & np.isfinite(found)
    wanted, found = wanted[both], found[both]
    if len(wanted) < FEWEST or wanted.std() < _STILL:
        return 0.0, 0
    if found.std() < 1e-9:
        return 0.0, 1
    return float(np.corrcoef(wanted, found)[0, 1]), 1


# Points that do not move when a face speaks: corners of the eyes, ridge and tip of the nose, temples, forehead.
_RIGID = [33, 133, 362, 263, 168, 6, 197, 195, 5, 4, 1, 127, 356, 234, 454, 10, 151, 9, 8]
_EYES = ((33, 133), (263, 362))  # outer and inner corner, right and left eye
_LIDS = (((159, 145), (158, 153), (160, 144)), ((386, 374), (385, 380), (387, 373)))  # upper and lower
_IRISES = (468, 473)
_BROWS = (105, 334)


@dataclass(frozen=True)
class Gesture:
    """A gesture.

    Attributes:
        title: Its name in tables.
        least: The standard deviation over a clip's frames from which on a face counts as making it.
        definition: How it is measured, in words.
    """

    title: str
    least: float
    definition: str


_ANGLE = (
    "degrees, of the rotation in space that brings 19 rigid points (nose, corners of the eyes, temples, forehead) of "
    "the first frame that shows both faces nearest to this frame's (Kabsch)"
)
_UNIT = "in units of the distance between the eyes' outer corners"
GESTURES = {
    "yaw": Gesture("turn (yaw)", 1.5, f"turn of the head about the upright axis; {_ANGLE}"),
    "pitch": Gesture("nod (pitch)", 1.5, f"nod of the head about the axis through the ears; {_ANGLE}"),
    "roll": Gesture("roll", 1.5, f"lean of the head in the picture's plane; {_ANGLE}"),
    "mouth": Gesture("mouth opening", 0.02, f"distance of the inner lips' middles (13, 14), {_UNIT} (33, 263)"),
    "width": Gesture("mouth width", 0.02, f"distance of the mouth's corners (61, 291), {_UNIT}"),
    "eyes": Gesture(
        "eyes (opening)",
        0.03,
        "mean of three distances of upper and lower lid over the eye's length, of both eyes (159-145, 158-153, 160-144 "
        "over 33-133; 386-374, 385-380, 387-373 over 263-362)",
    ),
    "gaze": Gesture(
        "gaze (sideways)",
        0.03,
        "place of the iris between the eye's corners, as a share of its length, towards the picture's right; mean of "
        "both eyes (468 between 33 and 133, 473 between 362 and 263)",
    ),
    "brows": Gesture(
        "brows (height)",
        0.015,
        f"distance of the brow from the outer corner of its eye (105-33, 334-263), {_UNIT}; mean of both",
    ),
}
DEFINITION = (
    "by the face mesh, of each gesture, over a clip's frames that show both faces: Pearson's correlation of what the "
    "driving and the generated face do, and the gain, the slope of the generated face's against the driving face's by "
    "least squares: 1 is as much as the driver does, 0 nothing. A pair counts for a gesture when the driver does it, "
    "by its standard deviation: at least {}. It is missing where fewer than ten frames, or than half of those that "
    "show the driver, show the generated face too, or the driver hardly does it in those. Medians over pairs"
).format(", ".join(f"{name} {gesture.least:g}" for name, gesture in GESTURES.items()))


class Following(TypedDict):
    """How one face follows another in one gesture.

    Attributes:
        driving: The standard deviation of the driver's gesture; None where too few frames show the driver.
        counts: Whether the driver makes the gesture.
        correlation: Pearson's correlation of both faces' gestures; None where the driver does not make the gesture, or
            too few frames show both faces.
        gain: The slope of the generated face's gesture against the driver's; None as for `correlation`.
    """

    driving: float | None
    counts: bool
    correlation: float | None
    gain: float | None


def following(driving: np.ndarray, generated: np.ndarray) -> dict[str, Following]:
    """How the generated face follows the driver in each gesture, by two meshes (T, 478, 3) of the same frames.

    A generated face that does not move at all has a correlation and a gain of 0.
    """
    seen = _seen(driving)
    both = seen & _seen(generated)
    first = int((both if both.any() else seen).argmax())
    wanted, found = gestures(driving, first), gestures(generated, first)
    return {name: _follows(wanted[name], found[name], gesture.least) for name, gesture in GESTURES.items()}


def gestures(mesh: np.ndarray, first: int = 0) -> dict[str, np.ndarray]:
    """All of GESTURES in every frame.

    Args:
        mesh: (T, 478, 3) in pixels, y down; NaN where there is no face.
        first: The frame relative to which the head's angles are measured. Without a face there, they are NaN.

    Returns:
        (T,) of each gesture, in the units of its definition; NaN where there is no face.
    """
    mesh = mesh.astype(np.float64)

    def distance(one: int, other: int) -> np.ndarray:
        return np.linalg.norm(mesh[:, one] - mesh[:, other], axis=1)

    unit = distance(33, 263)
    lids = [
        sum(distance(*pair) for pair in pairs) / 3 / distance(*corners)
        for pairs, corners in zip(_LIDS, _EYES, strict=True)
    ]
    # From the outer corner inwards: towards the picture's right in the right eye, towards its left in the left one.
    right, left = (_between(mesh, iris, *corners) for iris, corners in zip(_IRISES, _EYES, strict=True))
    brows = [distance(brow, outer) for brow, (outer, _) in zip(_BROWS, _EYES, strict=True)]
    yaw, pitch, roll = angles(mesh, first).T
    return {
        "yaw": yaw,
        "pitch": pitch,
        "roll": roll,
        "mouth": distance(13, 14) / unit,
        "width": distance(61, 291) / unit,
        "eyes": np.mean(lids, axis=0),
        "gaze": (right + 1 - left) / 2,
        "brows": np.mean(brows, axis=0) / unit,
    }


def angles(mesh: np.ndarray, first: int = 0) -> np.ndarray:
    """The head's angles relative to the frame `first`: (T, 478, 3) -> (T, 3) in degrees; NaN where there is no face.

    They are yaw towards the picture's right, pitch downwards, and roll clockwise. The rotation is about x (pitch), then
    y (yaw), then z (roll).
    """
    found = np.full((len(mesh), 3), np.nan)
    seen = _seen(mesh)
    if not seen[first]:
        return found
    points = mesh[:, _RIGID] - mesh[:, _RIGID].mean(axis=1, keepdims=True)
    u, _, vt = np.linalg.svd(points[first].T @ points[seen])
    turns = np.linalg.det(u @ vt) > 0  # otherwise it mirrors, and the axis of least spread is reversed
    u[~turns, :, 2] *= -1
    rotation = (u @ vt).swapaxes(1, 2)
    pitch = np.arctan2(rotation[:, 2, 1], rotation[:, 2, 2])
    yaw = np.arcsin(np.clip(rotation[:, 2, 0], -1, 1))
    roll = np.arctan2(rotation[:, 1, 0], rotation[:, 0, 0])
    found[seen] = np.degrees(np.stack([yaw, pitch, roll], axis=1))
    return found


def _seen(mesh: np.ndarray) -> np.ndarray:
    """(T, 478, 3) -> bool (T,): which frames show a face."""
    return np.isfinite(mesh).all(axis=(1, 2))


def _between(mesh: np.ndarray, point: int, start: int, end: int) -> np.ndarray:
    """The place of a point along the line from `start` (0) to `end` (1): (T,)."""
    way = mesh[:, end] - mesh[:, start]
    return ((mesh[:, point] - mesh[:, start]) * way).sum(axis=1) / np.square(way).sum(axis=1)


def _follows(wanted: np.ndarray, found: np.ndarray, least: float) -> Following:
    seen = np.isfinite(wanted)
    both = seen & np.isfinite(found)
    enough = seen.sum() >= FEWEST
    counts = bool(enough and wanted[seen].std() >= least)
    known = counts and both.sum() >= max(FEWEST, seen.sum() / 2) and wanted[both].std() >= least
    correlation, gain = _line(wanted[both], found[both]) if known else (None, None)
    driving = float(wanted[seen].std()) if enough else None
    return {"driving": driving, "counts": counts, "correlation": correlation, "gain": gain}


def _line(wanted: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    """Pearson's correlation and the slope of `found` against `wanted`."""
    if found.std() < 1e-9:
        return 0.0, 0.0
    correlation = float(np.corrcoef(wanted, found)[0, 1])
    return correlation, correlation * float(found.std() / wanted.std())
