"""What may be asked for, and the squares of a source: faces that are drawn, real clips where they are at hand."""

import pytest
from drawn_face import FACE, scene
from framed import SIDE, is_around, quiet
from golden import SHARED

from mtanimate.errors import InputError
from mtanimate.faces.detection import Square, centred_square
from mtanimate.faces.framing import frame_driving, frame_source, parse_crop, parse_face
from mtanimate.video import VideoReader

TEST_CLIPS = SHARED / "data" / "talking-heads" / "test"


@pytest.mark.parametrize(
    ("text", "crop"),
    [("auto", "auto"), ("none", "none"), ("3,4,50,50", Square(3, 4, 50)), (" 0, 0, 1, 1", Square(0, 0, 1))],
)
def test_crops(text, crop):
    assert parse_crop(text) == crop


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1,2,30,40", "30 x 40 is no square"),
        ("-1,2,30,30", "0 or more"),
        ("1,2,0,0", "1 or more"),
        ("1,2,-5,-5", "1 or more"),
        ("1,2,3", "X,Y,W,H"),
        ("1,2,30.5,30.5", "X,Y,W,H"),
        ("face", "X,Y,W,H"),
        ("", "X,Y,W,H"),
    ],
)
def test_crops_that_are_refused(text, reason):
    with pytest.raises(InputError) as refused:
        parse_crop(text, "--driving-crop")
    message = str(refused.value)
    assert message.startswith(f"--driving-crop {text}: ")
    assert reason in message
    assert "\n" not in message


def test_faces_to_choose():
    assert [parse_face(text) for text in ("largest", "all", "1", "12")] == ["largest", "all", 1, 12]
    for text in ("0", "-1", "first", "1.5", "²", ""):
        with pytest.raises(InputError, match="largest, all, or a number"):
            parse_face(text)


def test_a_given_square_of_the_source():
    picture = scene(320, 240)
    assert frame_source(picture, Square(80, 0, 240), "largest", quiet) == [Square(80, 0, 240)]
    assert frame_source(picture, "none", "all", quiet) == [centred_square(320, 240)]
    for square in (Square(81, 0, 240), Square(0, 1, 240)):
        with pytest.raises(InputError, match="source, which is 320 x 240"):
            frame_source(picture, square, "largest", quiet)


PLACES = [(330, 130), (20, 60), (560, 40)]


@pytest.fixture(scope="module")
def group():
    """Three faces; the middle one is drawn first, and the rightmost a little larger."""
    return scene(760, 320, *[(*place, SIDE + 30 * (place[0] == 560)) for place in PLACES])


def test_the_face_of_a_source(group):
    (square,) = frame_source(scene(640, 400, (350, 150, SIDE)), "auto", "largest", quiet)
    assert is_around(square, 350, 150)
    (square,) = frame_source(group, "auto", "largest", quiet)
    assert square.x > 500


def test_faces_are_numbered_from_the_left(group):
    squares = frame_source(group, "auto", "all", quiet)
    assert len(squares) == 3
    assert is_around(squares[0], 20, 60)
    assert is_around(squares[1], 330, 130)
    assert [frame_source(group, "auto", number, quiet) for number in (1, 2, 3)] == [[square] for square in squares]
    with pytest.raises(InputError, match="--face 4: 3 faces found"):
        frame_source(group, "auto", 4, quiet)
    with pytest.raises(InputError, match="--face 1: no faces found"):
        frame_source(scene(320, 240), "auto", 1, quiet)


def test_a_small_face_of_a_large_photo():
    """A fifteenth of it."""
    (square,) = frame_source(scene(2400, 1500, (1500, 700, 220)), "auto", "largest", quiet)
    assert abs(square.x + square.side / 2 - (1500 + FACE[0] * 220)) < 40


def test_a_source_without_a_face():
    said = []
    assert frame_source(scene(320, 240), "auto", "largest", said.append) == [centred_square(320, 240)]
    (line,) = said
    assert "no face found in the source" in line
    assert "240 x 240" in line
    assert "--crop" in line


def test_without_dlib(without_dlib, talk):
    said = []
    assert frame_source(scene(320, 240), "auto", "all", said.append) == [centred_square(320, 240)]
    reader = VideoReader(talk)
    assert frame_driving(reader, range(5), "auto", True, said.append).square == centred_square(640, 400)
    assert ["mtanimate[faces]" in line for line in said] == [True, True]
    with pytest.raises(InputError, match=r"mtanimate\[faces\]"):
        frame_source(scene(320, 240), "auto", 2, quiet)


@pytest.mark.skipif(not TEST_CLIPS.is_dir(), reason="needs the talking-head clips")
def test_clips_that_are_framed_already_stay_so():
    """The very framing of training clips: nearly the whole picture."""
    for clip in sorted(TEST_CLIPS.glob("*.mp4"))[::6]:
        reader = VideoReader(clip)
        square = frame_driving(reader, range(min(50, reader.frame_count)), "auto", False, quiet).square
        (first,) = frame_source(reader.frames([0])[0], "auto", "largest", quiet)
        for framed in (square, first):
            assert framed.side > 0.9 * 256
            assert abs(framed.x + framed.side / 2 - 128) < 0.05 * 256
            assert abs(framed.y + framed.side / 2 - 128) < 0.05 * 256
