"""Faces in a picture, found by dlib's frontal face detector (HOG), which needs no model file."""

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from mtanimate.errors import InputError

# The detector sees faces of about 80 pixels and more: in pictures brought to such longer sides those of a tenth of
# a large picture's, of a third of a small one's.
_SMALLEST, LARGEST = 256, 800

# A detector keeps its working memory in itself, and dlib lets other threads run meanwhile: one a thread.
_of_this_thread = threading.local()


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels from the picture's top left corner; right and bottom lie just outside of it."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top

    @property
    def centre(self) -> tuple[float, float]:
        """x, y."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    @property
    def area(self) -> float:
        return max(0, self.width) * max(0, self.height)

    def moved(self, x: float, y: float) -> "Box":
        """As far to the right and down."""
        return Box(self.left + x, self.top + y, self.right + x, self.bottom + y)

    def common(self, other: "Box") -> "Box":
        """What lies in both; its area is 0 where nothing does."""
        return Box(
            max(self.left, other.left),
            max(self.top, other.top),
            min(self.right, other.right),
            min(self.bottom, other.bottom),
        )

    def likeness(self, other: "Box") -> float:
        """Intersection over union: 1 for the same box, 0 for boxes apart."""
        both = self.common(other).area
        return both / (self.area + other.area - both) if both else 0.0


def check_installed() -> None:
    """Raises InputError, naming the extra to install, where dlib is missing."""
    _detector()


def find_faces(frame: np.ndarray, largest: int = LARGEST) -> list[Box]:
    """The upright faces in uint8 RGB (H, W, 3), the largest first. Any thread may call it.

    A box is about as wide and as high as the face is from brow to chin, and may reach beyond the picture.
    Faces smaller than a tenth of the picture's longer side are not found, nor those below 80 pixels in a picture of
    800 or less, below a third of the side in one of 256 or less.
    largest: pixels, 256 or more: a larger picture is searched at that longer side. More finds smaller faces, slower.
    Raises InputError where dlib is missing.
    """
    detect = _detector()
    picture = Image.fromarray(frame).convert("L")
    longer = max(picture.size)
    scale = longer / min(max(longer, _SMALLEST), largest)
    if scale != 1:
        width, height = (max(1, round(side / scale)) for side in picture.size)
        method = Image.Resampling.BOX if scale > 1 else Image.Resampling.BICUBIC
        picture = picture.resize((width, height), method)
    found = detect(np.asarray(picture))
    boxes = [Box(f.left() * scale, f.top() * scale, (f.right() + 1) * scale, (f.bottom() + 1) * scale) for f in found]
    return sorted(boxes, key=lambda box: box.area, reverse=True)


def _detector() -> Any:
    if not hasattr(_of_this_thread, "detector"):
        try:
            import dlib
        except ImportError as error:
            raise InputError("finding faces needs dlib: pip install 'mtanimate[faces]'") from error
        _of_this_thread.detector = dlib.get_frontal_face_detector()
    return _of_this_thread.detector
