"""Landmarks and identities of faces, on a drawn face and on real clips."""

import importlib.util
import random
import sys
from functools import cache
from itertools import permutations

import numpy as np
import pytest
from drawn_face import scene
from golden import SHARED

from mtanimate.errors import InputError
from mtanimate.metrics.detector_pool import DetectorChoice, open_detector
from mtanimate.metrics.detectors import Detections, DlibFaces, Frames
from mtanimate.metrics.measures import descriptor_distance, keypoint_distance, missing_keypoints
from mtanimate.video import VideoReader

TEST_CLIPS = SHARED / "data" / "talking-heads" / "test"
needs_clips = pytest.mark.skipif(not TEST_CLIPS.is_dir(), reason=f"no test clips at {TEST_CLIPS}")


@cache
def faces():
    return DlibFaces()


def frames(pictures):
    return Frames(np.stack(pictures), "clip", range(len(pictures)), generated=False)


def landmarks(pictures):
    return faces().landmarks(frames(pictures))


def mean(sums, counts):
    return sums.sum() / counts.sum()


# A drawn face


def test_a_drawn_face_has_68_landmarks_inside_it():
    found = landmarks([scene(256, 300, (30, 60, 200)), scene(256, 300, (46, 76, 200))])
    assert found.shape == (2, 68, 2)
    assert faces().points == 68
    assert np.isfinite(found).all()
    assert (found[0] > [30, 60]).all()
    assert (found[0] < [230, 260]).all()
    left_eye, right_eye, chin = found[0, 36:42].mean(axis=0), found[0, 42:48].mean(axis=0), found[0, 8]
    assert left_eye[0] < chin[0] < right_eye[0]
    assert chin[1] > left_eye[1] + 50
    assert (found[1] - found[0]).mean(axis=0) == pytest.approx([16, 16], abs=2)


def test_a_face_in_a_small_picture():
    large = landmarks([scene(256, 256, (30, 20, 200))])
    assert landmarks([scene(128, 128, (15, 10, 100))]) * 2 == pytest.approx(large, abs=10)


def test_the_largest_face_is_the_subject():
    found = landmarks([scene(480, 320, (30, 40, 140), (220, 60, 220))])[0]
    assert (found[:, 0] > 220).all()


def test_a_picture_without_a_face_has_nothing():
    found = landmarks([scene(256, 256), scene(256, 256, (30, 20, 200))])
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1]).all()
    described = faces().descriptors(frames([scene(256, 256), scene(256, 256, (30, 20, 200))]), found)
    assert described.shape == (2, 128)
    assert np.isnan(described[0]).all()
    assert np.isfinite(described[1]).all()
    assert Detections(found, described).without_subject == 1
    lost, there = missing_keypoints(found[::-1], found)
    assert lost.tolist() == [68, 0]
    assert there.tolist() == [68, 0]


def test_names_tell_the_versions_and_the_files():
    assert faces().name.startswith("dlib ")
    assert "shape_predictor_68_face_landmarks.dat (sha256 fbdc2cb8)" in faces().name
    assert "dlib_face_recognition_resnet_model_v1.dat (sha256 " in faces().identity


# What is missing


def test_without_the_models_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for ask in (DlibFaces, lambda: open_detector(DetectorChoice("faces"))):
        with pytest.raises(InputError, match=r"face-recognition-models: pip install 'mtanimate\[eval\]'"):
            ask()


def test_without_dlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(InputError, match=r"need dlib: pip install 'mtanimate\[eval\]'"):
        DlibFaces()


def test_without_face_alignment_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "face_alignment", None)
    with pytest.raises(InputError, match=r"pip install 'mtanimate\[face-alignment\]'"):
        open_detector(DetectorChoice("face-alignment"))


def test_an_unknown_detector():
    with pytest.raises(InputError, match="--detector fases: not one of faces, face-alignment, bodies, none"):
        open_detector(DetectorChoice("fases"))


# Real faces


@cache
def pictures(name):
    """12 frames of a test clip."""
    reader = VideoReader(TEST_CLIPS / name)
    return list(reader.frames(np.linspace(0, reader.frame_count - 1, 12).astype(int)))


@cache
def descriptors(name):
    """Of its first 6 frames with a face."""
    found = landmarks(pictures(name))
    there = np.flatnonzero(np.isfinite(found).all(axis=(1, 2)))[:6]
    assert len(there) == 6
    return faces().descriptors(frames([pictures(name)[number] for number in there]), found[there])


def first_clips():
    """A clip of each identity."""
    names: dict[str, str] = {}
    for path in sorted(TEST_CLIPS.glob("*.mp4")):
        names.setdefault(path.name.partition("__")[0], path.name)
    return names


def moved(picture, dx, dy):
    """Its edge is repeated where nothing comes in."""
    rows = np.clip(np.arange(picture.shape[0]) - dy, 0, None)
    columns = np.clip(np.arange(picture.shape[1]) - dx, 0, None)
    return picture[rows][:, columns]


@needs_clips
def test_the_truth_against_itself():
    for name in list(first_clips().values())[:4]:
        chosen = pictures(name)[:4]
        first, second = landmarks(chosen), landmarks(chosen)
        np.testing.assert_array_equal(first, second)
        sums, counts = keypoint_distance(first, second)
        assert sums.sum() == 0
        assert counts.tolist() == [68] * 4
        assert missing_keypoints(first, second)[0].sum() == 0
        described = faces().descriptors(frames(chosen), first)
        np.testing.assert_array_equal(faces().descriptors(frames(chosen), second), described)
        sums, counts = descriptor_distance(described, described)
        assert sums.sum() == 0
        assert counts.sum() == 4


@needs_clips
@pytest.mark.parametrize("shift", [(3, 0), (0, 3)], ids=["x", "y"])
def test_a_shift_of_3_pixels_is_an_akd_of_3(shift):
    truth = [picture for name in list(first_clips().values())[:6] for picture in pictures(name)[:10]]
    sums, counts = keypoint_distance(landmarks(truth), landmarks([moved(picture, *shift) for picture in truth]))
    assert (counts > 0).sum() >= 40
    assert mean(sums, counts) == pytest.approx(3, abs=0.25)


@pytest.mark.slow
@needs_clips
def test_another_person_is_farther_than_another_frame():
    """20 times, drawn by chance."""
    names = first_clips()
    pairs = list(permutations(sorted(names), 2))
    for person, other in random.Random(7).sample(pairs, 20):
        one, two = descriptors(names[person]), descriptors(names[other])
        between, within = descriptor_distance(one[:3], two[:3]), descriptor_distance(one[:3], one[3:])
        assert mean(*between) > mean(*within) + 0.1, (person, other)
