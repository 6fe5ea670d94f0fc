"""How far a result moves while its driver stands still.

    python benchmarks/stability.py PHOTOGRAPHS CLIPS [--checkpoint default] [--pairs 10] [--noise 1]

The driving video is one frame of a clip, 24 times, each with noise of its own (Gaussian, `--noise` grey levels): what a
camera on a tripod sees of somebody who does not move. Each clip drives another photograph. Movement from frame to
frame, in pixels: of the driving keypoints (mean), and of the result, by its flow, where the masks say that it is not
background: median and 99th percentile over pixels. Medians over pairs, and the worst of them.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from machine import describe
from torch import Tensor

import mtanimate
from mtanimate.animation.retargeting import transferred
from mtanimate.data.clips import find_clips
from mtanimate.faces.detection import square_frames
from mtanimate.models.animator import Animator
from mtanimate.video.image import read_image
from mtanimate.video.reader import VideoReader

_FRAMES = 24
_COLUMNS = ("keypoints", "result, median", "result, 99 %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--checkpoint", default="default")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--noise", type=float, default=1.0)
    given = parser.parse_args()
    animator = mtanimate.load(given.checkpoint, device="cpu")
    random = torch.Generator().manual_seed(0)
    pairs = list(zip(sorted(given.photographs.iterdir()), find_clips(given.clips), strict=False))[: given.pairs]
    rows = []
    for photograph, clip in pairs:
        size = animator.config.resolution
        source = square_frames(read_image(photograph)[None], size).float() / 255
        frame = square_frames(VideoReader(clip.path).frames([0]), size).float()
        noisy = frame + given.noise * torch.randn(_FRAMES, *frame.shape[1:], generator=random)
        rows.append(movement(animator, source, noisy.round().clamp(0, 255) / 255))
    print(describe())
    print(f"{len(rows)} pairs, noise of {given.noise:g} grey levels; pixels of {size} from frame to frame")
    for name, values in zip(_COLUMNS, np.array(rows).T, strict=True):
        print(f"{name}: {np.median(values):.3f}, worst {values.max():.3f}")


@torch.inference_mode()
def movement(animator: Animator, source: Tensor, driving: Tensor) -> tuple[float, ...]:
    """As `_COLUMNS`. source (1, 3, R, R); driving (T, 3, R, R), one frame with noise."""
    own, driver = animator.estimate_motion(source), animator.estimate_motion(driving)
    motion = transferred(own, own, driver, driver[:1], adapt_scale=True, strength=1.0)
    encoded = animator.encode_source(source, own)
    rendered = [animator.render(encoded, motion[number : number + 1]).motion for number in range(len(motion))]
    pixels = animator.config.resolution / 2
    keypoints = (driver.keypoints[1:] - driver.keypoints[:-1]).norm(dim=2).mean() * pixels
    flows = torch.cat([dense.flow for dense in rendered])
    moved = (flows[1:] - flows[:-1]).norm(dim=3) * pixels
    # Where the source moves at all: a background that stands still says nothing.
    shown = torch.cat([dense.masks[:, 0] for dense in rendered]).amax(dim=0) < 0.5
    moved = moved[:, shown] if shown.any() else moved.flatten(1)
    return keypoints.item(), moved.median().item(), moved.flatten().quantile(0.99).item()


if __name__ == "__main__":
    main()
