"""What finds a subject in pictures: the one interface, and the names of those that have it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from mtanimate.errors import InputError


@dataclass(frozen=True)
class Frames:
    """Pictures of one clip, and where they stand in it.

    pictures: uint8 RGB (B, H, W, 3). clip: its name below the data set, without extension. numbers: of the frames
    in the clip. generated: whether the network made them; else they are the truth.
    """

    pictures: np.ndarray
    clip: str
    numbers: range
    generated: bool

    def __getitem__(self, part: slice) -> "Frames":
        return Frames(self.pictures[part], self.clip, self.numbers[part], self.generated)


class Detector(Protocol):
    """What finds a subject's landmarks in a picture and, where it can, describes who it is.

    name: with version and model files. subject: `faces` or `bodies`. points: how many landmarks.
    identity: the name of the network behind descriptors, or None. no_identity: why there is none.
    """

    name: str
    subject: str
    points: int
    identity: str | None
    no_identity: str

    def landmarks(self, frames: Frames) -> np.ndarray:
        """(B, points, 2), x and y in pixels; NaN where a landmark is not found."""

    def descriptors(self, frames: Frames, landmarks: np.ndarray) -> np.ndarray:
        """(B, D); NaN where there is nobody. Never called where `identity` is None."""


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


def _faces() -> Detector:
    from mtanimate.metrics.faces import Faces

    return Faces()


def _face_alignment() -> Detector:
    from mtanimate.metrics.face_alignment import FaceAlignment

    return FaceAlignment()


def _bodies() -> Detector:
    from mtanimate.metrics.bodies import Bodies

    return Bodies()


DETECTORS: dict[str, Callable[[], Detector]] = {
    "faces": _faces,
    "face-alignment": _face_alignment,
    "bodies": _bodies,
}


def open_detector(choice: Choice) -> Detector:
    """Raises InputError for an unknown name, and where the detector's package is missing, naming the extra."""
    from mtanimate.metrics.stored import OpenPose, StoredFeatures

    if choice.detector not in DETECTORS and not choice.openpose:
        raise InputError(f"--detector {choice.detector}: not one of {', '.join(DETECTORS)}, none")
    detector: Detector = OpenPose(choice.openpose) if choice.openpose else DETECTORS[choice.detector]()
    return StoredFeatures(choice.features, detector) if choice.features else detector
