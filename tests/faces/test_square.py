"""Squares lie within the picture, around the point asked for, and shrink only where they must."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mtanimate.faces.detection import Square, centred_square, square_around

SIDES = st.integers(1, 3000)
PLACES = st.floats(0, 1)


@given(SIDES, SIDES, PLACES, PLACES, st.floats(0, 4000))
def test_a_square_around_a_point(width, height, across, down, side) -> None:
    x, y = across * width, down * height
    square = square_around(x, y, side, width, height)
    assert 0 <= square.x <= square.x + square.side <= width
    assert 0 <= square.y <= square.y + square.side <= height
    assert square.side == max(1, min(round(side), width, height))
    # half a pixel of rounding, and half a pixel for a side that is odd
    assert square.x - 1 <= x <= square.x + square.side + 1
    assert square.y - 1 <= y <= square.y + square.side + 1


@given(st.integers(200, 1000), st.integers(200, 1000), st.integers(1, 100))
def test_it_is_centred_where_there_is_room(width, height, side) -> None:
    square = square_around(100, 90, side, width, height)
    assert abs(square.x + square.side / 2 - 100) <= 0.5
    assert abs(square.y + square.side / 2 - 90) <= 0.5


def test_cutting() -> None:
    frames = np.zeros((2, 40, 60, 3), np.uint8)
    frames[:, 10:15, 20:25] = 9
    assert (Square(20, 10, 5).cut(frames) == 9).all()
    assert centred_square(60, 40) == Square(10, 0, 40)
