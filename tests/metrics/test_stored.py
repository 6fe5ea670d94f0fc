"""What other programs found, from their files."""

import json

import numpy as np
import pytest

from mtanimate.errors import InputError
from mtanimate.metrics.detector_pool import DetectorChoice, open_detector
from mtanimate.metrics.detectors import Frames, OpenPose, StoredFeatures

POINTS = 25
CLIP = "people/walk #1"


def frames(numbers, clip=CLIP, generated=False):
    return Frames(np.zeros((len(numbers), 8, 8, 3), np.uint8), clip, numbers, generated)


def body(seed, confidence=0.8, points=POINTS):
    """x, y and confidence of one person's keypoints."""
    found = np.random.default_rng(seed).uniform(0, 256, (points, 3)).round(3)
    found[:, 2] = confidence
    return found


def document(*people):
    """As OpenPose 1.7 writes it."""
    rest = {"face_keypoints_2d": [], "hand_left_keypoints_2d": [], "pose_keypoints_3d": []}
    return json.dumps({
        "version": 1.3,
        "people": [{"person_id": [-1], "pose_keypoints_2d": person.ravel().tolist(), **rest} for person in people],
    })  # fmt: skip


def write(folder, *documents, clip=CLIP, side="truth"):
    """A clip's files, a frame each; returns them."""
    files = [folder / side / clip / f"{number:07d}_keypoints.json" for number in range(len(documents))]
    for file, text in zip(files, documents, strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
    return files


def test_landmarks_are_those_of_the_frames(tmp_path):
    bodies = [body(seed) for seed in range(12)]
    write(tmp_path, *map(document, bodies))
    write(tmp_path, *map(document, reversed(bodies)), side="generated")
    detector = OpenPose(tmp_path)
    assert detector.points == POINTS
    assert "25 keypoints" in detector.name
    for numbers in (range(12), range(3, 11, 4)):
        found = detector.landmarks(frames(numbers))
        np.testing.assert_array_equal(found, [bodies[number][:, :2] for number in numbers])
        found = detector.landmarks(frames(numbers, generated=True))
        np.testing.assert_array_equal(found, [bodies[11 - number][:, :2] for number in numbers])


def test_the_surest_of_several_people(tmp_path):
    sure, unsure, half = body(1, 0.6), body(2, 0.5), body(3, 0.9)
    half[::2, 2] = 0
    write(tmp_path, document(unsure, sure, half), document(sure, unsure))
    found = OpenPose(tmp_path).landmarks(frames(range(2)))
    np.testing.assert_array_equal(found, [sure[:, :2]] * 2)


def test_a_keypoint_of_no_confidence_is_missing(tmp_path):
    person = body(0)
    person[[0, 7]] = 0
    write(tmp_path, document(person), document())
    first, second = OpenPose(tmp_path).landmarks(frames(range(2)))
    assert np.flatnonzero(np.isnan(first).all(axis=1)).tolist() == [0, 7]
    assert np.isnan(first).sum() == 4
    assert second.shape == (POINTS, 2)
    assert np.isnan(second).all()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "{}", '{"people": 3}', '{"people": [1]}', '{"people": [{}]}', '{"people": ["ab"]}',
     '{"people": [{"pose_keypoints_2d": [1, 2]}]}', '{"people": [{"pose_keypoints_2d": ["a", 1, 1]}]}',
     '{"people": [{"pose_keypoints_2d": null}]}', '{"people": [{"pose_keypoints_2d": [[1, 2], [3]]}]}'],
)  # fmt: skip
def test_a_broken_file_is_named(tmp_path, text):
    file = write(tmp_path, document(body(0)), text, document(body(1)))[1]
    detector = OpenPose(tmp_path)
    assert detector.landmarks(frames(range(0, 3, 2))).shape == (2, POINTS, 2)
    with pytest.raises(InputError, match="is not OpenPose's JSON") as caught:
        detector.landmarks(frames(range(3)))
    assert str(file) in str(caught.value)


def test_a_file_that_is_no_text(tmp_path):
    file = write(tmp_path, document(body(0)), "")[1]
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is not OpenPose's JSON"):
        OpenPose(tmp_path).landmarks(frames(range(2)))


def test_too_few_files(tmp_path):
    write(tmp_path, document(body(0)), document(body(1)))
    detector = OpenPose(tmp_path)
    for wrong in (frames(range(3)), frames(range(2, 3)), frames(range(2), generated=True), frames(range(1), "other")):
        with pytest.raises(InputError, match=r"has [02] \*_keypoints.json: no file for frame [012]"):
            detector.landmarks(wrong)


def test_another_number_of_keypoints(tmp_path):
    write(tmp_path, document(body(0)), document(body(1, points=18)))
    with pytest.raises(InputError, match=r"0000001_keypoints.json has 18 keypoints, others have 25"):
        OpenPose(tmp_path).landmarks(frames(range(2)))


def test_how_many_keypoints_where_the_first_clip_is_empty(tmp_path):
    for clip in "abcdefgh":
        write(tmp_path, document(), document(), clip=clip)
    write(tmp_path, document(), document(body(0, points=18)), clip="last")
    detector = OpenPose(tmp_path)
    assert detector.points == 18
    assert detector.landmarks(frames(range(2), "a")).shape == (2, 18, 2)
    assert np.isfinite(detector.landmarks(frames(range(2), "last"))[1]).all()


def test_nobody_anywhere(tmp_path):
    write(tmp_path, document(), document())
    assert OpenPose(tmp_path).landmarks(frames(range(2))).shape == (2, 25, 2)


def test_no_files(tmp_path):
    with pytest.raises(InputError, match=r"--openpose .*none: no such folder"):
        OpenPose(tmp_path / "none")
    with pytest.raises(InputError, match=r"no \*_keypoints.json below"):
        OpenPose(tmp_path)


# Features


def write_features(folder, features, side="truth"):
    file = folder / side / f"{CLIP}.npy"
    file.parent.mkdir(parents=True, exist_ok=True)
    np.save(file, features)
    return file


@pytest.fixture
def detector(tmp_path):
    """Features of width 8 below tmp_path, landmarks of OpenPose's files."""
    write(tmp_path / "pose", document(body(0)))
    write_features(tmp_path, np.zeros((9, 8)))
    return open_detector(DetectorChoice("none", openpose=tmp_path / "pose", features=tmp_path))


def test_features_are_rows_of_files(tmp_path, detector):
    features = np.random.default_rng(0).normal(size=(9, 8)).astype(np.float32)
    features[4] = np.nan
    write_features(tmp_path, features)
    write_features(tmp_path, features + 1, "generated")
    assert isinstance(detector, StoredFeatures)
    assert detector.points == POINTS
    assert detector.identity
    np.testing.assert_array_equal(detector.landmarks(frames(range(1)))[0], body(0)[:, :2])
    for numbers in (range(9), range(2, 9, 3)):
        for generated in (False, True):
            found = detector.descriptors(frames(numbers, generated=generated), np.empty(0))
            assert found.dtype == np.float64
            np.testing.assert_array_equal(found, features[list(numbers)] + generated)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((5, 8), "has 5 rows: none for frame 5"),
        ((0, 8), "has 0 rows: none for frame 5"),
        ((9, 16), "has 16 numbers a row, others have 8"),
        ((9, 1), "has 1 numbers a row, others have 8"),
        ((9,), "expected a row of numbers a frame"),
        ((), "expected a row of numbers a frame"),
        ((9, 8, 1), "expected a row of numbers a frame"),
    ],
)
def test_features_of_another_shape(tmp_path, detector, shape, said):
    file = write_features(tmp_path, np.zeros(shape), "generated")
    with pytest.raises(InputError, match=said) as caught:
        detector.descriptors(frames(range(6), generated=True), np.empty(0))
    assert str(file) in str(caught.value)


class Trap:
    """A pickle that tells when it is opened."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was opened",)


def test_features_that_are_no_numbers(tmp_path, detector):
    write_features(tmp_path, np.array([[Trap()]] * 6))
    with pytest.raises(InputError, match="cannot be read as features"):
        detector.descriptors(frames(range(6)), np.empty(0))
    for wrong in (np.full((6, 8), "a"), np.zeros((6, 8), "f4,f4"), np.ones((6, 8), complex)):
        write_features(tmp_path, wrong)
        with pytest.raises(InputError, match="expected a row of numbers a frame"):
            detector.descriptors(frames(range(6)), np.empty(0))


def test_a_broken_file_of_features(tmp_path, detector):
    file = write_features(tmp_path, np.zeros((6, 8)))
    whole = file.read_bytes()
    with file.with_suffix(".npz").open("wb") as archive:
        np.savez(archive, np.zeros((6, 8)))
    for content in (b"", whole[:40], whole[:-1], b"text", file.with_suffix(".npz").read_bytes()):
        file.write_bytes(content)
        with pytest.raises(InputError, match="cannot be read as features"):
            detector.descriptors(frames(range(6)), np.empty(0))


def test_missing_features(tmp_path, detector):
    with pytest.raises(InputError, match="cannot be read as features"):
        detector.descriptors(frames(range(6), generated=True), np.empty(0))
    with pytest.raises(InputError, match=r"--features .*none: no such folder"):
        StoredFeatures(tmp_path / "none", detector)
    with pytest.raises(InputError, match=r"--features .*pose: no .npy below its folder truth"):
        StoredFeatures(tmp_path / "pose", detector)
