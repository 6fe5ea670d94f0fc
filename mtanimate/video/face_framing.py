"""How a square is framed around a face: the same for training clips and for what is animated."""

from fractions import Fraction
from statistics import median

from mtanimate.video.faces import Box
from mtanimate.video.square import Square, square_around

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
