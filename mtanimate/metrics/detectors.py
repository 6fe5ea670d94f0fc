"""The detectors by their names."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mtanimate.errors import InputError
from mtanimate.metrics.detector import Detector


@dataclass(frozen=True)
class Choice:
    """A detector by its name, and folders of files that take the place of its landmarks and of its descriptors."""

    detector: str
    openpose: Path | None = None
    features: Path | None = None

    @property
    def stored(self) -> bool:
        """Whether anything is read from files, which may change, and not found in the pictures."""
        return self.openpose is not None or self.features is not None


@dataclass(frozen=True)
class MeshChoice(Choice):
    """The face mesh, which gestures are read from beside what --detector names."""

    detector: str = "mesh"


def _faces() -> Detector:
    from mtanimate.metrics.faces import Faces

    return Faces()


def _face_alignment() -> Detector:
    from mtanimate.metrics.face_alignment import FaceAlignment

    return FaceAlignment()


def _bodies() -> Detector:
    from mtanimate.metrics.bodies import Bodies

    return Bodies()


def _mesh() -> Detector:
    from mtanimate.metrics.mesh import FaceMesh

    return FaceMesh()


DETECTORS: dict[str, Callable[[], Detector]] = {
    "faces": _faces,
    "face-alignment": _face_alignment,
    "bodies": _bodies,
}


def open_detector(choice: Choice) -> Detector:
    """Raises InputError for an unknown name, and where the detector's package is missing, naming the extra."""
    from mtanimate.metrics.stored import OpenPose, StoredFeatures

    if isinstance(choice, MeshChoice):
        return _mesh()
    if choice.detector not in DETECTORS and not choice.openpose:
        raise InputError(f"--detector {choice.detector}: not one of {', '.join(DETECTORS)}, none")
    detector: Detector = OpenPose(choice.openpose) if choice.openpose else DETECTORS[choice.detector]()
    return StoredFeatures(choice.features, detector) if choice.features else detector
