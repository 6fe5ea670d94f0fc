"""Squares around faces, from boxes that are given: no detector is asked."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from mtanimate.faces.detection import Box, face_square, sample_step

WIDTH, HEIGHT = 1280, 720
HERE = Box(400, 200, 600, 400)


def test_about_five_samples_a_second():
    assert [sample_step(Fraction(rate)) for rate in ("25", "30000/1001", "60", "10", "2")] == [5, 6, 12, 2, 1]


FACES = st.lists(
    st.tuples(st.floats(-50, 1000), st.floats(-50, 600), st.floats(30, 400)).map(
        lambda face: Box(face[0], face[1], face[0] + face[2], face[1] + face[2])
    ),
    min_size=1,
    max_size=8,
)


@given(FACES)
def test_a_square_lies_in_the_picture(boxes):
    square = face_square(boxes, WIDTH, HEIGHT)
    assert 0 <= square.x <= square.x + square.side <= WIDTH
    assert 0 <= square.y <= square.y + square.side <= HEIGHT


@given(FACES)
def test_a_square_has_room_for_everywhere_the_face_goes(boxes):
    """Where the picture has the room."""
    square = face_square(boxes, 20000, 20000)
    for box in boxes:
        assert square.x <= max(0, box.left) + 1
        assert square.y <= max(0, box.top) + 1
        assert square.x + square.side >= box.right - 1
        assert square.y + square.side >= box.bottom - 1


def test_the_framing_of_the_field():
    """A still face is half of the square, in its middle and a little below."""
    square = face_square([HERE] * 9, WIDTH, HEIGHT)
    assert square.side == 400
    assert square.x == 300
    assert square.y == 300 - round(0.53 * 400)
    # one stray box moves nothing, as far as the rim lets it
    assert face_square([*[HERE] * 9, Box(410, 200, 610, 400)], WIDTH, HEIGHT) == square


def test_a_face_that_moves_far_gets_a_larger_square():
    boxes = [Box(200 + 10 * step, 200, 400 + 10 * step, 400) for step in range(31)]
    square = face_square(boxes, WIDTH, HEIGHT)
    assert square.side == 600  # 200 to 700, and a quarter of the face around
    assert square.x == 150
