"""A video of a face that is drawn, and a Python without dlib."""

import sys
import threading
from fractions import Fraction

import pytest
from drawn_face import scene
from framed import HIDDEN, SIDE, way

from mtanimate.faces import detection as faces
from mtanimate.video import VideoWriter


@pytest.fixture
def without_dlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "dlib", None)
    monkeypatch.setattr(faces, "_of_this_thread", threading.local())


@pytest.fixture(scope="session")
def talk(tmp_path_factory):
    """Three seconds of a face on its way, hidden for a moment, with a smaller one standing by."""
    path = tmp_path_factory.mktemp("talk") / "talk.mp4"
    with VideoWriter(path, fps=Fraction(24), width=640, height=400) as writer:
        for number in range(72):
            there = [] if number in HIDDEN else [(*way(number), SIDE)]
            writer.write(scene(640, 400, (530, 10, 90), *there)[None])
    return path
