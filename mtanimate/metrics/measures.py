"""Metrics: on pixels L1, PSNR, SSIM and LPIPS; on landmarks and descriptors AKD, MKR, AED, and others without a truth.

AKD, MKR and AED are computed as their names say, and as the field's public evaluation scripts do (`field_`).
Landmarks are (B, N, 2) in pixels, descriptors (B, D), both NaN where nothing was found. Sums and counts are returned
per frame, so that frames can be added up.
"""

import importlib.metadata
import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mtanimate.errors import InputError
from mtanimate.metrics.detectors import Detections
from mtanimate.metrics.sharpness import sharpness


def keypoint_distance(truth: np.ndarray, generated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AKD: the Euclidean distance, in pixels, of the landmarks found in both frames.

    Two (B, N, 2) -> sums (B,) over a frame's landmarks, and how many they are (B,).
    """
    distances = np.linalg.norm(truth - generated, axis=2)
    both = np.isfinite(distances)
    return np.where(both, distances, 0).sum(axis=1), both.sum(axis=1)


def missing_keypoints(truth: np.ndarray, generated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """MKR: how many landmarks of the true frame are missing in the generated frame (B,), and how many it has (B,)."""
    there = np.isfinite(truth).all(axis=2)
    lost = there & ~np.isfinite(generated).all(axis=2)
    return lost.sum(axis=1), there.sum(axis=1)


def descriptor_distance(truth: np.ndarray, generated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AED: the Euclidean distance of descriptors found in both frames: two (B, D) -> sums (B,), counts (B,)."""
    return _counted(np.linalg.norm(truth - generated, axis=1))


def field_keypoint_distance(truth: np.ndarray, generated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AKD of the field's scripts: per frame the mean of |x| and |y| differences over the landmarks found in both.

    Two (B, N, 2) -> means (B,), counts (B,): 1 where there is such a landmark.
    """
    differences = np.abs(truth - generated).mean(axis=2)
    both = np.isfinite(differences)
    counts = both.sum(axis=1)
    return np.where(both, differences, 0).sum(axis=1) / np.maximum(counts, 1), (counts > 0).astype(int)


def field_missing_keypoints(truth: np.ndarray, generated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """MKR of the field's scripts: per frame the share of its true landmarks that is missing.

    Two (B, N, 2) -> shares (B,), counts (B,): 1 where the truth has a landmark.
    """
    lost, there = missing_keypoints(truth, generated)
    return lost / np.maximum(there, 1), (there > 0).astype(int)


def field_descriptor_distance(truth: np.ndarray, generated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AED of the field's scripts, the squared distance: two (B, D) -> sums (B,), counts (B,)."""
    return _counted(np.square(truth - generated).sum(axis=1))


def similarity(source: np.ndarray, generated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosine of descriptors, 1 for the same direction: two (B, D) -> sums (B,), counts (B,)."""
    lengths = np.linalg.norm(source, axis=1) * np.linalg.norm(generated, axis=1)
    return _counted((source * generated).sum(axis=1) / lengths)


def pose_distance(driving: np.ndarray, generated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean Euclidean distance of two subjects' landmarks, after `normalised`, so that place and size do not count.

    Two (B, N, 2) -> sums (B,), counts (B,). Frames that lack a landmark do not count.
    """
    return _counted(np.linalg.norm(normalised(driving) - normalised(generated), axis=2).mean(axis=1))


def movement_distance(driving: np.ndarray, generated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `pose_distance`, but of the changes since each clip's first frame, so that the subjects' shapes do not count.

    Two (T, N, 2) of a clip from its first frame on -> sums (T,), counts (T,); all 0 where the first lacks a landmark.
    """
    changes = [normalised(landmarks) - normalised(landmarks[:1]) for landmarks in (driving, generated)]
    return _counted(np.linalg.norm(changes[0] - changes[1], axis=2).mean(axis=1))


def normalised(landmarks: np.ndarray) -> np.ndarray:
    """Landmarks (B, N, 2) centred on their mean and divided by their root mean square distance from it."""
    centred = landmarks - landmarks.mean(axis=1, keepdims=True)
    return centred / np.sqrt(np.square(centred).sum(axis=2, keepdims=True).mean(axis=1, keepdims=True))


def jitter(landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The length of the landmarks' second difference in time, |p(t+1) - 2 p(t) + p(t-1)|, in pixels.

    (T, N, 2) of consecutive frames -> means over landmarks (T - 2,), counts (T - 2,). It includes the detector's noise.
    """
    return _counted(np.linalg.norm(np.diff(landmarks, n=2, axis=0), axis=2).mean(axis=1))


def _counted(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    there = np.isfinite(values)
    return np.where(there, values, 0), there.astype(int)


# SSIM's constants: Wang et al., "Image quality assessment", 2004. The window has 11 x 11 pixels.
_SIGMA, _RADIUS = 1.5, 5
_C1, _C2 = 0.01**2, 0.03**2
# Pictures of more pixels are taken in strips of about so many: float64 windows of whole ones would fill memory.
_LARGE, _STRIP = 2**18, 2**16


def l1(truth: Tensor, generated: Tensor) -> Tensor:
    """Mean |difference| over pixels and channels: two (B, 3, H, W) in [0, 1] -> (B,) in [0, 1]."""
    return (truth - generated).abs().mean(dim=(1, 2, 3))


def squared_error(truth: Tensor, generated: Tensor) -> Tensor:
    """Mean squared difference over pixels and channels: two (B, 3, H, W) in [0, 1] -> (B,) in [0, 1]."""
    return (truth - generated).square().mean(dim=(1, 2, 3))


def psnr(squared_error: float) -> float:
    """Peak signal-to-noise ratio in dB for pictures in [0, 1]; infinite for equal pictures."""
    return -10 * math.log10(squared_error) if squared_error > 0 else math.inf


def ssim(truth: Tensor, generated: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004): two (B, 3, H, W) in [0, 1] -> (B,), 1 for equal pictures.

    A Gaussian window of sigma 1.5 (11 x 11 pixels), population covariance, each channel alone; then the mean over
    channels and over all places where the whole window lies in the picture. Raises ValueError for smaller pictures.
    """
    if min(truth.shape[2:]) <= 2 * _RADIUS:
        raise ValueError(f"SSIM needs pictures of at least {2 * _RADIUS + 1} pixels a side")
    if generated.device.type == "mps":  # MPS has no float64
        truth, generated = truth.cpu(), generated.cpu()
    height, width = truth.shape[2:]
    rows = height - 2 * _RADIUS
    step = rows if height * width <= _LARGE else max(1, _STRIP // width)
    means = []
    for first in range(0, rows, step):
        strip = slice(first, first + step + 2 * _RADIUS)
        share = min(step, rows - first) / rows
        means.append(_similarity(truth[:, :, strip], generated[:, :, strip]) * share)
    return torch.stack(means).sum(dim=0)


def _similarity(truth: Tensor, generated: Tensor) -> Tensor:
    """The mean of SSIM over channels and places: two (B, 3, H, W) -> (B,)."""
    # float64, because a variance is a small difference of large squares.
    x, y = truth.double().flatten(0, 1)[:, None], generated.double().flatten(0, 1)[:, None]
    mean_x, mean_y = _windowed(x), _windowed(y)
    variance_x = _windowed(x * x) - mean_x**2
    variance_y = _windowed(y * y) - mean_y**2
    covariance = _windowed(x * y) - mean_x * mean_y
    similarity = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    similarity /= (mean_x**2 + mean_y**2 + _C1) * (variance_x + variance_y + _C2)
    return similarity.mean(dim=(1, 2, 3)).unflatten(0, truth.shape[:2]).mean(dim=1)


def _windowed(images: Tensor) -> Tensor:
    """Gaussian means over all windows that lie in the picture: (N, 1, H, W) -> (N, 1, H - 10, W - 10)."""
    offsets = torch.arange(-_RADIUS, _RADIUS + 1, device=images.device, dtype=images.dtype)
    window = torch.exp(-(offsets**2) / (2 * _SIGMA**2))
    window /= window.sum()
    return F.conv2d(F.conv2d(images, window[None, None, None]), window[None, None, :, None])


_LPIPS_WEIGHTS = "AlexNet, version 0.1 of its linear layers"


class Lpips:
    """LPIPS by AlexNet: two (B, 3, H, W) in [0, 1] -> (B,), 0 for equal pictures.

    Raises InputError, naming the extra, where the package is missing, and where torchvision cannot download AlexNet's
    weights, which it does when they are first used.
    """

    def __init__(self, device: torch.device) -> None:
        try:
            import lpips
        except ImportError as error:
            raise InputError("lpips needs the package of that name: pip install 'mtanimate[lpips]'") from error
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torchvision, about the way the package calls it
                self._network = lpips.LPIPS(net="alex", verbose=False).to(device)
        except OSError as error:
            raise InputError(
                f"lpips needs AlexNet's weights, and torchvision cannot fetch them ({error}): connect this machine, or "
                f"put alexnet-owt-7be5be79.pth into {torch.hub.get_dir()}/checkpoints"
            ) from error
        self.name = f"lpips {importlib.metadata.version('lpips')}, {_LPIPS_WEIGHTS}"

    def __call__(self, truth: Tensor, generated: Tensor) -> Tensor:
        return self._network(truth * 2 - 1, generated * 2 - 1).reshape(-1)


# A metric's sum over everything that it counts, and how many that is.
Sum = tuple[float, int]

# How the definitions of metrics that end in `_field` begin.
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
    """A metric.

    Attributes:
        name: Its name in options and in JSON.
        title: Its name in tables.
        needs: What it is measured on.
        better: Which of two values is the better one.
        definition: What it measures, in words.
    """

    name: str
    title: str
    needs: Literal["pixels", "lpips", "landmarks", "descriptors"]
    better: Literal["lower", "higher"]
    definition: str

    def value(self, total: Sum) -> float | None:
        """The metric's value from a sum over frames. None where nothing was counted, and for the infinite PSNR of equal
        frames."""
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
            "average keypoint distance: mean Euclidean distance, in pixels, of the landmarks found in both frames; "
            "over all such landmarks of all frames",
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
        Metric(
            "sharpness",
            "sharpness",
            "landmarks",
            "higher",
            "mean gradient magnitude of the generated frame's luminance (central differences) over that of the true "
            "frame, within the box of the true frame's landmarks; of the whole frame where it has none. 1 is as sharp "
            "as the truth, and more is noise or wrong edges; over frames",
        ),
    )
}
DEFAULT = ("l1", *_ON_LANDMARKS, *_ON_DESCRIPTORS)
DEFAULT_AT_OWN_SIZE = (*DEFAULT, "psnr", "ssim", "sharpness")


def parse_metrics(text: str) -> list[str]:
    """The names in a text such as `l1,akd`, in the order of METRICS. Raises InputError for an unknown name, or none."""
    asked = {name.strip().lower() for name in text.split(",")} - {""}
    unknown = sorted(asked - METRICS.keys())
    if unknown or not asked:
        raise InputError(f"--metrics {text}: there are {', '.join(METRICS)}")
    return [name for name in METRICS if name in asked]


def measure(
    names: Iterable[str],
    truth: Tensor,
    generated: Tensor,
    in_truth: Detections | None,
    in_generated: Detections | None,
    lpips: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> dict[str, Sum]:
    """The sums of these metrics over B frames.

    Args:
        names: The metrics. Those whose detections or network are None are left out.
        truth: True frames, (B, 3, H, W) in [0, 1].
        generated: Generated frames, the same shape.
        in_truth: Detections in the true frames.
        in_generated: Detections in the generated frames.
        lpips: The LPIPS network.
    """
    sums: dict[str, Sum] = {}
    for name in names:
        counted = _on_pictures(name, truth, generated, lpips) or _on_detections(name, in_truth, in_generated)
        if name == "sharpness":
            counted = sharpness(truth, generated, None if in_truth is None else in_truth.landmarks)
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


def _on_detections(
    name: str, truth: Detections | None, generated: Detections | None
) -> tuple[np.ndarray, np.ndarray] | None:
    if truth is None or generated is None:
        return None
    if name in _ON_LANDMARKS:
        return _ON_LANDMARKS[name](truth.landmarks, generated.landmarks)
    if name in _ON_DESCRIPTORS and truth.descriptors is not None and generated.descriptors is not None:
        return _ON_DESCRIPTORS[name](truth.descriptors, generated.descriptors)
    return None


def added(first: dict[str, Sum], second: dict[str, Sum]) -> dict[str, Sum]:
    """The sums over the frames of both."""
    totals = dict(first)
    for name, (summed, count) in second.items():
        before, counted = totals.get(name, (0.0, 0))
        totals[name] = (before + summed, counted + count)
    return totals
