"""Which raw videos there are, what their clips are called, and which cuts a CSV makes of them."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtanimate.data.planning import ListedClip, clip_names, plan_by_face, plan_by_rows, raw_videos, safe_name
from mtanimate.errors import InputError
from mtanimate.faces.detection import Box
from mtanimate.video import VideoWriter


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_videos_at_any_depth_but_no_hidden_ones_and_no_clips(tmp_path):
    touch(tmp_path, "b.MP4", "x/y/a.webm", ".c.mp4", ".d/e.mp4", "notes.txt", "clips/train/b__00.mp4")
    said = []
    assert raw_videos(tmp_path, tmp_path / "clips", said.append) == ["b.MP4", "x/y/a.webm"]
    assert len(said) == 1
    assert "notes.txt" in said[0]


def test_a_link_to_a_folder_above_brings_no_video_twice(tmp_path):
    touch(tmp_path, "a.mp4", "x/b.mp4")
    (tmp_path / "x" / "loop").symlink_to(tmp_path)
    assert raw_videos(tmp_path, tmp_path / "clips") == ["a.mp4", "x/b.mp4"]


def test_folders_that_will_not_do(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        raw_videos(tmp_path / "none", tmp_path / "out")
    with pytest.raises(InputError, match="has no videos"):
        raw_videos(tmp_path, tmp_path / "out")
    touch(tmp_path, "a.mp4")
    with pytest.raises(InputError, match="--out"):
        raw_videos(tmp_path, tmp_path)


@given(st.text())
def test_names_are_safe_on_any_system(text):
    name = safe_name(text)
    assert name
    assert not set(name) & set('/\\:*?"<>| \n\t')
    assert not name.startswith(".")


def test_clips_are_called_after_their_video():
    sources = ["ann.mp4", "ann__2.mp4", "id1/a b.mp4", "talk #3.mov", "same.mov", "Same.mp4"]
    assert clip_names(sources) == {
        "ann.mp4": "ann",
        "ann__2.mp4": "ann__2",
        "id1/a b.mp4": "id1#a-b",
        "talk #3.mov": "talk--3",
        "same.mov": "same-mov",
        "Same.mp4": "Same-mp4",
    }
    with pytest.raises(InputError, match=r"a b\.mp4 and a:b\.mp4"):
        clip_names(["a b.mp4", "a:b.mp4"])


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """a.mp4: 60 frames of 80 x 60 at 25 a second, without a face."""
    folder = tmp_path_factory.mktemp("raw")
    with VideoWriter(folder / "a.mp4", fps=Fraction(25), width=80, height=60) as writer:
        writer.write(np.full((60, 60, 80, 3), 90, np.uint8))
    return folder


def row(start=0, end=10, box=Box(0, 0, 160, 100), partition="train", name="id1#a#0#1"):
    return ListedClip("a", name, start, end, box, Fraction(50), 160, 120, partition)


def test_cuts_of_a_csv(raw):
    rows = [
        row(20, 80, Box(20, 20, 60, 80), name="id1#a#020#080"),
        row(100, 400, partition="test", name="../up"),
        row(300, 400, name="late"),
        row(118, 400, name="one frame"),
        row(0, 10, Box(160, 0, 170, 50), name="outside"),
        row(20, 80, name="id1#a#020#080"),
    ]
    plan = plan_by_rows(raw, "a.mp4", rows, 64)
    found = [(cut.file, cut.identity, cut.first, cut.end, cut.size) for cut in plan.cuts]
    assert found == [
        ("train/id1#a#020#080.mp4", "id1", 10, 40, 64),
        ("test/-up.mp4", "-up", 50, 60, 64),
    ]
    square = plan.cuts[0].square
    assert (square.x, square.y, square.side) == (5, 10, 30)
    assert plan.skipped == [
        "fewer than two frames of the video lie between start and end",
        "fewer than two frames of the video lie between start and end",
        "the box lies outside of the picture",
        "a clip is listed twice",
    ]


def test_a_video_without_a_face(raw):
    plan = plan_by_face(raw, "a.mp4", "a", 64, lambda: None)
    assert (plan.cuts, plan.skipped, plan.tracked) == ([], ["no face was found"], True)


def test_looking_for_faces_can_be_called_off(raw):
    class CalledOff(Exception):
        pass

    def check():
        raise CalledOff

    with pytest.raises(CalledOff):
        plan_by_face(raw, "a.mp4", "a", 64, check)
