"""One face followed through the looked-at frames of a driving video."""

from itertools import cycle

import numpy as np

from mtanimate.video.face_framing import LOST_SECONDS, SAME_FACE, SAMPLES_A_SECOND
from mtanimate.video.faces import Box, find_faces
from mtanimate.video.square import square_around

# Around the face's last place, as large as these times the face, it is looked for at first: that costs a tenth of
# the whole picture. The detector knows sizes in steps of a fifth only; three views a little apart average that out.
_AROUND = (2.0, 2.13, 2.26)
_AROUND_PIXELS = 256


class FaceFollower:
    """The largest face at first, then the one most like it, in about `SAMPLES_A_SECOND` frames a second, in order.

    Away for `LOST_SECONDS`, it is given up, and the largest of the picture taken again.
    """

    def __init__(self) -> None:
        self._last: Box | None = None
        self._missed = 0
        self._around = cycle(_AROUND)

    def see(self, frame: np.ndarray) -> Box | None:
        """Where the face is in the next looked-at frame, uint8 RGB (H, W, 3). Raises InputError without dlib."""
        if self._missed > LOST_SECONDS * SAMPLES_A_SECOND:
            self._last = None
        face = self._near(frame) or self._anywhere(frame)
        if face:
            self._last, self._missed = face, 0
        else:
            self._missed += 1
        return face

    def _near(self, frame: np.ndarray) -> Box | None:
        if not self._last:
            return None
        last = self._last
        size = next(self._around) * max(last.width, last.height)
        square = square_around(*last.centre, size, frame.shape[1], frame.shape[0])
        found = find_faces(square.cut(frame), largest=_AROUND_PIXELS)
        return _most_like(last, [box.moved(square.x, square.y) for box in found])

    def _anywhere(self, frame: np.ndarray) -> Box | None:
        if self._last:
            return _most_like(self._last, find_faces(frame))
        if self._missed > SAMPLES_A_SECOND and self._missed % SAMPLES_A_SECOND:
            return None  # without a face for long, the whole picture is searched once a second: that is what costs
        faces = find_faces(frame)
        return faces[0] if faces else None


def _most_like(last: Box, boxes: list[Box]) -> Box | None:
    """The box most like the last one, None where none is the same face."""
    best = max(boxes, key=last.likeness, default=None)
    return best if best and last.likeness(best) >= SAME_FACE else None
