"""Faces and squares: where a face is, and the square that is cut out around it, never padded and never stretched."""

import threading
from dataclasses import dataclass
from fractions import Fraction
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from mtanimate.errors import InputError

if TYPE_CHECKING:  # processes that look for faces start without PyTorch, which takes seconds and 200 MB in each
    from torch import Tensor


@dataclass(frozen=True)
class Square:
    """A square of a picture. x, y: Its left and top edges, in pixels from the picture's top left corner."""

    x: int
    y: int
    side: int

    def cut(self, frames: np.ndarray) -> np.ndarray:
        """(..., H, W, 3) -> (..., side, side, 3), a view."""
        return frames[..., self.y : self.y + self.side, self.x : self.x + self.side, :]


def centred_square(width: int, height: int) -> Square:
    """The largest square in the middle of a picture."""
    side = min(width, height)
    return Square((width - side) // 2, (height - side) // 2, side)


def square_around(x: float, y: float, side: float, width: int, height: int) -> Square:
    """The square around a point, moved into the picture. It is smaller only where the picture is too small for it.

    Args:
        x, y: The wanted centre, in pixels from the picture's top left corner.
        side: The wanted side, in pixels.
        width, height: Of the picture, in pixels.
    """
    whole = max(1, min(round(side), width, height))
    left = min(max(round(x - whole / 2), 0), width - whole)
    top = min(max(round(y - whole / 2), 0), height - whole)
    return Square(left, top, whole)


def resize_frames(frames: np.ndarray, resolution: int) -> "Tensor":
    """Square uint8 (B, S, S, 3) -> uint8 (B, 3, resolution, resolution), anti-aliased where it shrinks."""
    import torch
    from torch.nn import functional as F

    images = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
    if images.shape[2:] == (resolution, resolution):
        return images
    size = (resolution, resolution)
    resized = F.interpolate(images.float(), size, mode="bicubic", align_corners=False, antialias=True)
    return resized.round().clamp(0, 255).to(torch.uint8)


def resize_part(frame: np.ndarray, left: float, top: float, side: float, resolution: int) -> "Tensor":
    """As `resize_frames`, for a square that begins between pixels.

    Args:
        frame: uint8 RGB (H, W, 3).
        left, top, side: Of the square, in pixels. It lies within the frame.

    Returns:
        uint8 (3, resolution, resolution).
    """
    import torch

    box = (left, top, min(left + side, frame.shape[1]), min(top + side, frame.shape[0]))
    picture = Image.fromarray(frame).resize((resolution, resolution), Image.Resampling.BICUBIC, box)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def square_frames(frames: np.ndarray, resolution: int) -> "Tensor":
    """uint8 (B, H, W, 3) of any shape -> uint8 (B, 3, resolution, resolution): the centred square, resized."""
    return resize_frames(centred_square(frames.shape[2], frames.shape[1]).cut(frames), resolution)


# The longer sides to which pictures are resized. The detector sees faces of about 80 pixels and more: a tenth of the
# larger side, a third of the smaller one.
_SMALLEST, LARGEST = 256, 800

# A detector holds its own working memory, and dlib lets other threads run meanwhile: each thread has one.
_of_this_thread = threading.local()


@dataclass(frozen=True)
class Box:
    """A rectangle, in pixels from the picture's top left corner. right and bottom lie just outside of it."""

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
        """The box, shifted by so many pixels to the right and down."""
        return Box(self.left + x, self.top + y, self.right + x, self.bottom + y)

    def common(self, other: "Box") -> "Box":
        """The intersection of both; its area is 0 where they do not overlap."""
        return Box(
            max(self.left, other.left),
            max(self.top, other.top),
            min(self.right, other.right),
            min(self.bottom, other.bottom),
        )

    def likeness(self, other: "Box") -> float:
        """Intersection over union: 1 for the same box, 0 for boxes that do not overlap."""
        both = self.common(other).area
        return both / (self.area + other.area - both) if both else 0.0


def check_installed() -> None:
    """Raises InputError, naming the extra to install, where dlib is missing."""
    _detector()


def find_faces(frame: np.ndarray, largest: int = LARGEST) -> list[Box]:
    """The upright faces in a picture, the largest first. Any thread may call it.

    A box is about as wide and as high as the face from brow to chin, and may reach beyond the picture. By default, the
    smallest faces that are found measure a tenth of the picture's longer side, but at least 80 pixels in a picture of
    800 or less, and a third of the side in a picture of 256 or less.

    Args:
        frame: uint8 RGB (H, W, 3).
        largest: The longer side, 256 pixels or more, to which a larger picture is reduced. More finds smaller faces,
            and takes longer.

    Raises:
        InputError: dlib is missing.
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
LOST_SECONDS = 0.5  # a face that is away for longer is given up
SAME_FACE = 0.25  # the least likeness of a face's boxes in two samples

# The framing that is usual for talking heads.
FACE_SHARE = 0.5  # the face's size, relative to the square's side
FACE_DOWN = 0.53  # the height of the face's centre from the top, relative to the square's side
MARGIN = 0.25  # around all places of the face, relative to its size


def sample_step(fps: Fraction) -> int:
    """Faces are looked for in every so many frames. fps: Frames a second."""
    return max(1, round(fps / SAMPLES_A_SECOND))


def face_square(boxes: list[Box], width: int, height: int) -> Square:
    """The square for a face that was at these places. The face fills half of it, with room for all of its places.

    Args:
        boxes: The places, one or more.
        width, height: Of the picture, in pixels. The square lies within it.
    """
    face = Box(*(median(getattr(box, side) for box in boxes) for side in ("left", "top", "right", "bottom")))
    size = max(face.width, face.height)
    margin = MARGIN * size
    left, right = min(box.left for box in boxes) - margin, max(box.right for box in boxes) + margin
    top, bottom = min(box.top for box in boxes) - margin, max(box.bottom for box in boxes) + margin
    side = max(size / FACE_SHARE, right - left, bottom - top)
    x, y = face.centre
    y -= (FACE_DOWN - 0.5) * side
    # Centred on the face's usual place, and moved only as far as its other places need.
    x = min(max(x, right - side / 2), left + side / 2)
    y = min(max(y, bottom - side / 2), top + side / 2)
    return square_around(x, y, side, width, height)
