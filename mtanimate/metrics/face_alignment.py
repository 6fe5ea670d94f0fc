"""68 landmarks of faces by the package `face-alignment`, as the published figures on VoxCeleb were measured."""

import importlib.metadata

import numpy as np

from mtanimate.errors import InputError
from mtanimate.metrics.faces import Faces


class FaceAlignment(Faces):
    """Its landmarks, of the largest face; descriptors by dlib as in `Faces`.

    It fetches its networks (some 150 MB) when it is first used. Raises InputError, naming the extra, where it is
    missing, or its networks cannot be had.
    """

    def __init__(self) -> None:
        super().__init__()
        try:
            import face_alignment
        except ImportError as error:
            raise InputError(
                "--detector face-alignment needs that package: pip install 'mtanimate[face-alignment]'"
            ) from error
        try:
            self._aligner = face_alignment.FaceAlignment(face_alignment.LandmarksType.TWO_D, device="cpu")
        except OSError as error:
            raise InputError(f"face-alignment could not fetch its networks ({error}): connect this machine") from error
        self.name = f"face-alignment {importlib.metadata.version('face-alignment')}, largest face of its S3FD detector"

    def _in_picture(self, picture: np.ndarray) -> np.ndarray:
        found = self._aligner.get_landmarks_from_image(picture) or []
        if not found:
            return np.full((self.points, 2), np.nan)
        return max(found, key=lambda points: float(np.prod(np.ptp(points, axis=0)))).astype(np.float64)
