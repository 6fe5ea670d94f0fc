"""Means over videos, and intervals that hold the truth as often as they say."""

import numpy as np
import pytest

from mtanimate.evaluation.summary import interval, mean, median_interval

TRUTH = 3.0


def data_set(seed, people=40, spread=1.0):
    """A value a video, one to six videos a person; people differ by `spread`, a person's videos by half of 1."""
    draw = np.random.default_rng(seed)
    counts = draw.integers(1, 7, people)
    persons = np.repeat(draw.normal(TRUTH, spread, people), counts)
    identities = np.repeat([f"p{number}" for number in range(people)], counts)
    return (persons + draw.normal(0, 0.5, len(persons))).tolist(), identities.tolist()


def holds(found):
    low, high = found
    return low <= TRUTH <= high


def test_mean_is_of_what_is_there():
    assert mean([1.0, None, 4.0, None]) == 2.5
    assert mean([0.0, None]) == 0
    assert mean([None, None]) is None
    assert mean([]) is None


def test_95_of_100_intervals_hold_the_true_mean():
    held = [holds(interval(*data_set(seed))) for seed in range(400)]
    assert 0.91 <= np.mean(held) <= 0.98


def test_one_persons_videos_are_not_independent():
    """As if each were somebody else, intervals are too narrow and hold the true mean too rarely."""
    held = []
    for seed in range(100):
        values, identities = data_set(seed)
        together, apart = interval(values, identities), interval(values, list(map(str, range(len(values)))))
        assert together[1] - together[0] > 1.2 * (apart[1] - apart[0])
        held.append(holds(apart))
    assert np.mean(held) < 0.85


def test_against_a_bootstrap_in_a_loop():
    values, identities = data_set(5, people=6)
    people = sorted(set(identities))
    draw = np.random.default_rng(99)
    means = []
    for _ in range(20_000):
        chosen = [people[number] for number in draw.integers(0, len(people), len(people))]
        videos = [v for person in chosen for v, whose in zip(values, identities, strict=True) if whose == person]
        means.append(sum(videos) / len(videos))
    assert interval(values, identities) == pytest.approx(np.percentile(means, [2.5, 97.5]).tolist(), abs=0.03)


def test_the_same_every_time_and_in_any_order_of_videos():
    values, identities = data_set(1)
    found = interval(values, identities)
    assert interval(values, identities) == found
    order = np.random.default_rng(0).permutation(len(values))
    shuffled = interval([values[i] for i in order], [identities[i] for i in order])
    assert shuffled == pytest.approx(found)
    low, high = found
    assert low < mean(values) < high


def test_values_that_there_are_not_do_not_count():
    values, identities = data_set(2)
    found = interval(values, identities)
    more = [None, *values, None, None]
    assert interval(more, ["p0", *identities, "nobody", "p3"]) == found


def test_fewer_than_two_identities_have_no_interval():
    assert interval([1.0, 2.0, 3.0], ["a", "a", "a"]) is None
    assert interval([1.0, None], ["a", "b"]) is None
    assert interval([None, None], ["a", "b"]) is None
    assert interval([], []) is None
    assert interval([1.0, 2.0], ["a", "b"]) == (1, 2)


def test_equal_values_have_an_interval_of_no_width():
    assert interval([0.5] * 4, ["a", "a", "b", "c"]) == (0.5, 0.5)


# Pairs of a source and a driver


def pairs_of(seed, count=40, sources=30, drivers=15):
    """A value and two people a pair; people of both roles differ by 1, pairs of the same by half of it."""
    draw = np.random.default_rng(seed)
    by_source, by_driver = draw.normal(0, 1, sources), draw.normal(0, 1, drivers)
    chosen = [divmod(int(pair), drivers) for pair in draw.choice(sources * drivers, count, replace=False)]
    values = [TRUTH + by_source[s] + by_driver[d] + draw.normal(0, 0.5) for s, d in chosen]
    return values, [(f"s{s}", f"d{d}") for s, d in chosen]


def test_95_of_100_intervals_of_pairs_hold_the_true_median():
    """Or some more: products of two draws vary more than the data."""
    assert np.mean([holds(median_interval(*pairs_of(seed))) for seed in range(100)]) >= 0.95


def test_pairs_against_a_bootstrap_in_a_loop():
    """Also where one person is a source here and a driver there."""
    values, pairs = pairs_of(3, count=9, sources=4, drivers=4)
    pairs = [(source.replace("s", "d") if source < "s2" else source, driver) for source, driver in pairs]
    people = sorted({person for pair in pairs for person in pair})
    draw = np.random.default_rng(99)
    medians = []
    for _ in range(20_000):
        drawn = [people[number] for number in draw.integers(0, len(people), len(people))]
        times = [drawn.count(source) * drawn.count(driver) for source, driver in pairs]
        if any(times):
            medians.append(np.median(np.repeat(values, times)))
    assert median_interval(values, pairs) == pytest.approx(np.percentile(medians, [2.5, 97.5]).tolist(), abs=0.05)


def test_pairs_without_a_value_do_not_count():
    values, pairs = pairs_of(4)
    found = median_interval(values, pairs)
    assert median_interval([None, *values, None], [("s1", "d1"), *pairs, ("s99", "d1")]) == found
    assert median_interval(values[::-1], pairs[::-1]) == found


def test_fewer_than_two_pairs_of_people_have_no_interval():
    assert median_interval([], []) is None
    assert median_interval([1.0, 2.0], [("a", "b"), ("a", "b")]) is None
    assert median_interval([1.0, None], [("a", "b"), ("c", "b")]) is None
    assert median_interval([1.0, 2.0], [("a", "b"), ("c", "b")]) == (1, 2)
