"""The vertices of MediaPipe's refined face mesh, and how MediaPipe is started. Left and right are the person's own."""

import importlib.util
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from mtanimate.errors import InputError

VERTICES = 478
SKIN = 468  # the vertices before those of the irises

# The vertices of each contour, ascending, as MediaPipe connects them. The nose's ridge moves before the rest of it
# when a head nods or turns.
CONTOURS = {
    "LIPS": (
        0, 13, 14, 17, 37, 39, 40, 61, 78, 80, 81, 82, 84, 87, 88, 91, 95, 146, 178, 181, 185, 191, 267, 269, 270, 291,
        308, 310, 311, 312, 314, 317, 318, 321, 324, 375, 402, 405, 409, 415,
    ),
    "RIGHT_EYE": (7, 33, 133, 144, 145, 153, 154, 155, 157, 158, 159, 160, 161, 163, 173, 246),
    "LEFT_EYE": (249, 263, 362, 373, 374, 380, 381, 382, 384, 385, 386, 387, 388, 390, 398, 466),
    "RIGHT_EYEBROW": (46, 52, 53, 55, 63, 65, 66, 70, 105, 107),
    "LEFT_EYEBROW": (276, 282, 283, 285, 293, 295, 296, 300, 334, 336),
    "FACE_OVAL": (
        10, 21, 54, 58, 67, 93, 103, 109, 127, 132, 136, 148, 149, 150, 152, 162, 172, 176, 234, 251, 284, 288, 297,
        323, 332, 338, 356, 361, 365, 377, 378, 379, 389, 397, 400, 454,
    ),
    "NOSE": (
        1, 2, 4, 5, 6, 19, 45, 48, 64, 94, 97, 98, 115, 168, 195, 197, 220, 275, 278, 294, 326, 327, 344, 440,
    ),
}  # fmt: skip

# On the line from brow to chin. The other vertices up to 247 are those of the right half, and those from 248 on are the
# left half's, in the same order. This was found by comparing 240 meshes of 60 people with their mirror images.
_MIDDLE = (
    0, 1, 2, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 94, 151, 152, 164, 168, 175, 195, 197, 199, 200,
)  # fmt: skip
_FIRST_LEFT = 248
IRISES = (468, 469, 470, 471, 472), (473, 476, 475, 474, 477)  # right, left; each other's mirror images in this order


def _mirror() -> np.ndarray:
    right = [vertex for vertex in range(_FIRST_LEFT) if vertex not in _MIDDLE] + list(IRISES[0])
    left = [*range(_FIRST_LEFT, SKIN), *IRISES[1]]
    table = np.arange(VERTICES)
    table[right], table[left] = left, right
    return table


MIRROR = _mirror()  # (478,): which vertex of a face is vertex j of its mirror image


def model(name: str, purpose: str) -> Path:
    """The model's file inside MediaPipe's wheel. Raises InputError, naming the extra, where there is none."""
    found = importlib.util.find_spec("mediapipe")
    if found is None or found.origin is None:
        raise missing("the package mediapipe, which Python 3.10 to 3.12 have", purpose)
    file = Path(found.origin).parent / "modules" / name
    if not file.is_file():
        raise missing("a mediapipe that carries its models, 0.10.14 to 0.10.21", purpose)
    return file


@contextmanager
def starting(purpose: str) -> Iterator[None]:
    """Silences stderr while MediaPipe is imported and started, since its C++ code prints pages there.

    Errors still come as exceptions. Raises InputError, naming the extra, where MediaPipe cannot be used.
    """
    warnings.filterwarnings("ignore", "SymbolDatabase.GetPrototype", UserWarning)  # at every picture
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    except (ImportError, AttributeError) as error:  # AttributeError: protobuf is too new for it
        raise missing(f"a whole mediapipe ({error})", purpose) from error
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def missing(what: str, purpose: str) -> InputError:
    return InputError(f"{purpose} needs {what}: pip install 'mtanimate[mediapipe]'")
