"""The face mesh on a drawn face, on a photograph, and on real clips whose gain is known."""

import importlib.util
from functools import cache

import numpy as np
import pytest
from drawn_face import scene
from golden import SHARED

from mtanimate.errors import InputError
from mtanimate.faces import mesh as mediapipe_models
from mtanimate.faces.detection import square_frames
from mtanimate.metrics.detector_pool import DetectorChoice, MeshDetectorChoice, open_detector
from mtanimate.metrics.detectors import FaceMesh, Frames
from mtanimate.metrics.gestures import GESTURES, following, gestures
from mtanimate.video import VideoReader

CLIPS = SHARED / "data" / "talking-heads" / "test"
needs_clips = pytest.mark.skipif(not CLIPS.is_dir(), reason=f"no test clips at {CLIPS}")
needs_mediapipe = pytest.mark.skipif(
    importlib.util.find_spec("mediapipe") is None,
    reason="the face mesh needs mediapipe: pip install 'mtanimate[mediapipe]'",
)
pytestmark = needs_mediapipe
SWAPPED = ("yaw", "roll", "gaze")  # what a mirror turns round


@cache
def mesh():
    return FaceMesh()


def detected(pictures):
    pictures = np.asarray(pictures)
    return mesh().landmarks(Frames(pictures, "clip", range(len(pictures)), generated=True))


def astronaut():
    data = pytest.importorskip("skimage.data", reason="a photograph of a face: pip install scikit-image")
    return square_frames(data.astronaut()[None, :300, 75:375], 256)[0].permute(1, 2, 0).numpy()


@cache
def clip(name):
    """Every second frame of the first four seconds, and their meshes."""
    reader = VideoReader(CLIPS / f"{name}.mp4")
    frames = reader.frames(range(0, min(120, reader.frame_count), 2))
    return frames, detected(frames)


def test_the_mesh_of_a_drawn_face_is_where_it_is():
    """Its eyes are drawn at 0.45 and its mouth at 0.78 of its square's height."""
    found = detected([scene(256, 256, (30, 28, 200))])[0]
    assert found.shape == (478, 3)
    eyes, lips = found[[33, 133, 263, 362]].mean(axis=0), found[[13, 14]].mean(axis=0)
    assert eyes[:2] == pytest.approx([130, 28 + 90], abs=12)
    assert lips[:2] == pytest.approx([130, 28 + 157], abs=12)


def test_each_picture_stands_alone():
    """Whatever was looked at before it: a face elsewhere, or nobody."""
    here, there, nobody = scene(256, 256, (30, 28, 200)), scene(256, 256, (50, 50, 150)), scene(256, 256)
    found = detected([here, there, nobody, here, here, there])
    assert np.isfinite(found[[0, 1, 3, 4, 5]]).all()
    assert np.isnan(found[2]).all()
    for one, other in ((0, 3), (0, 4), (1, 5)):
        np.testing.assert_array_equal(found[one], found[other])


def test_a_photograph():
    """A smile with teeth, eyes open, looking past the camera; the iris lies between the eye's corners."""
    found = detected([astronaut()])
    values = {name: value[0] for name, value in gestures(found).items()}
    assert 0.05 < values["mouth"] < 0.3
    assert 0.2 < values["eyes"] < 0.5
    assert 0.3 < values["gaze"] < 0.7
    assert [values[name] for name in ("yaw", "pitch", "roll")] == pytest.approx([0, 0, 0], abs=1e-6)


def test_a_photograph_that_is_mirrored_or_turned():
    picture = astronaut()
    upright, mirrored = (gestures(detected([each])) for each in (picture, picture[:, ::-1]))
    for name in ("mouth", "width", "eyes", "brows"):
        assert mirrored[name] == pytest.approx(upright[name], abs=2 * GESTURES[name].least), name
    assert mirrored["gaze"] == pytest.approx(1 - upright["gaze"], abs=2 * GESTURES["gaze"].least)
    leaning = gestures(detected([picture, np.rot90(picture, -1)]))  # by a quarter, clockwise
    assert leaning["roll"][1] == pytest.approx(90, abs=5)


def test_a_still_face_moves_by_less_than_a_third_of_what_counts():
    """The same face at other places of the picture, under noise of two grey levels."""
    draw, picture = np.random.default_rng(0), astronaut().astype(float)
    places = [np.roll(picture, draw.integers(-6, 7, 2), axis=(0, 1)) for _ in range(24)]
    frames = [np.clip(place + draw.normal(0, 2, place.shape), 0, 255).round().astype(np.uint8) for place in places]
    for name, values in gestures(detected(frames)).items():
        assert values.std() < GESTURES[name].least / 3, name


@needs_clips
def test_a_clip_against_itself_gains_1():
    found = following(clip("p043__00")[1], detected(clip("p043__00")[0]))
    assert all(each["counts"] for each in found.values())
    for each in found.values():
        assert (each["correlation"], each["gain"]) == (pytest.approx(1), pytest.approx(1))


@needs_clips
def test_one_frame_throughout_gains_0():
    frames, driving = clip("p043__00")
    for each in following(driving, detected(frames[:1].repeat(len(frames), axis=0))).values():
        assert each["counts"]
        assert (each["correlation"], each["gain"]) == (0, 0)


@needs_clips
def test_a_mouth_that_is_held_still_by_repeating_frames_hardly_gains_and_the_head_does():
    """Frames whose mouth is open as in the median stand in for those that follow, until the next such one."""
    frames, driving = clip("p086__02")
    opening = gestures(driving)["mouth"]
    kept = np.abs(opening - np.median(opening)) < GESTURES["mouth"].least / 2
    last = np.maximum.accumulate(np.where(kept, np.arange(len(frames)), kept.argmax()))
    assert len(set(last)) > 8
    found = following(driving, detected(frames[last]))
    assert found["mouth"]["counts"]
    assert abs(found["mouth"]["gain"]) < 0.1
    assert found["yaw"]["gain"] > 0.7


@needs_clips
def test_a_mirrored_clip_gains_1_or_minus_1():
    """Medians over three clips that do everything: two meshes of one face differ a little."""
    gains = {name: [] for name in GESTURES}
    for name in ("p043__00", "p043__02", "p002__00"):
        frames, driving = clip(name)
        for gesture, each in following(driving, detected(frames[:, :, ::-1])).items():
            gains[gesture] += [] if each["gain"] is None else [each["gain"]]
    for gesture, found in gains.items():
        assert len(found) >= 2
        assert np.median(found) == pytest.approx(-1 if gesture in SWAPPED else 1, abs=0.12), gesture


# Opening it


def test_it_is_not_for_the_detector_option():
    assert isinstance(open_detector(MeshDetectorChoice()), FaceMesh)
    with pytest.raises(InputError, match="--detector mesh: not one of faces, face-alignment, bodies, none"):
        open_detector(DetectorChoice("mesh"))


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(mediapipe_models.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"gestures by the face mesh needs the package .*'mtanimate\[mediapipe\]'"):
        FaceMesh()
