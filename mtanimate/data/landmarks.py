"""Facial landmarks in training frames, by MediaPipe's face mesh (Kartynnik et al., 2019)."""

import numpy as np
import torch
from torch import Tensor

from mtanimate.face_mesh import VERTICES
from mtanimate.mediapipe_models import model, starting

_PURPOSE = "finding landmarks for loss.landmarks, loss.close_up and data.stills"


class FaceLandmarks:
    """Of the most certain face of each picture; each picture stands alone. Raises InputError without MediaPipe."""

    @staticmethod
    def check() -> None:
        """Raises InputError where MediaPipe or its model is not installed; starts nothing."""
        model("face_landmark/face_landmark_with_attention.tflite", _PURPOSE)

    def __init__(self) -> None:
        self.check()
        with starting(_PURPOSE):
            from mediapipe.python.solutions import face_mesh

            self._mesh = face_mesh.FaceMesh(static_image_mode=True, refine_landmarks=True, min_detection_confidence=0.3)
            self._mesh.process(np.zeros((128, 128, 3), np.uint8))

    def __call__(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> (N, 478, 2), (x, y) in [-1, 1]; not a number where there is no face."""
        frames = (pictures * 255).round().byte().permute(0, 2, 3, 1).numpy()
        return torch.from_numpy(np.ascontiguousarray(self.meshes(frames)[:, :, :2]))

    def meshes(self, frames: np.ndarray) -> np.ndarray:
        """As `mesh` of each of uint8 (N, H, W, 3): (N, 478, 3) float32; not a number where there is no face."""
        found = np.full((len(frames), VERTICES, 3), np.nan, np.float32)
        for row, frame in zip(found, frames, strict=True):
            mesh = self.mesh(np.ascontiguousarray(frame))
            if mesh is not None:
                row[...] = mesh
        return found

    def mesh(self, frame: np.ndarray) -> np.ndarray | None:
        """All points of the face in uint8 (H, W, 3), W = H: (478, 3), x and y in [-1, 1], z to the same scale,
        smaller nearer to the camera; None where there is no face."""
        faces = self._mesh.process(frame).multi_face_landmarks
        if not faces:
            return None
        places = np.array([(point.x, point.y, point.z) for point in faces[0].landmark])
        size = frame.shape[0]
        return (2 * size * places - np.array([size, size, 0])) / (size - 1)
