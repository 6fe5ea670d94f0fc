"""Parity: calibration frames, and how far an exported network's pictures differ from PyTorch's."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtanimate.errors import InputError
from mtanimate.faces.detection import square_frames
from mtanimate.inference.backends import ExportedNetwork
from mtanimate.models.animator import Animator, Rendering
from mtanimate.video import read_image
from mtanimate.video.footage import is_moving, open_footage

MOST = 64  # frames in all; more hardly change the ranges
LARGEST = 1e-3  # allowed difference of a value in [0, 1] in float32
DECIBELS = {"fp16": 40.0, "int8": 36.0}  # PSNR that pictures must reach, compared with float32


def calibration_frames(given: Sequence[Path], resolution: int) -> list[Tensor]:
    """Reads frames to calibrate and to compare with: centred squares, spread evenly over each video.

    Args:
        given: videos, folders of frames, pictures.
        resolution: side of the squares, in pixels.

    Returns:
        Groups of frames that belong together, (N, 3, R, R) in [0, 1]: one for each video or folder, one for all
        pictures.

    Raises:
        InputError: a file cannot be read, or a group has only one frame.
    """
    for path in given:
        if not path.exists():
            raise InputError(f"--calibrate {path}: no such file or folder")
    videos = [path for path in given if is_moving(path)]
    pictures = [path for path in given if not is_moving(path)]
    each = max(MOST // (len(videos) + bool(pictures)), 2)
    groups = [_of_video(path, each, resolution) for path in videos]
    if pictures:
        chosen = pictures[:: -(-len(pictures) // each)]
        read = (read_image(path, needed=resolution)[None] for path in chosen)
        groups.append(torch.cat([square_frames(picture, resolution) for picture in read]))
    for group, path in zip(groups, [*videos, *pictures[:1]], strict=True):
        if len(group) < 2:
            raise InputError(f"--calibrate {path}: give two frames or more, so that one can drive the other")
    return [group.float() / 255 for group in groups]


def synthetic_frames(resolution: int) -> Tensor:
    """A smooth picture, the same once more, and two moved versions of it: (4, 3, R, R) in [0, 1]."""
    y, x = torch.meshgrid(torch.linspace(0, 6, resolution), torch.linspace(0, 6, resolution), indexing="ij")
    frames = []
    for moved in (0, 0, 0.3, -0.5):
        waves = [torch.sin(x + moved) * torch.cos(y), torch.sin(y - moved + 1), torch.cos(x - y + 2 * moved)]
        frames.append(torch.stack(waves) / 2 + 0.5)
    return torch.stack(frames)


@dataclass(frozen=True)
class Differences:
    """Differences of pictures in [0, 1].

    Attributes:
        largest: of a value.
        mean: over all values.
        psnr: of the worst pair, in dB; None where all are equal.
        keypoints: the largest difference of a coordinate in [-1, 1].
        tolerance: what was required.
        within: whether it is met.
        pairs: of a source and a driving frame.
    """

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
def compare(animator: Animator, exported: ExportedNetwork, groups: Sequence[Tensor], precision: str) -> Differences:
    """Animates with both networks and compares.

    The first frame of each group (four at most) is driven by one frame of it, and by three at once.

    Args:
        animator: the original.
        exported: the exported network.
        groups: frames (N, 3, R, R) in [0, 1].
        precision: that sets the tolerance.
    """
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


def drive(network: Animator | ExportedNetwork, source: Tensor, driving: Tensor) -> tuple[Rendering, Tensor]:
    """Animates a source (1, 3, R, R) by frames (B, 3, R, R), absolute; also returns the driving keypoints."""
    motion = network.estimate_motion(driving)
    background = network.predict_background(source, driving)
    return network.render(network.encode_source(source), motion, background), motion.keypoints


def decibels(first: Tensor, second: Tensor) -> float:
    """PSNR of pictures in [0, 1], in dB; infinite where they are equal."""
    error = float(((first - second) ** 2).mean())
    return -10 * math.log10(error) if error else math.inf


def _of_video(path: Path, most: int, resolution: int) -> Tensor:
    footage = open_footage(path)
    step = -(-footage.frame_count // most)
    batches = footage.batches(8, step=step)
    return torch.cat([square_frames(batch, resolution) for batch in batches])
