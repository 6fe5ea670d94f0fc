"""The frames that an export is calibrated and compared with."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from mtanimate.errors import InputError
from mtanimate.video import read_image
from mtanimate.video.crop import square_frames
from mtanimate.video.footage import is_moving, open_footage

MOST = 64  # frames in all: more hardly move a range's ends


def calibration_frames(given: Sequence[Path], resolution: int) -> list[Tensor]:
    """Pictures that belong together, float (N, 3, R, R) in [0, 1]: one group for each video or folder of frames, and
    one for all single pictures. Centred squares, spread evenly over each video.

    Raises InputError for what cannot be read, or is one picture alone.
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


def _of_video(path: Path, most: int, resolution: int) -> Tensor:
    footage = open_footage(path)
    step = -(-footage.frame_count // most)
    batches = footage.batches(8, step=step)
    return torch.cat([square_frames(batch, resolution) for batch in batches])


def synthetic_frames(resolution: int) -> Tensor:
    """A smooth picture, itself once more, and two moved versions of it: (4, 3, R, R) in [0, 1]."""
    y, x = torch.meshgrid(torch.linspace(0, 6, resolution), torch.linspace(0, 6, resolution), indexing="ij")
    frames = []
    for moved in (0, 0, 0.3, -0.5):
        waves = [torch.sin(x + moved) * torch.cos(y), torch.sin(y - moved + 1), torch.cos(x - y + 2 * moved)]
        frames.append(torch.stack(waves) / 2 + 0.5)
    return torch.stack(frames)
