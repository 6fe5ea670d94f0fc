"""Rows -> the figures of an evaluation, as `--json` prints them."""

from collections.abc import Sequence
from typing import Any

from mtanimate.evaluation.rows import Row
from mtanimate.evaluation.statistics import interval, mean, median, median_interval
from mtanimate.metrics.measures import Metric, added
from mtanimate.metrics.mesh_gestures import GESTURES

WORST = 3


def summarise(rows: Sequence[Row], metrics: Sequence[Metric], reasons: dict[str, str]) -> dict[str, Any]:
    """rows: of one evaluation, at least one. reasons: why a metric was not measured, by its name.

    `metrics` are means over videos, each counting alike; `over_frames` pools the frames of all videos, as the
    field's scripts do. A figure that there is not is None, and `reasons` says why.
    """
    generated, *others = rows[0].series
    result: dict[str, Any] = {"videos": len(rows), "frames": sum(row.frames for row in rows)}
    result |= figures(rows, generated, metrics)
    for series in others:
        result[series] = figures(rows, series, metrics)
    result["worst"] = {metric.name: worst(rows, generated, metric) for metric in metrics}
    result["without_subject"] = {
        series: sum(row.without_subject[series] for row in rows) for series in rows[0].without_subject
    }
    if rows[0].gestures:
        result["gestures"] = gestures(rows)
    empty = [metric.name for metric in metrics if result["metrics"][metric.name] is None]
    result["reasons"] = {name: reasons.get(name, _why_empty(name)) for name in empty}
    seconds = {what: sum(row.seconds[what] for row in rows) for what in rows[0].seconds}
    result["milliseconds_per_frame"] = {what: 1000 * spent / result["frames"] for what, spent in seconds.items()}
    return result


def figures(rows: Sequence[Row], series: str, metrics: Sequence[Metric]) -> dict[str, Any]:
    """Of one series: the mean and the median over videos of each metric, the mean's interval, and the figure over all
    frames together."""
    values = {metric.name: [row.value(series, metric) for row in rows] for metric in metrics}
    identities = [row.identity for row in rows]
    pooled: dict = {}
    for row in rows:
        pooled = added(pooled, row.series[series])
    return {
        "metrics": {name: mean(each) for name, each in values.items()},
        "medians": {name: median(each) for name, each in values.items()},
        "intervals": {name: interval(each, identities) for name, each in values.items()},
        "over_frames": {metric.name: metric.value(pooled.get(metric.name, (0.0, 0))) for metric in metrics},
    }


def gestures(rows: Sequence[Row]) -> dict[str, Any]:
    """Of each gesture: the medians, over the pairs that count and are seen, of correlation and gain, with intervals;
    how many such pairs there are, and how many count, but cannot be seen."""
    people = [(row.source, row.identity) for row in rows]
    found: dict[str, Any] = {}
    for name in GESTURES:
        each = [row.gestures[name] for row in rows]
        correlations, gains = [one["correlation"] for one in each], [one["gain"] for one in each]
        pairs = sum(gain is not None for gain in gains)
        found[name] = {
            "correlation": {"median": median(correlations), "interval": median_interval(correlations, people)},
            "gain": {"median": median(gains), "interval": median_interval(gains, people)},
            "pairs": pairs,
            "missing": sum(one["counts"] for one in each) - pairs,
        }
    return found


def worst(rows: Sequence[Row], series: str, metric: Metric) -> list[dict[str, Any]]:
    """The videos with the worst figures of this metric, the worst first."""
    there = [(value, row.name) for row in rows if (value := row.value(series, metric)) is not None]
    there.sort(reverse=metric.better == "lower")
    return [{"video": name, "value": value} for value, name in there[:WORST]]


def _why_empty(metric: str) -> str:
    if metric == "psnr":
        return "all frames equal the truth: infinite"
    return "no frame counts: the detector found no subject where it is needed (see `without_subject`)"
