"""The squares of a driving video, from faces that are drawn; a real one where it is at hand."""

from fractions import Fraction

import numpy as np
import pytest
from drawn_face import FACE, scene
from framed import FRAMED, SIDE, is_around, quiet, way
from golden import SHARED

from mtanimate.errors import InputError
from mtanimate.faces import detection as faces
from mtanimate.faces import framing as following
from mtanimate.faces.detection import Square, centred_square, resize_frames, resize_part
from mtanimate.faces.framing import frame_driving
from mtanimate.video import VideoReader, VideoWriter, write_image
from mtanimate.video.footage import FrameFolder

RAW_VIDEO = SHARED / "data" / "raw-examples" / "talking-head.mp4"


def test_one_square_holds_the_face_wherever_it_goes(talk):
    reader = VideoReader(talk)
    framing = frame_driving(reader, range(72), "auto", False, quiet)
    square = framing.square
    for left, top in (way(0), way(71)):
        assert square.x <= left + 0.1 * SIDE
        assert square.x + square.side >= left + 0.9 * SIDE
        assert square.y <= top + 0.1 * SIDE
        assert square.y + square.side >= top + SIDE
    assert 280 < square.side < 360
    assert framing.lost == (60, 65)
    batch = reader.frames([0, 71])
    assert (framing.squares(batch, range(2), 64) == resize_frames(square.cut(batch), 64)).all()


def test_a_part_of_the_video_is_framed_by_itself(talk):
    framing = frame_driving(VideoReader(talk), range(12), "auto", False, quiet)
    assert is_around(framing.square, *way(0))
    framing = frame_driving(VideoReader(talk), range(55, 72), "auto", False, quiet)
    assert is_around(framing.square, *way(71))


def test_a_square_follows_the_face_smoothly(talk):
    framing = frame_driving(VideoReader(talk), range(72), "auto", True, quiet)
    assert framing.square is None
    places = np.array([framing.place(number) for number in range(72)])
    middles = places[:, 0] + places[:, 2] / 2
    drawn = np.array([way(number)[0] + FACE[0] * SIDE for number in range(72)])
    assert np.abs(middles - drawn).max() < 0.2 * FRAMED
    # Neither late nor early: half of the way, at frame 33, is half of the way.
    assert abs(np.interp((drawn[0] + drawn[-1]) / 2, middles, range(72)) - 33) < 2
    assert np.abs(np.diff(middles)).max() < 2 * 200 / 36
    assert np.abs(np.diff(middles, 2)).max() < 0.01 * FRAMED
    assert places[:, 2].max() < 1.05 * places[:, 2].min()


def test_following_squares_of_a_batch(talk):
    """The face stays in the middle of what is cut; squares of several sides make one batch."""
    reader = VideoReader(talk)
    framing = frame_driving(reader, range(72), "auto", True, quiet)
    numbers = range(8, 72, 21)
    cut = framing.squares(reader.frames(numbers), numbers, 256)
    assert cut.shape == (len(numbers), 3, 256, 256)
    assert cut.dtype.is_signed is False
    for frame in cut.permute(0, 2, 3, 1).numpy():
        box = faces.find_faces(frame)[0]
        assert abs(box.centre[0] - 128) < 50  # it starts and stops faster than the square
        assert box.width == pytest.approx(128, rel=0.25)


def test_a_still_face_is_followed_by_a_still_square(tmp_path):
    """The detector's noise is not."""
    folder = tmp_path / "frames"
    folder.mkdir()
    grain = np.random.default_rng(0)
    for number in range(40):
        picture = scene(400, 300, (130, 80, SIDE)).astype(int) + grain.integers(-6, 7, (300, 400, 3))
        write_image(folder / f"{number}.png", picture.clip(0, 255).astype(np.uint8))
    framing = frame_driving(FrameFolder(folder), range(40), "auto", True, quiet)
    places = np.array([framing.place(number) for number in range(40)])
    assert np.abs(np.diff(places, axis=0)).max() < 0.3
    assert np.ptp(places, axis=0).max() < 4


def test_no_square_leaves_the_picture(tmp_path):
    path = tmp_path / "edge.mp4"
    with VideoWriter(path, fps=Fraction(10), width=300, height=200) as writer:
        for number in range(20):
            writer.write(scene(300, 200, (10 * number - 5, 60, SIDE))[None])
    reader = VideoReader(path)
    for track in (False, True):
        framing = frame_driving(reader, range(20), "auto", track, quiet)
        for number in range(20):
            left, top, side = framing.place(number)
            assert 0 <= left <= left + side <= 300 + 1e-9
            assert 0 <= top <= top + side <= 200 + 1e-9
        assert framing.squares(reader.frames(range(20)), range(20), 64).shape == (20, 3, 64, 64)


def test_pictures_and_single_frames(tmp_path):
    folder = tmp_path / "one"
    folder.mkdir()
    write_image(folder / "still.png", scene(400, 300, (130, 80, SIDE)))
    reader = FrameFolder(folder)
    for track in (False, True):
        framing = frame_driving(reader, range(1), "auto", track, quiet)
        left, top, side = framing.place(0)
        assert is_around(Square(round(left), round(top), round(side)), 130, 80)
        assert framing.squares(reader.frames([0]), range(1), 32).shape == (1, 3, 32, 32)


def test_a_driving_video_without_a_face(tmp_path):
    path = tmp_path / "wall.mp4"
    with VideoWriter(path, fps=Fraction(5), width=320, height=240) as writer:
        writer.write(np.repeat(scene(320, 240)[None], 20, axis=0))
    said = []
    framing = frame_driving(VideoReader(path), range(20), "auto", True, said.append)
    assert framing.square == centred_square(320, 240)
    assert framing.lost == ()
    (line,) = said
    assert "no face found in the driving video" in line


def test_a_given_square_of_the_driving_video(talk):
    reader = VideoReader(talk)
    assert frame_driving(reader, range(72), Square(5, 6, 300), True, quiet).square == Square(5, 6, 300)
    assert frame_driving(reader, range(72), "none", True, quiet).square == centred_square(640, 400)
    with pytest.raises(
        InputError, match="driving-crop 5,6,500,500 reaches out of the driving video, which is 640 x 400"
    ):
        frame_driving(reader, range(72), Square(5, 6, 500), False, quiet)


def test_a_face_is_looked_for_where_it_was(monkeypatch):
    """Where it stands still the whole picture is searched once; when it is away for long, once a second."""
    searched = []

    def count(frame, largest=faces.LARGEST):
        searched.append(frame.shape[1] == 640)
        return faces.find_faces(frame, largest)

    monkeypatch.setattr(following, "find_faces", count)
    follower = following.FaceFollower()
    picture, wall = scene(640, 400, (350, 150, SIDE)), scene(640, 400)
    assert all(follower.see(picture) for _ in range(10))
    assert sum(searched) == 1
    searched.clear()
    assert not any(follower.see(wall) for _ in range(50))
    assert sum(searched) <= 15
    assert any(follower.see(picture) for _ in range(5))


def test_another_face_is_not_taken_for_the_one_that_left():
    """Until it is away for half a second."""
    follower = following.FaceFollower()
    assert follower.see(scene(640, 320, (60, 100, SIDE)))
    other = scene(640, 320, (450, 100, SIDE))
    seen = [follower.see(other) for _ in range(6)]
    assert seen[:3] == [None] * 3
    assert seen[-1]
    assert seen[-1].left > 400


def test_a_part_between_pixels():
    """On whole pixels it is what `resize_frames` makes; a shift of half a pixel lies between two whole ones."""
    frame = scene(200, 160, (20, 20, SIDE))
    whole = resize_frames(Square(10, 12, 130).cut(frame)[None], 64)[0].int()
    part = resize_part(frame, 10, 12, 130, 64).int()
    assert (part - whole).abs().max() <= 1
    next_one, half = (resize_part(frame, left, 12, 130, 64).int() for left in (11, 10.5))
    assert ((part + next_one) / 2 - half).abs().mean() < 0.15 * (part - next_one).abs().float().mean()


@pytest.mark.skipif(not RAW_VIDEO.is_file(), reason="needs the raw example")
def test_a_phone_video():
    reader = VideoReader(RAW_VIDEO)
    framing = frame_driving(reader, range(100), "auto", False, quiet)
    assert framing.lost == ()
    cut = framing.squares(reader.frames([0, 60]), range(2), 256).permute(0, 2, 3, 1).numpy()
    for frame in cut:
        assert 0.4 < faces.find_faces(frame)[0].width / 256 < 0.65


@pytest.mark.parametrize("track", [False, True])
def test_frames_between_two_looks_are_lost_with_the_first(track, talk):
    framing = frame_driving(VideoReader(talk), range(72), "auto", track, quiet)
    assert framing.lost_frames(range(72)) == list(range(60, 70))
