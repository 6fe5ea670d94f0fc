"""What a face does, from its 68 landmarks (iBUG 300-W's, in their order): how its head turns, how wide its mouth is."""

import numpy as np

POINTS = 68
_EYES = (slice(36, 42), slice(42, 48))  # left and right in the picture
_NOSE, _CORNERS = 30, (48, 54)
_LIPS = ((61, 67), (62, 66), (63, 65))  # inner, upper and lower
# Standard deviation below which a clip's own movement drowns in what dlib makes of a face that stays still.
_STILL = 0.02
FEWEST = 10  # frames that a correlation needs


def gestures(landmarks: np.ndarray) -> dict[str, np.ndarray]:
    """(T, 68, 2) in pixels, y down -> (T,) of each, whatever the face's place, size and roll; NaN where none is found.

    yaw: the nose's tip beside the middle of the eyes, towards the picture's right. pitch: how far it is below the eyes.
    mouth: how wide the lips are open. All in units of the root of the eyes' distance times that from eyes to mouth,
    which a turn of the head changes little.
    """
    left, right = (landmarks[:, eye].mean(axis=1) for eye in _EYES)
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


def following(driving: np.ndarray, generated: np.ndarray) -> dict[str, tuple[float, int]]:
    """Pearson's correlation over a clip's frames of what the driving face does and what the generated one does.

    Two (T, 68, 2) -> for each gesture the correlation and 1; 0 and 0 where the driving face hardly does it, or too few
    frames show both faces. A generated face that does not move at all has a correlation of 0.
    """
    wanted, found = gestures(driving), gestures(generated)
    return {name: _correlation(wanted[name], found[name]) for name in wanted}


def _correlation(wanted: np.ndarray, found: np.ndarray) -> tuple[float, int]:
    both = np.isfinite(wanted) & np.isfinite(found)
    wanted, found = wanted[both], found[both]
    if len(wanted) < FEWEST or wanted.std() < _STILL:
        return 0.0, 0
    if found.std() < 1e-9:
        return 0.0, 1
    return float(np.corrcoef(wanted, found)[0, 1]), 1
