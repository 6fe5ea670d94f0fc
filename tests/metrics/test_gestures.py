"""Yaw, pitch and mouth of a face made of points that move as told."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtanimate.metrics.gestures import landmark_following, landmark_gestures

# Eyes at height 0, 40 apart; the nose's tip 25 below, the mouth's corners 45 below; x, y, depth.
FACE = np.zeros((68, 3))
FACE[36:42], FACE[42:48], FACE[30] = (-20, 0, 0), (20, 0, 0), (0, 25, 20)
FACE[48], FACE[54] = (-12, 45, 0), (12, 45, 0)
FACE[60:68] = (0, 45, 0)


def face(yaw=0.0, pitch=0.0, mouth=0.0):
    """(68, 2): the head turned to the picture's right and nodding down, in radians; the lips apart, in pixels."""
    points = FACE.copy()
    points[65:68, 1] += mouth
    x, y, z = points.T
    x, z = x * np.cos(yaw) + z * np.sin(yaw), z * np.cos(yaw) - x * np.sin(yaw)
    y = y * np.cos(pitch) + z * np.sin(pitch)
    return np.stack([x, y], axis=1)


def test_a_face_at_rest():
    found = landmark_gestures(face()[None])
    unit = np.sqrt(40 * 45)
    assert found["yaw"] == pytest.approx(0)
    assert found["pitch"] == pytest.approx(25 / unit)
    assert found["mouth"] == pytest.approx(0)


@pytest.mark.parametrize("name", ["yaw", "pitch", "mouth"])
def test_each_says_its_own_movement_in_its_order(name):
    amounts = np.linspace(0, 8, 9) if name == "mouth" else np.linspace(-0.4, 0.4, 9)
    found = landmark_gestures(np.stack([face(**{name: amount}) for amount in amounts]))
    assert (np.diff(found[name]) > 0.01).all()
    others = [found[other] for other in found if other != name]
    assert max(np.ptp(other) for other in others) < 0.2 * np.ptp(found[name])


@given(
    size=st.floats(0.3, 5),
    roll=st.floats(-3, 3),
    shift=st.tuples(st.floats(-200, 200), st.floats(-200, 200)),
    yaw=st.floats(-0.5, 0.5),
    mouth=st.floats(0, 10),
)
def test_place_size_and_roll_do_not_count(size, roll, shift, yaw, mouth):
    points = face(yaw=yaw, mouth=mouth)
    turn = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    moved = size * points @ turn.T + shift
    for before, after in zip(
        landmark_gestures(points[None]).values(), landmark_gestures(moved[None]).values(), strict=True
    ):
        assert after == pytest.approx(before, abs=1e-6)


def clip(yaws, mouths):
    return np.stack([face(yaw=yaw, mouth=mouth) for yaw, mouth in zip(yaws, mouths, strict=True)])


def test_following():
    time = np.linspace(0, 6, 60)
    driving = clip(0.3 * np.sin(time), 4 + 4 * np.sin(3 * time))
    follows = clip(0.1 + 0.15 * np.sin(time), 2 + np.sin(3 * time))
    found = landmark_following(driving, 2 * follows + 7)
    assert found["yaw"] == (pytest.approx(1, abs=0.01), 1)
    assert found["mouth"] == (pytest.approx(1, abs=0.01), 1)
    assert found["pitch"] == (0, 0)  # it does not nod

    against = landmark_following(driving, clip(-0.3 * np.sin(time), 4 + 4 * np.cos(3 * time)))
    assert against["yaw"][0] == pytest.approx(-1, abs=0.01)
    assert abs(against["mouth"][0]) < 0.1

    frozen = np.repeat(driving[:1], 60, axis=0)
    assert landmark_following(driving, frozen)["yaw"] == (0, 1)
    assert landmark_following(frozen, driving)["yaw"] == (0, 0)


def test_frames_without_a_face_do_not_count():
    time = np.linspace(0, 6, 60)
    driving = clip(0.3 * np.sin(time), 4 + 4 * np.sin(3 * time))
    lost = driving.copy()
    lost[10:20] = np.nan
    assert landmark_following(driving, lost)["yaw"] == (pytest.approx(1), 1)
    assert landmark_following(driving[:8], driving[:8])["yaw"] == (0, 0)  # too few to say
