"""The metrics by name: what each one is, in words, and its sum over frames."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from mtanimate.errors import InputError
from mtanimate.metrics.landmarks import (
    descriptor_distance,
    field_descriptor_distance,
    field_keypoint_distance,
    field_missing_keypoints,
    keypoint_distance,
    missing_keypoints,
)
from mtanimate.metrics.observer import Seen
from mtanimate.metrics.pixels import l1, psnr, squared_error, ssim

# A metric's sum over what it counts, and how many that were.
Sum = tuple[float, int]

# What definitions say of the figures that end in `_field`.
_FIELD = "as the field's public evaluation scripts compute it, by a reading of them: "
_ON_LANDMARKS = {
    "akd": keypoint_distance,
    "akd_field": field_keypoint_distance,
    "mkr": missing_keypoints,
    "mkr_field": field_missing_keypoints,
}
_ON_DESCRIPTORS = {"aed": descriptor_distance, "aed_field": field_descriptor_distance}


@dataclass(frozen=True)
class Metric:
    """name: as options and JSON have it. needs: what it is measured on. better: which of two values is."""

    name: str
    title: str
    needs: Literal["pixels", "lpips", "landmarks", "descriptors"]
    better: Literal["lower", "higher"]
    definition: str

    def value(self, total: Sum) -> float | None:
        """Of a sum over frames; None where nothing was counted. Infinite PSNR is None too: the frames are equal."""
        summed, count = total
        if not count:
            return None
        if self.name != "psnr":
            return summed / count
        return psnr(summed / count) if summed else None


METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            "l1",
            "L1",
            "pixels",
            "lower",
            "mean |difference| over pixels and channels of RGB in [0, 1]; over frames",
        ),
        Metric(
            "akd",
            "AKD",
            "landmarks",
            "lower",
            "average keypoint distance: mean Euclidean distance, in pixels of the network's resolution, of the "
            "landmarks found in both frames; over all such landmarks of all frames",
        ),
        Metric(
            "akd_field",
            "AKD, field's",
            "landmarks",
            "lower",
            f"{_FIELD}mean |difference| over x and y, in pixels, of the landmarks found in both frames; over frames",
        ),
        Metric(
            "mkr",
            "MKR",
            "landmarks",
            "lower",
            "missing keypoint rate: of the landmarks found in the true frames, the share not found in the generated",
        ),
        Metric(
            "mkr_field",
            "MKR, field's",
            "landmarks",
            "lower",
            f"{_FIELD}of a true frame's landmarks the share not found in the generated; over frames",
        ),
        Metric(
            "aed",
            "AED",
            "descriptors",
            "lower",
            "average Euclidean distance of the identity descriptors of the true and the generated frame; over frames "
            "that have both",
        ),
        Metric(
            "aed_field",
            "AED, field's",
            "descriptors",
            "lower",
            f"{_FIELD}sum of the squared differences of the identity descriptors, no root of it; over frames that have "
            "both",
        ),
        Metric(
            "psnr",
            "PSNR",
            "pixels",
            "higher",
            "10 log10(1 / MSE) in dB, MSE over pixels, channels and frames of a video (one logarithm a video, so that "
            "equal frames do not make it infinite)",
        ),
        Metric(
            "ssim",
            "SSIM",
            "pixels",
            "higher",
            "structural similarity (Wang et al. 2004): Gaussian window of sigma 1.5, population covariance, data range "
            "1, each channel alone, places with the whole window inside; over frames",
        ),
        Metric("lpips", "LPIPS", "lpips", "lower", "learned perceptual distance (Zhang et al. 2018); over frames"),
    )
}
DEFAULT = ("l1", *_ON_LANDMARKS, *_ON_DESCRIPTORS)


def parse_metrics(text: str) -> list[str]:
    """`l1,akd` -> the names, in the order of METRICS. Raises InputError for an unknown one, or none."""
    asked = {name.strip().lower() for name in text.split(",")} - {""}
    unknown = sorted(asked - METRICS.keys())
    if unknown or not asked:
        raise InputError(f"--metrics {text}: there are {', '.join(METRICS)}")
    return [name for name in METRICS if name in asked]


def measure(
    names: Iterable[str],
    truth: Tensor,
    generated: Tensor,
    seen_truth: Seen | None,
    seen_generated: Seen | None,
    lpips: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> dict[str, Sum]:
    """The sums of these metrics over B frames: two (B, 3, H, W) in [0, 1], and what a detector found in them.

    Metrics that need what is None are left out.
    """
    sums: dict[str, Sum] = {}
    for name in names:
        counted = _on_pictures(name, truth, generated, lpips) or _on_findings(name, seen_truth, seen_generated)
        if counted is not None:
            sums[name] = (float(counted[0].sum()), int(counted[1].sum()))
    return sums


def _on_pictures(
    name: str, truth: Tensor, generated: Tensor, lpips: Callable[[Tensor, Tensor], Tensor] | None
) -> tuple[np.ndarray, np.ndarray] | None:
    distances = {"l1": l1, "psnr": squared_error, "ssim": ssim} | ({"lpips": lpips} if lpips else {})
    if name not in distances:
        return None
    return distances[name](truth, generated).cpu().double().numpy(), np.ones(len(truth), int)


def _on_findings(name: str, truth: Seen | None, generated: Seen | None) -> tuple[np.ndarray, np.ndarray] | None:
    if truth is None or generated is None:
        return None
    if name in _ON_LANDMARKS:
        return _ON_LANDMARKS[name](truth.landmarks, generated.landmarks)
    if name in _ON_DESCRIPTORS and truth.descriptors is not None and generated.descriptors is not None:
        return _ON_DESCRIPTORS[name](truth.descriptors, generated.descriptors)
    return None


def added(first: dict[str, Sum], second: dict[str, Sum]) -> dict[str, Sum]:
    """The sums of both together."""
    totals = dict(first)
    for name, (summed, count) in second.items():
        before, counted = totals.get(name, (0.0, 0))
        totals[name] = (before + summed, counted + count)
    return totals
