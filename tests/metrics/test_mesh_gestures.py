"""Gestures of a mesh that moves as told, and how much of them another one does."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtanimate.metrics.gestures import GESTURES, angles, following, gestures

ANGLES = ("yaw", "pitch", "roll")
# A head of points all over an ellipsoid, whose front is towards the camera, at negative z; and the points that speak.
_draw = np.random.default_rng(0)
FACE = _draw.normal(size=(478, 3))
FACE *= (60, 80, 60) / np.linalg.norm(FACE, axis=1, keepdims=True)
PLACES = {
    33: (-45, -20),
    133: (-15, -20),
    263: (45, -20),
    362: (15, -20),  # the eyes' corners
    159: (-30, -25),
    158: (-25, -25),
    160: (-35, -25),
    145: (-30, -15),
    153: (-25, -15),
    144: (-35, -15),
    386: (30, -25),
    385: (25, -25),
    387: (35, -25),
    374: (30, -15),
    380: (25, -15),
    373: (35, -15),
    468: (-30, -20),
    473: (30, -20),
    105: (-45, -40),
    334: (45, -40),  # irises, brows
    13: (0, 35),
    14: (0, 35),
    61: (-22, 35),
    291: (22, 35),  # lips
}
for _point, (_x, _y) in PLACES.items():
    FACE[_point] = (_x, _y, -50)
# Which points move which way by one pixel, and by how much that moves the gesture, at rest.
MOVES = {
    "mouth": ({14: (0, 1)}, 1 / 90),
    "width": ({61: (-1, 0), 291: (1, 0)}, 2 / 90),
    "eyes": (dict.fromkeys((159, 158, 160, 386, 385, 387), (0, -1)), 1 / 30),
    "gaze": ({468: (1, 0), 473: (1, 0)}, 1 / 30),
    "brows": ({105: (0, -1), 334: (0, -1)}, 1 / 90),
}
MIRRORED = (-1, 1, 1)  # x
SWAPPED = {33: 263, 133: 362, 159: 386, 158: 385, 160: 387, 145: 374, 153: 380, 144: 373, 468: 473, 105: 334, 61: 291}
SWAPPED |= {127: 356, 234: 454}


def rotation(yaw=0.0, pitch=0.0, roll=0.0):
    """In degrees: turned to the picture's right, nodding, leaning clockwise; about x, then y, then z."""
    (a, b, c), (u, v, w) = np.cos(np.radians([pitch, -yaw, roll])), np.sin(np.radians([pitch, -yaw, roll]))
    about_x = np.array([[1, 0, 0], [0, a, -u], [0, u, a]])
    about_y = np.array([[b, 0, v], [0, 1, 0], [-v, 0, b]])
    about_z = np.array([[c, -w, 0], [w, c, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def face(**amounts):
    """(478, 3): angles in degrees; the others in pixels."""
    points = FACE.copy()
    for name in amounts.keys() - set(ANGLES):
        for point, way in MOVES[name][0].items():
            points[point, :2] += amounts[name] * np.array(way)
    return points @ rotation(**{name: amounts.get(name, 0.0) for name in ANGLES}).T


def clip(frames=60, scale=1.0, **amounts):
    """(T, 478, 3): each gesture as a wave of its own of this amplitude; lips are apart at rest, and never meet."""
    time = np.linspace(0, 12, frames)
    waves = {name: np.sin((1 + 0.37 * index) * time) for index, name in enumerate(GESTURES)}
    rest = {"mouth": 15.0}
    series = {name: rest.get(name, 0.0) + scale * size * waves[name] for name, size in amounts.items()}
    return np.stack([face(**{name: values[t] for name, values in series.items()}) for t in range(frames)])


ALL = {"yaw": 15, "pitch": 10, "roll": 10, "mouth": 8, "width": 4, "eyes": 3, "gaze": 5, "brows": 5}


def mirrored(mesh):
    """What the mesh of the mirrored picture is."""
    points = mesh * MIRRORED
    for one, other in SWAPPED.items():
        points[:, [one, other]] = points[:, [other, one]]
    return points


@given(yaw=st.floats(-60, 60), pitch=st.floats(-60, 60), roll=st.floats(-60, 60))
def test_known_angles_are_found(yaw, pitch, roll):
    found = angles(np.stack([face(), face(yaw=yaw, pitch=pitch, roll=roll)]))
    assert found[0] == pytest.approx([0, 0, 0], abs=1e-6)
    assert found[1] == pytest.approx([yaw, pitch, roll], abs=1e-6)


def test_which_way_is_positive():
    """The nose goes to the picture's right and down; the chin, where the head leans clockwise, to the left."""
    nose, chin = np.array([0, 0, -60]), np.array([0, 80, 0])
    assert (rotation(yaw=10) @ nose)[0] > 5
    assert (rotation(pitch=10) @ nose)[1] > 5
    assert (rotation(roll=10) @ chin)[0] < -5


@pytest.mark.parametrize("name", MOVES)
def test_known_amounts_are_found(name):
    amounts = np.array([0, 0.5, 1, 3])
    found = gestures(np.stack([face(**{name: amount}) for amount in amounts]))
    assert found[name] - found[name][0] == pytest.approx(MOVES[name][1] * amounts, abs=1e-9)
    for other in found.keys() - {name}:
        assert np.ptp(found[other]) < 1e-9, other


@given(
    size=st.floats(0.3, 5),
    shift=st.tuples(*[st.floats(-200, 200)] * 3),
    yaw=st.floats(-60, 60),
    roll=st.floats(-180, 180),
    amounts=st.fixed_dictionaries({name: st.floats(0, 5) for name in MOVES}),
)
def test_expressions_are_the_same_whatever_the_heads_pose(size, shift, yaw, roll, amounts):
    moved = size * face(yaw=yaw, roll=roll, **amounts) + shift
    before, after = gestures(face(**amounts)[None]), gestures(moved[None])
    for name in MOVES:
        assert after[name] == pytest.approx(before[name], abs=1e-6)


def test_a_clip_follows_itself_wholly():
    found = following(clip(**ALL), clip(**ALL))
    assert found.keys() == GESTURES.keys()
    for name, each in found.items():
        assert each["counts"]
        assert (each["correlation"], each["gain"]) == (pytest.approx(1), pytest.approx(1)), name
        assert each["driving"] > GESTURES[name].least


@pytest.mark.parametrize("scale", [0.25, 0.5, 1.5])
def test_the_gain_is_how_much_of_it_is_done(scale):
    """At any size and place; a correlation does not tell."""
    found = following(clip(**ALL), 2 * clip(scale=scale, **ALL) + 9)
    for name, each in found.items():
        assert each["correlation"] == pytest.approx(1, abs=1e-3), name
        assert each["gain"] == pytest.approx(scale, rel=0.02), name


def test_noise_lowers_the_correlation_and_leaves_the_gain():
    noise = np.random.default_rng(1).normal(0, 2, (600, 478, 3)) * [[[1, 1, 0]]]
    each = following(clip(600, yaw=15), clip(600, scale=0.5, yaw=15) + noise)["yaw"]
    assert each["gain"] == pytest.approx(0.5, abs=0.02)
    assert 0.9 < each["correlation"] < 0.999


def test_a_face_that_stands_still_has_no_gain():
    still = np.repeat(clip(**ALL)[:1], 60, axis=0)
    for each in following(clip(**ALL), still).values():
        assert each["counts"]
        assert (each["correlation"], each["gain"]) == (0, 0)
    for each in following(still, clip(**ALL)).values():
        assert each == {"driving": pytest.approx(0, abs=1e-9), "counts": False, "correlation": None, "gain": None}


def test_a_mouth_that_is_held_still_has_no_gain_and_the_head_its_own():
    found = following(clip(**ALL), clip(**(ALL | {"mouth": 0})))
    assert (found["mouth"]["correlation"], found["mouth"]["gain"]) == (pytest.approx(0, abs=1e-6),) * 2
    assert found["yaw"]["gain"] == pytest.approx(1)


def test_a_mirrored_clip():
    found = following(clip(**ALL), mirrored(clip(**ALL)))
    for name, each in found.items():
        sign = -1 if name in ("yaw", "roll", "gaze") else 1
        assert (each["correlation"], each["gain"]) == (pytest.approx(sign, abs=0.01),) * 2, name


def test_a_driver_counts_from_the_least_that_can_be_seen():
    wave = np.sin(np.linspace(0, 20 * np.pi, 1000, endpoint=False))
    for share in (0.99, 1.01):
        opening = 10 + 90 * share * GESTURES["mouth"].least * np.sqrt(2) * wave
        driving = np.stack([face(mouth=amount) for amount in opening])
        assert following(driving, driving)["mouth"]["counts"] == (share > 1)


def lost(mesh, frames):
    gone = mesh.copy()
    gone[frames] = np.nan
    return gone


def test_frames_that_show_one_face_only_do_not_count():
    driving = clip(**ALL)
    for one, other in ((lost(driving, slice(0, 20)), driving), (driving, lost(driving, slice(0, 20)))):
        for each in following(one, other).values():
            assert each["gain"] == pytest.approx(1)


@pytest.mark.parametrize("gone", [slice(29, 60), slice(9, 60), slice(0, 60)])
def test_a_result_that_hardly_shows_a_face_is_missing(gone):
    for each in following(clip(**ALL), lost(clip(**ALL), gone)).values():
        assert each["counts"]
        assert each["correlation"] is each["gain"] is None


def test_a_gesture_that_is_done_while_the_result_is_lost_is_missing():
    opening = np.r_[np.zeros(40), 10 * np.abs(np.sin(np.arange(20)))]
    driving = np.stack([face(mouth=amount) for amount in opening])
    each = following(driving, lost(driving, slice(40, 60)))["mouth"]
    assert each["counts"]
    assert each["gain"] is None


def test_too_few_frames_say_nothing():
    nothing = {"driving": None, "counts": False, "correlation": None, "gain": None}
    for driving in (clip(**ALL)[:9], lost(clip(**ALL), slice(9, 60)), lost(clip(**ALL), slice(0, 60))):
        assert list(following(driving, driving).values()) == [nothing] * len(GESTURES)
