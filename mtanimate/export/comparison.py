"""How far an exported network is from PyTorch's."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from mtanimate.backends.exported import Exported
from mtanimate.models.animator import Animator, Rendering

LARGEST = 1e-3  # difference of a value in [0, 1] that float32 may have
DECIBELS = {"fp16": 40.0, "int8": 36.0}  # that pictures must have, against float32's


@dataclass(frozen=True)
class Differences:
    """Of pictures in [0, 1]: largest, mean, and PSNR of the worst pair in dB (null: equal). keypoints: the largest, in
    [-1, 1]. tolerance: what was asked. pairs: of a source and a driving frame."""

    largest: float
    mean: float
    psnr: float | None
    keypoints: float
    tolerance: str
    within: bool
    pairs: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@torch.inference_mode()
def compare(animator: Animator, exported: Exported, groups: Sequence[Tensor], precision: str) -> Differences:
    """Both drive the first frame of each group (four at most) by one frame of it, and by three at once."""
    pictures, keypoints, worst, pairs = [], [], math.inf, 0
    for group in groups[:4]:
        for driving in (group[-1:], group[[1, len(group) // 2, -1]]):
            wanted, points = drive(animator, group[:1], driving)
            found, moved = drive(exported, group[:1], driving)
            pictures.append((wanted.prediction - found.prediction).abs())
            keypoints.append((points - moved).abs().max())
            worst = min([worst, *map(decibels, wanted.prediction, found.prediction)])
            pairs += len(driving)
    difference = torch.cat(pictures)
    largest, mean = float(difference.max()), float(difference.mean())
    if precision in DECIBELS:
        near, tolerance = worst >= DECIBELS[precision], f"PSNR {DECIBELS[precision]:g} dB"
    else:
        near, tolerance = largest <= LARGEST, f"largest {LARGEST:g}"
    return Differences(
        largest=largest,
        mean=mean,
        psnr=None if worst == math.inf else round(worst, 2),
        keypoints=float(torch.stack(keypoints).max()),
        tolerance=tolerance,
        within=near and math.isfinite(largest),
        pairs=pairs,
    )


def drive(network: Animator | Exported, source: Tensor, driving: Tensor) -> tuple[Rendering, Tensor]:
    """source (1, 3, R, R), driven by what is in (B, 3, R, R), absolute; and the driving keypoints."""
    motion = network.estimate_motion(driving)
    background = network.predict_background(source, driving)
    return network.render(network.encode_source(source), motion, background), motion.keypoints


def decibels(first: Tensor, second: Tensor) -> float:
    """PSNR of pictures in [0, 1]; infinite where they are equal."""
    error = float(((first - second) ** 2).mean())
    return -10 * math.log10(error) if error else math.inf
