"""Faces by dlib: 68 landmarks, and the 128 numbers by which its network tells people apart."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from mtanimate.errors import InputError
from mtanimate.files import sha256
from mtanimate.metrics.detector import Frames
from mtanimate.video.faces import find_faces

_LANDMARKS = "shape_predictor_68_face_landmarks.dat"
_IDENTITY = "dlib_face_recognition_resnet_model_v1.dat"


class Faces:
    """The largest face of each picture, by dlib and the models of the package `face-recognition-models`.

    Raises InputError, naming the extra, where either is missing.
    """

    subject = "faces"
    points = 68
    no_identity = ""

    def __init__(self) -> None:
        folder = _models()
        try:
            import dlib
        except ImportError as error:
            raise _missing("dlib") from error
        self._dlib = dlib
        self._predictor: Any = None
        self._network: Any = None
        self.name = f"dlib {dlib.__version__}, largest face of its HOG detector, {_model(folder / _LANDMARKS)}"
        self.identity: str | None = f"dlib {dlib.__version__}, {_model(folder / _IDENTITY)}"

    def landmarks(self, frames: Frames) -> np.ndarray:
        if self._predictor is None:
            self._predictor = self._dlib.shape_predictor(str(_models() / _LANDMARKS))
        return np.stack([self._in_picture(picture) for picture in frames.pictures])

    def _in_picture(self, picture: np.ndarray) -> np.ndarray:
        boxes = find_faces(picture)
        if not boxes:
            return np.full((self.points, 2), np.nan)
        box = boxes[0]
        corners = (round(box.left), round(box.top), round(box.right) - 1, round(box.bottom) - 1)
        shape = self._predictor(np.ascontiguousarray(picture), self._dlib.rectangle(*corners))
        return np.array([(point.x, point.y) for point in shape.parts()], np.float64)

    def descriptors(self, frames: Frames, landmarks: np.ndarray) -> np.ndarray:
        if self._network is None:
            self._network = self._dlib.face_recognition_model_v1(str(_models() / _IDENTITY))
        return np.stack([self._describe(*pair) for pair in zip(frames.pictures, landmarks, strict=True)])

    def _describe(self, picture: np.ndarray, points: np.ndarray) -> np.ndarray:
        if not np.isfinite(points).all():
            return np.full(128, np.nan)
        parts = self._dlib.points()
        for x, y in points.round().astype(int).tolist():
            parts.append(self._dlib.point(x, y))
        # The box is not used: the landmarks say how the face is turned and cut out.
        shape = self._dlib.full_object_detection(self._dlib.rectangle(0, 0, 1, 1), parts)
        return np.array(self._network.compute_face_descriptor(np.ascontiguousarray(picture), shape))


def _models() -> Path:
    # Not imported: the package itself needs a module that setuptools no longer has.
    found = importlib.util.find_spec("face_recognition_models")
    if found is None or found.origin is None:
        raise _missing("the package face-recognition-models")
    return Path(found.origin).parent / "models"


def _missing(what: str) -> InputError:
    return InputError(f"landmarks and identities of faces need {what}: pip install 'mtanimate[eval]'")


def _model(file: Path) -> str:
    return f"{file.name} (sha256 {sha256(file)[:8]})"
