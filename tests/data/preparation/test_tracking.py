"""Pieces of a video, from faces that are given: no detector is asked."""

from fractions import Fraction

import pytest
from drawn_face import scene

from mtanimate.data.raw_videos import FaceSample, find_pieces, sample_faces
from mtanimate.faces.detection import Box, face_square
from mtanimate.video import VideoReader, VideoWriter

FPS = Fraction(25)
WIDTH, HEIGHT = 1280, 720
HERE = Box(400, 200, 600, 400)
THERE = Box(900, 300, 1060, 460)


def samples(*seen, cuts=()):
    """One sample every five frames; each `seen` is a box, a list of boxes, or None."""
    return [
        FaceSample(5 * index, face if isinstance(face, list) else [face] if face else [], index in cuts)
        for index, face in enumerate(seen)
    ]


def spans(found, frame_count, fps=FPS):
    pieces, too_short = find_pieces(found, fps, frame_count, WIDTH, HEIGHT)
    return [(piece.first, piece.end) for piece in pieces], too_short


def test_a_face_all_along_is_one_piece_to_the_last_frame():
    assert spans(samples(*[HERE] * 20), 98) == ([(0, 98)], 0)


def test_no_face_is_no_piece():
    assert spans(samples(*[None] * 20), 98) == ([], 0)
    assert spans([], 0) == ([], 0)


def test_it_begins_and_ends_with_the_face():
    assert spans(samples(None, None, *[HERE] * 10, *[None] * 5), 85) == ([(10, 56)], 0)


def test_a_blink_of_the_detector_is_nothing():
    assert spans(samples(*[HERE] * 5, None, None, *[HERE] * 5), 60) == ([(0, 60)], 0)


def test_a_face_lost_for_long_ends_a_piece():
    found = samples(*[HERE] * 8, None, None, None, None, *[HERE] * 8)
    assert spans(found, 100) == ([(0, 36), (60, 100)], 0)


def test_another_face_ends_a_piece():
    """The cut lies anywhere between two samples: the frames between them are left out."""
    assert spans(samples(*[HERE] * 8, *[THERE] * 8), 80) == ([(0, 36), (40, 80)], 0)


def test_a_change_of_scene_ends_a_piece_though_the_face_stays():
    assert spans(samples(*[HERE] * 16, cuts=[8]), 80) == ([(0, 36), (40, 80)], 0)


def test_the_followed_face_stays_when_another_grows_larger():
    larger = Box(800, 100, 1200, 500)
    pieces, _ = find_pieces(samples(*[HERE] * 4, *[[larger, HERE]] * 12), FPS, 80, WIDTH, HEIGHT)
    assert [(piece.first, piece.end) for piece in pieces] == [(0, 80)]
    assert pieces[0].square == face_square([HERE], WIDTH, HEIGHT)


def test_the_largest_face_is_followed_first():
    small = Box(100, 100, 180, 180)
    (piece,), _ = find_pieces(samples(*[[HERE, small]] * 16), FPS, 80, WIDTH, HEIGHT)
    assert piece.square == face_square([HERE], WIDTH, HEIGHT)


def test_a_slow_walk_is_one_piece():
    walk = [Box(100 + 40 * step, 200, 300 + 40 * step, 400) for step in range(16)]
    assert spans(samples(*walk), 80) == ([(0, 80)], 0)


def test_long_pieces_are_cut_into_equal_ones():
    """20 seconds: three of at most eight."""
    assert spans(samples(*[HERE] * 100), 500) == ([(0, 166), (166, 333), (333, 500)], 0)
    assert spans(samples(*[HERE] * 40), 200) == ([(0, 200)], 0)


def test_short_pieces_are_counted_and_dropped():
    assert spans(samples(*[HERE] * 6, *[THERE] * 8), 70) == ([(30, 70)], 1)
    assert spans(samples(*[HERE] * 7), 31) == ([], 1)
    assert spans(samples(*[HERE] * 7), 32) == ([(0, 32)], 0)


def test_looking_at_a_video(tmp_path):
    """A drawn face for two seconds, then the wall behind it."""
    path = tmp_path / "talk.mp4"
    with VideoWriter(path, fps=FPS, width=320, height=240) as writer:
        face, wall = scene(320, 240, (80, 20, 180)), scene(320, 240)
        for number in range(60):
            writer.write((face if number < 50 else wall)[None])
    found = list(sample_faces(VideoReader(path)))
    assert [sample.frame for sample in found] == list(range(0, 60, 5))
    assert [len(sample.faces) for sample in found] == [1] * 10 + [0] * 2
    assert not any(sample.cut for sample in found)


@pytest.mark.parametrize("change", [80, 10])
def test_a_change_of_the_whole_picture_is_a_cut(tmp_path, change):
    path = tmp_path / "talk.mp4"
    with VideoWriter(path, fps=FPS, width=64, height=48) as writer:
        for number in range(20):
            writer.write(scene(64, 48)[None] - (change if number >= 10 else 0))
    assert [sample.cut for sample in sample_faces(VideoReader(path))] == [False, False, change == 80, False]
