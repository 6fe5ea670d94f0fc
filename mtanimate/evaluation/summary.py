"""Means and medians over videos, with their confidence intervals."""

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from mtanimate.evaluation.clip_results import ENLARGED, ClipResult
from mtanimate.metrics.gestures import GESTURES
from mtanimate.metrics.measures import Metric, added

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
    """The mean of the values that are not None; None where there is none."""
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def median(values: Sequence[float | None]) -> float | None:
    """The median of the values that are not None; None where there is none."""
    there = [value for value in values if value is not None]
    return statistics.median(there) if there else None


def interval(values: Sequence[float | None], identities: Sequence[str]) -> tuple[float, float] | None:
    """The 95 % bootstrap interval of `mean`, resampled as METHOD says.

    Args:
        values: One value per video; None does not count.
        identities: One identity per video.

    Returns:
        The lower and the upper bound; None for fewer than two identities.
    """
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
    """The 95 % bootstrap interval of `median`, resampled as PAIRS_METHOD says (Owen, The pigeonhole bootstrap, 2007).

    Args:
        values: One value per pair; None does not count.
        pairs: Source and driver of each pair.

    Returns:
        The lower and the upper bound; None for fewer than two different pairs.
    """
    there = sorted((value, pair) for value, pair in zip(values, pairs, strict=True) if value is not None)
    if len({pair for _, pair in there}) < 2:
        return None
    ranked = np.array([value for value, _ in there])
    names = sorted({name for _, pair in there for name in pair})
    sources, drivers = ([names.index(pair[role]) for _, pair in there] for role in (0, 1))
    drawn = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), RESAMPLES)
    counts = (drawn[:, sources] * drawn[:, drivers]).cumsum(axis=1)
    counts = counts[counts[:, -1] > 0]  # resamples in which a pair is left
    half = counts[:, -1:] / 2
    medians = (ranked[(counts >= half).argmax(axis=1)] + ranked[(counts > half).argmax(axis=1)]) / 2
    low, high = np.percentile(medians, [2.5, 97.5])
    return float(low), float(high)


WORST = 3


def summarise(clips: Sequence[ClipResult], metrics: Sequence[Metric], reasons: dict[str, str]) -> dict[str, Any]:
    """The figures of an evaluation, as `result.json` has them.

    `metrics` are means over videos, in which every video counts alike; `over_frames` pools the frames of all videos,
    as the field's scripts do. A figure that could not be measured is None, and `reasons` says why.

    Args:
        clips: The results of its clips, at least one.
        metrics: What was measured.
        reasons: Why a metric was not measured, by its name.
    """
    generated, *others = clips[0].series
    result: dict[str, Any] = {"videos": len(clips), "frames": sum(clip.frames for clip in clips)}
    result |= figures(clips, generated, metrics)
    for series in others:
        result[series] = figures(clips, series, metrics)
    if ENLARGED in others:
        result[ENLARGED]["differences"] = differences(clips, generated, ENLARGED, metrics)
    sides = [clip.side for clip in clips if clip.side is not None]
    if sides:
        result["sides"] = [min(sides), max(sides)]
    result["worst"] = {metric.name: worst(clips, generated, metric) for metric in metrics}
    result["without_subject"] = {
        series: sum(clip.without_subject[series] for clip in clips) for series in clips[0].without_subject
    }
    if clips[0].gestures:
        result["gestures"] = gestures(clips)
    empty = [metric.name for metric in metrics if result["metrics"][metric.name] is None]
    result["reasons"] = {name: reasons.get(name, _why_empty(name)) for name in empty}
    seconds = {what: sum(clip.seconds[what] for clip in clips) for what in clips[0].seconds}
    result["milliseconds_per_frame"] = {what: 1000 * spent / result["frames"] for what, spent in seconds.items()}
    return result


def figures(clips: Sequence[ClipResult], series: str, metrics: Sequence[Metric]) -> dict[str, Any]:
    """Of each metric in one series: the mean and the median over videos, the mean's interval, and the figure over all
    frames together."""
    values = {metric.name: [clip.value(series, metric) for clip in clips] for metric in metrics}
    identities = [clip.identity for clip in clips]
    pooled: dict = {}
    for clip in clips:
        pooled = added(pooled, clip.series[series])
    return {
        "metrics": {name: mean(each) for name, each in values.items()},
        "medians": {name: median(each) for name, each in values.items()},
        "intervals": {name: interval(each, identities) for name, each in values.items()},
        "over_frames": {metric.name: metric.value(pooled.get(metric.name, (0.0, 0))) for metric in metrics},
    }


def differences(
    clips: Sequence[ClipResult], series: str, base: str, metrics: Sequence[Metric]
) -> dict[str, dict[str, Any]]:
    """Of each metric: the mean over videos of one series' figure less that of another, with its interval.

    `videos` is how many videos have both figures, and `better` in how many of them that of `series` is the better one.
    """
    found = {}
    for metric in metrics:
        pairs = [(clip.value(series, metric), clip.value(base, metric)) for clip in clips]
        apart = [None if a is None or b is None else a - b for a, b in pairs]
        there = [each for each in apart if each is not None]
        better = sum(each > 0 if metric.better == "higher" else each < 0 for each in there)
        bounds = interval(apart, [clip.identity for clip in clips])
        found[metric.name] = {"mean": mean(apart), "interval": bounds, "better": better, "videos": len(there)}
    return found


def gestures(clips: Sequence[ClipResult]) -> dict[str, Any]:
    """Of each gesture: the medians of correlation and gain over pairs, with intervals.

    `pairs` is how many pairs the medians are over. `missing` is how many more have a driver that makes the gesture, but
    a generated face in which it cannot be seen.
    """
    people = [(clip.source, clip.identity) for clip in clips]
    found: dict[str, Any] = {}
    for name in GESTURES:
        each = [clip.gestures[name] for clip in clips]
        correlations, gains = [one["correlation"] for one in each], [one["gain"] for one in each]
        pairs = sum(gain is not None for gain in gains)
        found[name] = {
            "correlation": {"median": median(correlations), "interval": median_interval(correlations, people)},
            "gain": {"median": median(gains), "interval": median_interval(gains, people)},
            "pairs": pairs,
            "missing": sum(one["counts"] for one in each) - pairs,
        }
    return found


def worst(clips: Sequence[ClipResult], series: str, metric: Metric) -> list[dict[str, Any]]:
    """The videos that the metric rates worst, the worst first."""
    there = [(value, clip.name) for clip in clips if (value := clip.value(series, metric)) is not None]
    there.sort(reverse=metric.better == "lower")
    return [{"video": name, "value": value} for value, name in there[:WORST]]


def _why_empty(metric: str) -> str:
    if metric == "psnr":
        return "all frames equal the truth: infinite"
    return "no frame counts: the detector found no subject where it is needed (see `without_subject`)"
