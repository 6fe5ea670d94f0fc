"""Faces by MediaPipe's refined mesh (Grishchenko et al., 2020): 478 points in space, of lips, lids, irises."""

import numpy as np

from mtanimate.files import sha256
from mtanimate.mediapipe_models import model, starting
from mtanimate.metrics.detector import Frames

_PURPOSE = "measuring gestures by the face mesh"


class FaceMesh:
    """The most certain face of each picture. Each picture stands alone, and is looked at twice.

    The detector's box shivers, and with it the mesh that is found in it; the mesh itself frames the face well, so that
    a second look, framed by the first one's mesh, has two thirds of the noise. Tracking, which frames each picture by
    the one before, would save the first look; but where the head moves it is late, with three times the noise in its
    angles, and what is found in a picture would depend on others. `benchmarks/mesh_noise.py` measures this.

    Raises InputError, naming the extra, where MediaPipe or its model is missing.
    """

    subject = "faces"
    points = 478
    identity: str | None = None
    no_identity = "the face mesh tells nobody apart"

    def __init__(self) -> None:
        file = model("face_landmark/face_landmark_with_attention.tflite", _PURPOSE)
        with starting(_PURPOSE):
            import mediapipe
            from mediapipe.python.solutions import face_mesh

            self._mesh = face_mesh.FaceMesh(
                refine_landmarks=True, max_num_faces=1, min_detection_confidence=0.3, min_tracking_confidence=0.3
            )
            self._in_picture(np.zeros((256, 256, 3), np.uint8))
        self.name = f"mediapipe {mediapipe.__version__}, {file.name} (sha256 {sha256(file)[:8]}), looked at twice"

    def landmarks(self, frames: Frames) -> np.ndarray:
        """float32 (B, 478, 3) in pixels, x to the right, y down, z away from the camera; NaN where there is no face."""
        return np.stack([self._in_picture(np.ascontiguousarray(picture)) for picture in frames.pictures])

    def descriptors(self, frames: Frames, landmarks: np.ndarray) -> np.ndarray:
        raise NotImplementedError(self.no_identity)

    def _in_picture(self, picture: np.ndarray) -> np.ndarray:
        self._mesh.process(picture)
        found = self._mesh.process(picture).multi_face_landmarks
        self._mesh.process(np.zeros_like(picture))  # nobody: the next picture begins with the detector
        if not found:
            return np.full((self.points, 3), np.nan, np.float32)
        height, width = picture.shape[:2]
        places = np.array([(point.x, point.y, point.z) for point in found[0].landmark])
        return (places * (width, height, width)).astype(np.float32)
