"""How sure gestures by the face mesh are: their noise where nothing moves, and their gain where it is known.

    python benchmarks/mesh_noise.py CLIPS

For each way of looking at a picture: once, twice (as `mtanimate eval --cross` does), by tracking from frame to frame.
Noise: the standard deviation of each gesture over 24 pictures of one face, the clip's first frame, moved by up to six
pixels and five per cent in size, medians over clips; in turn and nod it shows what tracking makes of movement. Mirror:
the gain of a clip's mirror image, every second frame of four seconds, which is -1 for turn, roll and gaze, 1 for the
others; medians over the clips whose face does it.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from machine import describe
from mediapipe.python.solutions import face_mesh
from PIL import Image

from mtanimate.data.clips import Clip, find_clips
from mtanimate.faces.detection import square_frames
from mtanimate.metrics.detectors import FaceMesh, Frames
from mtanimate.metrics.gestures import GESTURES, following, gestures

Look = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("clips", type=Path)
    clips = [frames_of(clip) for clip in find_clips(parser.parse_args().clips)]
    print(describe())
    twice = FaceMesh()
    ways: dict[str, Look] = {
        "once": lambda pictures: looked(pictures, static=True),
        "twice": lambda pictures: twice.landmarks(Frames(pictures, "", range(len(pictures)), generated=False)),
        "tracking": lambda pictures: looked(pictures, static=False),
    }
    print("\n| | " + " | ".join(GESTURES) + " | ms a picture |")
    print("| --- " * (len(GESTURES) + 2) + "|")
    for name, look in ways.items():
        started, count = time.perf_counter(), sum(2 * len(frames) + 24 for frames in clips)
        noise = [{gesture: np.nanstd(v) for gesture, v in gestures(look(moved(frames[0]))).items()} for frames in clips]
        gains = [following(look(frames), look(np.ascontiguousarray(frames[:, :, ::-1]))) for frames in clips]
        spent = 1000 * (time.perf_counter() - started) / count
        still = [f"{np.median([each[gesture] for each in noise]):.4f}" for gesture in GESTURES]
        mirror = [f"{gain_of([each[gesture]['gain'] for each in gains])}" for gesture in GESTURES]
        print(f"| {name}: noise | " + " | ".join(still) + f" | {spent:.1f} |")
        print(f"| {name}: mirror | " + " | ".join(mirror) + " | |", flush=True)


def gain_of(gains: list[float | None]) -> str:
    """The median, and of how many."""
    there = [gain for gain in gains if gain is not None]
    return f"{np.median(there):.2f} ({len(there)})" if there else "-"


def frames_of(clip: Clip) -> np.ndarray:
    """uint8 (T, 256, 256, 3)."""
    batches = clip.open().batches(60, step=2)
    return square_frames(next(batches), 256).permute(0, 2, 3, 1).contiguous().numpy()


def looked(pictures: np.ndarray, *, static: bool) -> np.ndarray:
    """MediaPipe's own ways: each picture by the detector, or from frame to frame. (T, 478, 3), NaN for no face."""
    found = np.full((len(pictures), 478, 3), np.nan)
    with face_mesh.FaceMesh(static_image_mode=static, refine_landmarks=True, min_detection_confidence=0.3) as mesh:
        for points, picture in zip(found, pictures, strict=True):
            faces = mesh.process(picture).multi_face_landmarks
            if faces:
                points[:] = [(256 * point.x, 256 * point.y, 256 * point.z) for point in faces[0].landmark]
    return found


def moved(picture: np.ndarray) -> np.ndarray:
    """24 pictures of the same face at other places, in other sizes."""
    draw, image = np.random.default_rng(1), Image.fromarray(picture)
    pictures = []
    for _ in range(24):
        scale, (x, y) = draw.uniform(0.95, 1.05), draw.uniform(-6, 6, 2)
        middle = 128 * (1 - scale)
        matrix = (scale, 0.0, middle + x, 0.0, scale, middle + y)
        pictures.append(np.array(image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)))
    return np.stack(pictures)


if __name__ == "__main__":
    main()
