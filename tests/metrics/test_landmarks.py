"""AKD, MKR, AED and their like, against loops written from the definitions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from mtanimate.metrics.measures import (
    descriptor_distance,
    field_descriptor_distance,
    field_keypoint_distance,
    field_missing_keypoints,
    jitter,
    keypoint_distance,
    missing_keypoints,
    movement_distance,
    normalised,
    pose_distance,
    similarity,
)

COORDINATE = st.floats(-500, 500, width=32)
OF_TWO = {
    keypoint_distance: "landmarks",
    missing_keypoints: "landmarks",
    field_keypoint_distance: "landmarks",
    field_missing_keypoints: "landmarks",
    pose_distance: "landmarks",
    movement_distance: "landmarks",
    descriptor_distance: "descriptors",
    field_descriptor_distance: "descriptors",
    similarity: "descriptors",
}


def landmarks(seed, frames=5, points=7, missing=0.2):
    """(frames, points, 2) with gaps; the last frame has nothing."""
    draw = np.random.default_rng(seed)
    found = draw.uniform(0, 256, (frames, points, 2))
    found[draw.random((frames, points)) < missing] = np.nan
    found[-1] = np.nan
    return found


def descriptors(seed, frames=5, size=16):
    found = np.random.default_rng(seed).normal(size=(frames, size))
    found[seed % frames] = np.nan
    return found


def finite(point):
    return all(map(math.isfinite, point))


def loop_akd(truth, generated):
    for one, other in zip(truth.tolist(), generated.tolist(), strict=True):
        distances = [math.dist(a, b) for a, b in zip(one, other, strict=True) if finite(a) and finite(b)]
        yield math.fsum(distances), len(distances)


def loop_mkr(truth, generated):
    for one, other in zip(truth.tolist(), generated.tolist(), strict=True):
        kept = [finite(b) for a, b in zip(one, other, strict=True) if finite(a)]
        yield kept.count(False), len(kept)


def loop_aed(truth, generated):
    for one, other in zip(truth.tolist(), generated.tolist(), strict=True):
        yield (math.dist(one, other), 1) if finite(one) and finite(other) else (0, 0)


def loop_field_akd(truth, generated):
    for one, other in zip(truth.tolist(), generated.tolist(), strict=True):
        pairs = [(a, b) for a, b in zip(one, other, strict=True) if finite(a) and finite(b)]
        along = [abs(u - v) for a, b in pairs for u, v in zip(a, b, strict=True)]
        yield (math.fsum(along) / len(along), 1) if along else (0, 0)


def loop_field_mkr(truth, generated):
    for lost, there in loop_mkr(truth, generated):
        yield (lost / there, 1) if there else (0, 0)


def loop_field_aed(truth, generated):
    for distance, count in loop_aed(truth, generated):
        yield distance**2, count


def loop_similarity(source, generated):
    for one, other in zip(source.tolist(), generated.tolist(), strict=True):
        dot = math.fsum(a * b for a, b in zip(one, other, strict=True))
        cosine = dot / (math.hypot(*one) * math.hypot(*other))
        yield (cosine, 1) if finite(one) and finite(other) else (0, 0)


def shape_of(points):
    """About their mean, in units of their root mean square distance from it."""
    middle = [math.fsum(axis) / len(points) for axis in zip(*points, strict=True)]
    size = math.sqrt(math.fsum(math.dist(point, middle) ** 2 for point in points) / len(points))
    return [[(value - m) / size for value, m in zip(point, middle, strict=True)] for point in points]


def loop_pose(driving, generated):
    for one, other in zip(driving.tolist(), generated.tolist(), strict=True):
        if not all(map(finite, one + other)):
            yield 0, 0
            continue
        shapes = zip(shape_of(one), shape_of(other), strict=True)
        yield math.fsum(math.dist(a, b) for a, b in shapes) / len(one), 1


def loop_movement(driving, generated):
    first, second = shape_of(driving[0].tolist()), shape_of(generated[0].tolist())
    for one, other in zip(driving.tolist(), generated.tolist(), strict=True):
        if not all(map(finite, one + other + first + second)):
            yield 0, 0
            continue
        points = zip(shape_of(one), first, shape_of(other), second, strict=True)
        lengths = [math.hypot(*(a - b - c + d for a, b, c, d in zip(*each, strict=True))) for each in points]
        yield math.fsum(lengths) / len(lengths), 1


def loop_jitter(found):
    frames = found.tolist()
    for before, now, after in zip(frames, frames[1:], frames[2:], strict=False):
        lengths = [
            math.hypot(*(c - 2 * b + a for a, b, c in zip(*point, strict=True)))
            for point in zip(before, now, after, strict=True)
        ]
        length = math.fsum(lengths) / len(lengths)
        yield (length, 1) if math.isfinite(length) else (0, 0)


LOOPS = {
    keypoint_distance: loop_akd,
    missing_keypoints: loop_mkr,
    field_keypoint_distance: loop_field_akd,
    field_missing_keypoints: loop_field_mkr,
    descriptor_distance: loop_aed,
    field_descriptor_distance: loop_field_aed,
    similarity: loop_similarity,
    pose_distance: loop_pose,
    movement_distance: loop_movement,
}


def made(function, seed):
    if OF_TWO[function] == "descriptors":
        return descriptors(seed)
    return landmarks(seed, frames=8, missing=0.2 if "keypoint" in function.__name__ else 0.01)


@pytest.mark.parametrize("function", LOOPS, ids=lambda function: function.__name__)
def test_of_two(function):
    counted = []
    for seed in range(10):
        first, second = made(function, 2 * seed), made(function, 2 * seed + 1)
        sums, counts = function(first, second)
        expected = list(LOOPS[function](first, second))
        assert counts.tolist() == [count for _, count in expected]
        assert sums.tolist() == pytest.approx([value for value, _ in expected], abs=1e-9)
        counted += counts.tolist()
    assert 0 < counted.count(max(counted)) < len(counted)


def test_movement_is_counted_from_a_whole_first_frame():
    one, other = landmarks(0, missing=0), landmarks(1, missing=0)
    sums, counts = movement_distance(one, other)
    assert sums[0] == 0
    assert counts.tolist() == [1, 1, 1, 1, 0]
    one[0, 3] = np.nan
    assert movement_distance(one, other)[1].sum() == 0


def test_jitter():
    for seed in range(10):
        found = landmarks(seed, frames=12, missing=0.01)
        sums, counts = jitter(found)
        expected = list(loop_jitter(found))
        assert counts.tolist() == [count for _, count in expected]
        assert sums.tolist() == pytest.approx([value for value, _ in expected], abs=1e-9)
        assert 0 < counts.sum() < counts.size == 10


def test_jitter_of_too_few_frames_counts_nothing():
    for frames in (1, 2):
        sums, counts = jitter(np.ones((frames, 3, 2)))
        assert sums.shape == counts.shape == (0,)


@st.composite
def with_gaps(draw, dimensions):
    """Two arrays of one shape, each with NaN in places."""
    shape = draw(array_shapes(min_dims=dimensions, max_dims=dimensions, max_side=5))
    shape = (*shape[:-1], 2) if dimensions == 3 else shape
    elements = st.one_of(COORDINATE, st.just(math.nan))
    return draw(arrays(np.float64, shape, elements=elements)), draw(arrays(np.float64, shape, elements=elements))


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@given(points=with_gaps(3), features=with_gaps(2))
def test_sums_and_counts_are_numbers_whatever_is_missing(points, features):
    for function, of in OF_TWO.items():
        pair = points if of == "landmarks" else features
        sums, counts = function(*pair)
        assert sums.shape == counts.shape == (len(pair[0]),)
        assert np.isfinite(sums).all()
        assert counts.dtype.kind == "i"
        assert (counts >= 0).all()
        assert (sums[counts == 0] == 0).all()
    sums, counts = jitter(points[0])
    assert sums.shape == counts.shape == (max(0, len(points[0]) - 2),)
    assert np.isfinite(sums).all()


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@given(points=with_gaps(3), features=with_gaps(2))
def test_which_of_two_is_the_truth_matters_to_missing_keypoints_alone(points, features):
    for function, of in OF_TWO.items():
        if function not in (missing_keypoints, field_missing_keypoints):
            first, second = points if of == "landmarks" else features
            for one, other in zip(function(first, second), function(second, first), strict=True):
                np.testing.assert_allclose(one, other, atol=1e-9)
    there, nowhere = np.zeros((1, 4, 2)), np.full((1, 4, 2), np.nan)
    assert [x.tolist() for x in missing_keypoints(there, nowhere)] == [[4], [4]]
    assert [x.tolist() for x in missing_keypoints(nowhere, there)] == [[0], [0]]


@given(seed=st.integers(0, 99), dx=COORDINATE, dy=COORDINATE)
def test_akd_of_a_shift_is_its_length(seed, dx, dy):
    truth = landmarks(seed)
    shifted = truth + np.array([dx, dy])
    sums, counts = keypoint_distance(truth, shifted)
    np.testing.assert_allclose(sums, counts * math.hypot(dx, dy), atol=1e-9)
    lost, there = missing_keypoints(truth, shifted)
    assert (lost == 0).all()
    assert (there == counts).all()
    means, frames = field_keypoint_distance(truth, shifted)
    np.testing.assert_allclose(means, frames * (abs(dx) + abs(dy)) / 2, atol=1e-9)


@given(
    seed=st.integers(0, 99), dx=COORDINATE, dy=COORDINATE, size=st.floats(0.1, 10), first=st.booleans()
)  # fmt: skip
def test_place_and_size_do_not_count_in_a_pose(seed, dx, dy, size, first):
    one, other = landmarks(seed, missing=0), landmarks(seed + 100, missing=0)
    expected, counts = pose_distance(one, other)
    assert counts.tolist() == [1, 1, 1, 1, 0]
    assert (expected[:-1] > 0.01).all()
    moved = (size * one + [dx, dy], other) if first else (one, size * other + [dx, dy])
    for distance in (pose_distance, movement_distance):
        np.testing.assert_allclose(distance(*moved)[0], distance(one, other)[0], atol=1e-9)
    points = normalised(one)[:-1]
    np.testing.assert_allclose(points.mean(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(np.square(points).sum(axis=2).mean(axis=1), 1)


@given(seed=st.integers(0, 99), frames=st.integers(3, 8))
def test_jitter_of_steady_motion_is_0(seed, frames):
    start, speed = np.random.default_rng(seed).uniform(-50, 50, (2, 6, 2))
    found = start + np.arange(frames)[:, None, None] * speed
    sums, counts = jitter(found)
    np.testing.assert_allclose(sums, 0, atol=1e-9)
    assert counts.sum() == frames - 2
    found[1] += [3, 4]
    assert jitter(found)[0][0] == pytest.approx(10)


@given(seed=st.integers(0, 99), size=st.floats(0.01, 100))
def test_length_does_not_count_in_similarity(seed, size):
    one, other = descriptors(seed), descriptors(seed + 1)
    np.testing.assert_allclose(similarity(one, size * other)[0], similarity(one, other)[0], atol=1e-9)
    same, counts = similarity(one, size * one)
    np.testing.assert_allclose(same, counts)
    np.testing.assert_allclose(similarity(one, -one)[0], -counts)
