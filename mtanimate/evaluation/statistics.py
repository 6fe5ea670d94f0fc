"""Means over videos, and how sure they are."""

import statistics
from collections.abc import Sequence

import numpy as np

RESAMPLES = 10_000
METHOD = (
    f"95 % percentile bootstrap, {RESAMPLES} resamples of identities with all their videos (videos of one person are "
    "not independent), seed 0"
)

PAIRS_METHOD = (
    f"95 % percentile bootstrap, {RESAMPLES} resamples of all people, sources and drivers, seed 0: a pair counts as "
    "often as its source was drawn times as often as its driver was (pairs that share a person are not independent)"
)


def mean(values: Sequence[float | None]) -> float | None:
    """Of the values that there are."""
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def median(values: Sequence[float | None]) -> float | None:
    """Of the values that there are."""
    there = [value for value in values if value is not None]
    return statistics.median(there) if there else None


def interval(values: Sequence[float | None], identities: Sequence[str]) -> tuple[float, float] | None:
    """The 95 % bootstrap interval of `mean`: a value and an identity a video; None for fewer than two identities."""
    there = [(value, identity) for value, identity in zip(values, identities, strict=True) if value is not None]
    names = sorted({identity for _, identity in there})
    if len(names) < 2:
        return None
    sums, counts = np.zeros(len(names)), np.zeros(len(names))
    for value, identity in there:
        sums[names.index(identity)] += value
        counts[names.index(identity)] += 1
    drawn = np.random.default_rng(0).integers(len(names), size=(RESAMPLES, len(names)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def median_interval(values: Sequence[float | None], pairs: Sequence[tuple[str, str]]) -> tuple[float, float] | None:
    """The 95 % bootstrap interval of `median`: a value and two people a pair; None for fewer than two such pairs.

    As PAIRS_METHOD says: Owen, The pigeonhole bootstrap, 2007.
    """
    there = sorted((value, pair) for value, pair in zip(values, pairs, strict=True) if value is not None)
    if len({pair for _, pair in there}) < 2:
        return None
    ranked = np.array([value for value, _ in there])
    names = sorted({name for _, pair in there for name in pair})
    sources, drivers = ([names.index(pair[role]) for _, pair in there] for role in (0, 1))
    drawn = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), RESAMPLES)
    counts = (drawn[:, sources] * drawn[:, drivers]).cumsum(axis=1)
    counts = counts[counts[:, -1] > 0]  # where a pair is left
    half = counts[:, -1:] / 2
    medians = (ranked[(counts >= half).argmax(axis=1)] + ranked[(counts > half).argmax(axis=1)]) / 2
    low, high = np.percentile(medians, [2.5, 97.5])
    return float(low), float(high)
