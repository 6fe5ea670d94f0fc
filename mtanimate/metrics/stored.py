"""Landmarks and features that another program found in the frames, read from files.

`mtanimate eval --frames FOLDER` writes FOLDER/truth/CLIP/ and FOLDER/generated/CLIP/, a PNG a frame, for such
programs. What they found is expected in the same two folders, by the clip's name.
"""

from pathlib import Path

import numpy as np

from mtanimate.errors import InputError
from mtanimate.metrics.detector import Detector, Frames
from mtanimate.npz import read_array
from mtanimate.reading import open_regular, read_json


class OpenPose:
    """OpenPose's own JSON, a file a frame: FOLDER/truth/CLIP/*_keypoints.json in the order of their names.

    Of several people the one whose keypoints' confidences have the largest sum, as the published figures on
    TaiChiHD and TED-talks need; a keypoint of confidence 0 is not found.
    """

    subject = "bodies"
    identity: str | None = None
    no_identity = "OpenPose finds keypoints and knows nobody; features of a re-identification network: --features"

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise InputError(f"--openpose {folder}: no such folder")
        self.folder = folder
        files = sorted(folder.glob("*/**/*_keypoints.json"))
        if not files:
            raise InputError(f"--openpose {folder}: no *_keypoints.json below its folders truth and generated")
        self.points = _points_in(files)
        self.name = f"OpenPose's JSON files, {self.points} keypoints"

    def landmarks(self, frames: Frames) -> np.ndarray:
        files = sorted(_side(self.folder, frames).glob("*_keypoints.json"))
        last = max(frames.numbers)
        if len(files) <= last:
            folder = _side(self.folder, frames)
            raise InputError(f"{folder} has {len(files)} *_keypoints.json: no file for frame {last}")
        return np.stack([self._read(files[number]) for number in frames.numbers])

    def descriptors(self, frames: Frames, landmarks: np.ndarray) -> np.ndarray:
        raise NotImplementedError(self.no_identity)

    def _read(self, file: Path) -> np.ndarray:
        people = [person.reshape(-1, 3) for person in _people(file)]
        if not people:
            return np.full((self.points, 2), np.nan)
        surest = max(people, key=lambda person: float(person[:, 2].sum()))
        if len(surest) != self.points:
            raise InputError(f"{file} has {len(surest)} keypoints, others have {self.points}")
        return np.where(surest[:, 2:] > 0, surest[:, :2], np.nan)


class StoredFeatures:
    """Features of any identity network from FOLDER/truth/CLIP.npy and FOLDER/generated/CLIP.npy: (T, D), a row a
    frame, NaN where it saw nobody. Landmarks come from `detector`."""

    no_identity = ""

    def __init__(self, folder: Path, detector: Detector) -> None:
        if not folder.is_dir():
            raise InputError(f"--features {folder}: no such folder")
        first = min(folder.glob("truth/**/*.npy"), default=None)
        if first is None:
            raise InputError(f"--features {folder}: no .npy below its folder truth")
        self.folder = folder
        self._width = _features(first).shape[1]
        self.name, self.subject, self.points = detector.name, detector.subject, detector.points
        self.identity: str | None = "features from files"
        self.landmarks = detector.landmarks

    def descriptors(self, frames: Frames, landmarks: np.ndarray) -> np.ndarray:
        file = _side(self.folder, frames).with_name(f"{Path(frames.clip).name}.npy")
        features = _features(file)
        if len(features) <= max(frames.numbers):
            raise InputError(f"{file} has {len(features)} rows: none for frame {max(frames.numbers)}")
        if features.shape[1] != self._width:
            raise InputError(f"{file} has {features.shape[1]} numbers a row, others have {self._width}")
        return features[list(frames.numbers)].astype(np.float64)


def _side(folder: Path, frames: Frames) -> Path:
    return folder / ("generated" if frames.generated else "truth") / frames.clip


def _points_in(files: list[Path]) -> int:
    """Of the first person in these files; 25 where all are empty: OpenPose's own default."""
    for file in files:
        people = _people(file)
        if people:
            return people[0].size // 3
    return 25


def _people(file: Path) -> list[np.ndarray]:
    try:
        people = read_json(file)["people"]
        return [np.array(person["pose_keypoints_2d"], np.float64).reshape(-1, 3).ravel() for person in people]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is not OpenPose's JSON ({type(error).__name__}: {error})") from error


def _features(file: Path) -> np.ndarray:
    """(T, D) of numbers."""
    try:
        with open_regular(file) as opened:
            features = read_array(opened, file.stat().st_size)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{file} cannot be read as features: {error}") from error
    if features.ndim != 2 or features.dtype.kind not in "fiu":
        raise InputError(f"{file} holds {features.dtype} {features.shape}: expected a row of numbers a frame")
    return features
