"""What finds a subject in pictures: the one interface that every detector has."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np


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
        """(B, points, 2), x and y in pixels, or (B, points, 3) in space; NaN where a landmark is not found."""

    def descriptors(self, frames: Frames, landmarks: np.ndarray) -> np.ndarray:
        """(B, D); NaN where there is nobody. Never called where `identity` is None."""
