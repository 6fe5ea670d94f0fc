"""Squares of a picture: what is cut out of it, never padded and never stretched."""

import threading
from dataclasses import dataclass
from fractions import Fraction
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from mtanimate.errors import InputError


@dataclass(frozen=True)
class Square:
    """A square of a picture, in pixels: its left and top edges and its side."""

    x: int
    y: int
    side: int

    def cut(self, frames: np.ndarray) -> np.ndarray:
        """(..., H, W, 3) -> (..., side, side, 3), a view."""
        return frames[..., self.y : self.y + self.side, self.x : self.x + self.side, :]


def centred_square(width: int, height: int) -> Square:
    """The largest square in the middle of a picture: nothing is ever stretched."""
    side = min(width, height)
    return Square((width - side) // 2, (height - side) // 2, side)


def square_around(x: float, y: float, side: float, width: int, height: int) -> Square:
    """The square around a point, moved into the picture, and smaller only where the picture is too small for it.

    x, y: the wanted centre, right and down from the picture's top left corner; side, width, height: pixels.
    """
    whole = max(1, min(round(side), width, height))
    left = min(max(round(x - whole / 2), 0), width - whole)
    top = min(max(round(y - whole / 2), 0), height - whole)
    return Square(left, top, whole)


def resize_frames(frames: np.ndarray, resolution: int) -> Tensor:
    """Square uint8 (B, S, S, 3) -> uint8 (B, 3, resolution, resolution), anti-aliased where it shrinks."""
    images = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
    if images.shape[2:] == (resolution, resolution):
        return images
    size = (resolution, resolution)
    resized = F.interpolate(images.float(), size, mode="bicubic", align_corners=False, antialias=True)
    return resized.round().clamp(0, 255).to(torch.uint8)


def resize_part(frame: np.ndarray, left: float, top: float, side: float, resolution: int) -> Tensor:
    """A square of uint8 (H, W, 3) that begins between pixels -> uint8 (3, resolution, resolution), as `resize_frames`.

    left, top, side: in pixels; the square lies within the frame.
    """
    box = (left, top, min(left + side, frame.shape[1]), min(top + side, frame.shape[0]))
    picture = Image.fromarray(frame).resize((resolution, resolution), Image.Resampling.BICUBIC, box)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def square_frames(frames: np.ndarray, resolution: int) -> Tensor:
    """uint8 (B, H, W, 3) of any shape -> uint8 (B, 3, resolution, resolution): the centred square, resized."""
    return resize_frames(centred_square(frames.shape[2], frames.shape[1]).cut(frames), resolution)


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


SAMPLES_A_SECOND = 5
LOST_SECONDS = 0.5  # a face away for longer is no more waited for
SAME_FACE = 0.25  # the least likeness of a face's boxes in two samples

# The framing of the field's talking-head crops.
FACE_SHARE = 0.5  # of the square's side
FACE_DOWN = 0.53  # of the square's side: where the face's centre is, from the top
MARGIN = 0.25  # of the face, around everywhere it goes


def sample_step(fps: Fraction) -> int:
    """Every how many frames faces are looked for."""
    return max(1, round(fps / SAMPLES_A_SECOND))


def face_square(boxes: list[Box], width: int, height: int) -> Square:
    """The square for a face that was at these places: half of it face, and room for everywhere it went.

    boxes: one or more. width, height: of the picture, in pixels; the square lies within it.
    """
    face = Box(*(median(getattr(box, side) for box in boxes) for side in ("left", "top", "right", "bottom")))
    size = max(face.width, face.height)
    margin = MARGIN * size
    left, right = min(box.left for box in boxes) - margin, max(box.right for box in boxes) + margin
    top, bottom = min(box.top for box in boxes) - margin, max(box.bottom for box in boxes) + margin
    side = max(size / FACE_SHARE, right - left, bottom - top)
    x, y = face.centre
    y -= (FACE_DOWN - 0.5) * side
    # The face's usual place decides, as far as no other place of it falls outside.
    x = min(max(x, right - side / 2), left + side / 2)
    y = min(max(y, bottom - side / 2), top + side / 2)
    return square_around(x, y, side, width, height)
