"""Facial landmarks in training frames, by MediaPipe's face mesh (Kartynnik et al., 2019)."""

import numpy as np
import torch
from torch import Tensor

from mtanimate.mediapipe_models import model, starting
from mtanimate.models.losses.landmarks import CONTOURS, POINTS

_PURPOSE = "finding landmarks for loss.landmarks and loss.close_up"


class FaceLandmarks:
    """Of the most certain face of each picture; each picture stands alone. Raises InputError without MediaPipe."""

    @staticmethod
    def check() -> None:
        """Raises InputError where MediaPipe or its model is not installed; starts nothing."""
        model("face_landmark/face_landmark.tflite", _PURPOSE)

    def __init__(self) -> None:
        self.check()
        with starting(_PURPOSE):
            from mediapipe.python.solutions import face_mesh, face_mesh_connections

            self._mesh = face_mesh.FaceMesh(static_image_mode=True, min_detection_confidence=0.3)
            self._mesh.process(np.zeros((128, 128, 3), np.uint8))
        lines = [getattr(face_mesh_connections, f"FACEMESH_{contour}") for contour in CONTOURS]
        self._points = [point for contour in lines for point in sorted({end for line in contour for end in line})]

    def __call__(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> (N, 152, 2), (x, y) in [-1, 1]; not a number where there is no face."""
        frames = (pictures * 255).round().byte().permute(0, 2, 3, 1).numpy()
        return torch.from_numpy(np.stack([self._in_picture(np.ascontiguousarray(frame)) for frame in frames]))

    def _in_picture(self, frame: np.ndarray) -> np.ndarray:
        faces = self._mesh.process(frame).multi_face_landmarks
        if not faces:
            return np.full((POINTS, 2), np.nan, np.float32)
        points = [faces[0].landmark[index] for index in self._points]
        size = np.array(frame.shape[1::-1])
        pixels = np.array([(point.x, point.y) for point in points]) * size - 0.5
        return (2 * pixels / (size - 1) - 1).astype(np.float32)
