"""Whether heads follow, by a second detector: between people, the turn and the nod of the head in three dimensions.

    python benchmarks/head_poses.py CLIPS [--checkpoint default] [--pairs 30] [--every 4]

`mtanimate eval --cross` reads nods off 68 points in the plane, where they hardly show. Here a head's angles come from
rigid points of MediaPipe's face mesh, by the rotation that brings those of the clip's first frame nearest to them
(Kabsch). Pearson's correlation of the driving and the generated head, of the same random pairs that `--cross` takes;
beside it, by how much the driving head moves, and whether the two detectors agree about the driving clip itself:
where they do not, no result could follow both.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from machine import describe
from mediapipe.python.solutions import face_mesh

from mtanimate.animation.cast import Cast
from mtanimate.data.clips import Clip, find_clips
from mtanimate.evaluation.cross import transfers
from mtanimate.metrics.detector import Frames
from mtanimate.metrics.faces import Faces
from mtanimate.metrics.gestures import gestures
from mtanimate.models.motion import movement_scale, transfer_relative
from mtanimate.models.performer import Performer
from mtanimate.video.crop import square_frames, to_frames

# Corners of the eyes, ridge and tip of the nose, forehead, temples: what does not move when a face speaks.
RIGID = [33, 133, 362, 263, 168, 6, 197, 195, 5, 4, 1, 10, 151, 9, 8, 127, 356, 234, 454, 109, 338, 67, 297]
STILL = 2.0  # degrees of standard deviation, below which a head hardly does it


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--checkpoint", default="default")
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--every", type=int, default=4)
    options = parser.parse_args()
    print(describe())
    cast = Cast(options.checkpoint)
    performer, faces = Performer(cast.animator, cast.precision, print), Faces()
    clips = {clip.path.stem: clip for clip in find_clips(options.clips)}
    print("\n| pair | nod, degrees | turn, degrees | nod follows | turn follows | detectors agree on the nod |")
    print("| --- " * 6 + "|")
    rows = []
    for transfer in transfers(str(options.pairs), clips, 0):
        assert isinstance(transfer.source, Clip)
        source = frames_of(transfer.source, 1, cast.resolution)[:1]
        driving = frames_of(transfer.driving, options.every, cast.resolution)
        generated = drive(performer, source, driving)
        pictures = to_frames(driving / 255)
        wanted, found = angles(pictures), angles(generated)
        planar = gestures(faces.landmarks(Frames(pictures, transfer.name, range(len(pictures)), generated=False)))[
            "pitch"
        ]
        moves = np.nanstd(wanted, axis=0)
        row = [*moves, *(correlation(wanted[:, axis], found[:, axis]) for axis in (0, 1))]
        row.append(abs(correlation(wanted[:, 0], planar)))
        rows.append(row)
        print(f"| {transfer.name} | " + " | ".join(f"{value:.2f}" for value in row) + " |", flush=True)
    table = np.array(rows)
    for name, axis in (("nod", 0), ("turn", 1)):
        enough = table[:, axis] >= STILL
        every, those = (np.nanmedian(column[:, 2 + axis]) for column in (table, table[enough]))
        print(f"\n{name}: median {every:.3f}; of the {enough.sum()} that are {STILL:g} degrees or more, {those:.3f}")


def frames_of(clip: Clip, step: int, resolution: int) -> torch.Tensor:
    """uint8 (T, 3, R, R)."""
    return torch.cat([square_frames(batch, resolution) for batch in clip.open().batches(8, step=step)])


def drive(performer: Performer, source: torch.Tensor, driving: torch.Tensor) -> np.ndarray:
    """As `mtanimate eval --cross` does, by movement since the first frame: uint8 (T, R, R, 3)."""
    encoded = performer.encode(source)
    results, reference = [], None
    for part in driving.split(performer.batch_size):
        motion = performer.estimate(part)
        reference = reference or motion[:1]
        scale = movement_scale(encoded.motion, reference)
        results.append(to_frames(performer.drive(encoded, transfer_relative(encoded.motion, motion, reference, scale))))
    return np.concatenate(results)


def angles(pictures: np.ndarray) -> np.ndarray:
    """uint8 (T, R, R, 3) -> (T, 2): nod and turn in degrees since the first face; not a number where there is none."""
    found = np.full((len(pictures), 2), np.nan)
    first: np.ndarray | None = None
    with face_mesh.FaceMesh(static_image_mode=True, min_detection_confidence=0.3) as mesh:
        for angle, picture in zip(found, pictures, strict=True):
            seen = mesh.process(picture).multi_face_landmarks
            if seen:
                points = np.array([(point.x, point.y, point.z) for point in seen[0].landmark])[RIGID]
                points -= points.mean(axis=0)
                first = points if first is None else first
                angle[:] = nod_and_turn(first, points)
    return found


def nod_and_turn(first: np.ndarray, now: np.ndarray) -> tuple[float, float]:
    """Of the rotation that brings centred points (N, 3) nearest to others: about the axes x and y, in degrees."""
    u, _, vt = np.linalg.svd(first.T @ now)
    rotation = vt.T @ np.diag([1, 1, np.sign(np.linalg.det(vt.T @ u.T))]) @ u.T
    nod = np.arctan2(rotation[2, 1], rotation[2, 2])
    turn = np.arcsin(-np.clip(rotation[2, 0], -1, 1))
    return float(np.degrees(nod)), float(np.degrees(turn))


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    both = np.isfinite(one) & np.isfinite(other)
    return float(np.corrcoef(one[both], other[both])[0, 1]) if both.sum() > 9 else float("nan")


if __name__ == "__main__":
    main()
