"""How close a square is to a drawn face, and where one goes in the video `talk`."""

import pytest
from drawn_face import FACE

SIDE = 110  # of the drawn faces
FRAMED = 2 * FACE[2] * SIDE  # the side of a square around one of them


def quiet(line):
    raise AssertionError(f"nothing was to be said, but: {line}")


def is_around(square, left, top):
    """Whether a square frames the face drawn at this place, as closely as the detector sees it."""
    middle = square.x + square.side / 2, square.y + square.side / 2
    return (
        square.side == pytest.approx(FRAMED, rel=0.2)
        and abs(middle[0] - (left + FACE[0] * SIDE)) < 0.08 * FRAMED
        and abs(middle[1] - (top + FACE[1] * SIDE)) < 0.1 * FRAMED
    )


def way(number):
    """Where the face of `talk` is drawn: it waits, goes 200 pixels to the right in a second and a half, and waits."""
    return round(100 + 200 * min(max((number - 15) / 36, 0), 1)), 120


HIDDEN = range(58, 67)
