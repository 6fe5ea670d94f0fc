"""What is measured on landmarks and descriptors: AKD, MKR, AED, and their like where there is no truth.

AKD, MKR and AED are here by what their names say, and as the field's public evaluation scripts compute them (`field_`).
Landmarks are (B, N, 2) in pixels, descriptors (B, D); NaN where nothing was found.
"""

import numpy as np


def keypoint_distance(truth: np.ndarray, generated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AKD: the Euclidean distance, in pixels, of landmarks that both have.

    Two (B, N, 2) -> sums (B,) over a frame's landmarks, and of how many (B,).
    """
    distances = np.linalg.norm(truth - generated, axis=2)
    both = np.isfinite(distances)
    return np.where(both, distances, 0).sum(axis=1), both.sum(axis=1)


def missing_keypoints(truth: np.ndarray, generated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """MKR: how many landmarks the truth has and the generated frame has not (B,), of how many of the truth (B,)."""
    there = np.isfinite(truth).all(axis=2)
    lost = there & ~np.isfinite(generated).all(axis=2)
    return lost.sum(axis=1), there.sum(axis=1)


def descriptor_distance(truth: np.ndarray, generated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AED: the Euclidean distance of the descriptors that both have: two (B, D) -> sums (B,), counts (B,)."""
    return _counted(np.linalg.norm(truth - generated, axis=1))


def field_keypoint_distance(truth: np.ndarray, generated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AKD of the field's scripts: of each frame the mean of |x| and |y| differences over the landmarks that both have.

    Two (B, N, 2) -> means (B,), counts (B,): 1 where there is such a landmark.
    """
    differences = np.abs(truth - generated).mean(axis=2)
    both = np.isfinite(differences)
    counts = both.sum(axis=1)
    return np.where(both, differences, 0).sum(axis=1) / np.maximum(counts, 1), (counts > 0).astype(int)


def field_missing_keypoints(truth: np.ndarray, generated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """MKR of the field's scripts: of each frame the share that is missing among its true landmarks.

    Two (B, N, 2) -> shares (B,), counts (B,): 1 where the truth has a landmark.
    """
    lost, there = missing_keypoints(truth, generated)
    return lost / np.maximum(there, 1), (there > 0).astype(int)


def field_descriptor_distance(truth: np.ndarray, generated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AED of the field's scripts, the distance squared: two (B, D) -> sums (B,), counts (B,)."""
    return _counted(np.square(truth - generated).sum(axis=1))


def similarity(source: np.ndarray, generated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosine of descriptors, 1 for the same direction: two (B, D) -> sums (B,), counts (B,)."""
    lengths = np.linalg.norm(source, axis=1) * np.linalg.norm(generated, axis=1)
    return _counted((source * generated).sum(axis=1) / lengths)


def pose_distance(driving: np.ndarray, generated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far one subject's pose is from another's: two (B, N, 2) -> sums (B,), counts (B,).

    Each frame's landmarks are centred on their mean and divided by their root mean square distance from it, so that
    place and size do not count; then the mean Euclidean distance. Frames that lack a landmark do not count.
    """
    return _counted(np.linalg.norm(normalised(driving) - normalised(generated), axis=2).mean(axis=1))


def movement_distance(driving: np.ndarray, generated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `pose_distance`, of what has changed since the first frame in each: the subjects' shapes do not count.

    Two (T, N, 2) of a clip from its first frame on -> sums (T,), counts (T,); all 0 where the first lacks a landmark.
    """
    changes = [normalised(landmarks) - normalised(landmarks[:1]) for landmarks in (driving, generated)]
    return _counted(np.linalg.norm(changes[0] - changes[1], axis=2).mean(axis=1))


def normalised(landmarks: np.ndarray) -> np.ndarray:
    """(B, N, 2) about their mean, in units of their root mean square distance from it."""
    centred = landmarks - landmarks.mean(axis=1, keepdims=True)
    return centred / np.sqrt(np.square(centred).sum(axis=2, keepdims=True).mean(axis=1, keepdims=True))


def jitter(landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The length of landmarks' second difference in time, |p(t+1) - 2 p(t) + p(t-1)|, in pixels.

    (T, N, 2) of frames in a row -> means over landmarks (T - 2,), counts (T - 2,). It holds the detector's own noise.
    """
    return _counted(np.linalg.norm(np.diff(landmarks, n=2, axis=0), axis=2).mean(axis=1))


def _counted(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    there = np.isfinite(values)
    return np.where(there, values, 0), there.astype(int)
