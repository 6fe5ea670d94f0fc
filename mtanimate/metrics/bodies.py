"""Bodies by MediaPipe's BlazePose: the 17 keypoints of COCO, one person a picture."""

import numpy as np

from mtanimate.files import sha256
from mtanimate.mediapipe_models import model, starting
from mtanimate.metrics.detector import Frames

_PURPOSE = "finding bodies"
# Nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles, left first, among BlazePose's 33.
_COCO = [0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28]
# The network's own estimate that a keypoint is in the picture and not hidden; even odds, as MediaPipe draws it.
_VISIBLE = 0.5


class Bodies:
    """The most certain body of each picture, by the models inside MediaPipe's wheel. Each picture stands alone.

    Raises InputError, naming the extra, where the package or its models are missing.
    """

    subject = "bodies"
    points = len(_COCO)
    identity: str | None = None
    no_identity = "no network that tells bodies apart installs with its weights: give its features with --features"

    def __init__(self) -> None:
        file = model("pose_landmark/pose_landmark_full.tflite", _PURPOSE)
        with starting(_PURPOSE):
            import mediapipe
            from mediapipe.python.solutions.pose import Pose

            self._pose = Pose(static_image_mode=True, model_complexity=1)
            self._in_picture(np.zeros((256, 256, 3), np.uint8))
        self.name = f"mediapipe {mediapipe.__version__}, {file.name} (sha256 {sha256(file)[:8]})"

    def landmarks(self, frames: Frames) -> np.ndarray:
        return np.stack([self._in_picture(picture) for picture in frames.pictures])

    def descriptors(self, frames: Frames, landmarks: np.ndarray) -> np.ndarray:
        raise NotImplementedError(self.no_identity)

    def _in_picture(self, picture: np.ndarray) -> np.ndarray:
        found = self._pose.process(np.ascontiguousarray(picture)).pose_landmarks
        if found is None:
            return np.full((self.points, 2), np.nan)
        points = [found.landmark[index] for index in _COCO]
        places = np.array([(point.x, point.y, point.visibility) for point in points], np.float64)
        size = np.array(picture.shape[1::-1])
        pixels = places[:, :2] * size - 0.5
        seen = (places[:, 2] >= _VISIBLE) & (pixels >= -0.5).all(axis=1) & (pixels <= size - 0.5).all(axis=1)
        return np.where(seen[:, None], pixels, np.nan)
