"""Faces are found where they are drawn, in the picture's own pixels."""

import sys
import threading

import numpy as np
import pytest
from drawn_face import FACE, scene

from mtanimate.errors import InputError
from mtanimate.faces import detection as faces
from mtanimate.faces.detection import Box, find_faces


def _close(box: Box, x: float, y: float, side: float) -> None:
    """Whether a box is that of a face drawn at x, y with this side."""
    centre = box.centre
    assert abs(centre[0] - (x + FACE[0] * side)) < 0.06 * side
    assert abs(centre[1] - (y + FACE[1] * side)) < 0.1 * side
    assert box.width == pytest.approx(FACE[2] * side, rel=0.25)


def test_the_largest_is_first() -> None:
    found = find_faces(scene(480, 320, (30, 40, 140), (220, 60, 220)))
    assert len(found) == 2
    _close(found[0], 220, 60, 220)
    _close(found[1], 30, 40, 140)


@pytest.mark.parametrize("size", [(2000, 1200), (1200, 2000)])
def test_boxes_of_a_large_picture_are_in_its_own_pixels(size) -> None:
    (found,) = find_faces(scene(*size, (300, 200, 600)))
    _close(found, 300, 200, 600)


def test_a_picture_without_a_face() -> None:
    assert find_faces(scene(320, 240)) == []
    assert find_faces(np.zeros((2, 2, 3), np.uint8)) == []


def test_many_threads_find_the_same() -> None:
    frames = [scene(400, 300, (20 + 30 * index, 30, 200)) for index in range(3)]
    expected = [find_faces(frame) for frame in frames]
    found: dict[int, list[list[Box]]] = {}

    def look(thread: int) -> None:
        found[thread] = [find_faces(frame) for frame in frames]

    threads = [threading.Thread(target=look, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(2)] == [expected] * 2


def test_without_dlib_the_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "dlib", None)
    monkeypatch.setattr(faces, "_of_this_thread", threading.local())
    for ask in (faces.check_installed, lambda: find_faces(scene(64, 64))):
        with pytest.raises(InputError, match=r"pip install 'mtanimate\[faces\]'"):
            ask()


def test_how_alike_boxes_are() -> None:
    box = Box(0, 0, 10, 10)
    assert box.likeness(box) == 1
    assert box.likeness(Box(5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert box.likeness(Box(10, 0, 20, 10)) == box.likeness(Box(50, 50, 60, 60)) == 0
    assert (box.width, box.height, box.centre, box.area) == (10, 10, (5, 5), 100)
