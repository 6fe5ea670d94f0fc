"""Reconstruction of test clips from their first frame: L1 of a checkpoint, beside repeating the first frame.

    python benchmarks/reconstruction.py CHECKPOINT TEST_FOLDER [--every 4] [--pictures FOLDER]

L1 is the mean absolute difference of RGB in [0, 1] at the network's resolution, of every `--every`-th frame from
the first on; motion is absolute, as in the paper's evaluation. A clip's figure is the mean over its frames, the
table's the mean over clips.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from mtanimate.checkpoints.file import read_checkpoint
from mtanimate.checkpoints.registry import resolve
from mtanimate.data.clips import find_clips
from mtanimate.drawing.grids import labelled_grid
from mtanimate.models.animator import Animator
from mtanimate.video import VideoReader, write_image
from mtanimate.video.crop import square_frames, to_frames


@torch.inference_mode()
def reconstruct(animator: Animator, frames: torch.Tensor) -> torch.Tensor:
    """frames (T, 3, R, R) in [0, 1], the first of which is the source -> predictions of all."""
    source = animator.encode_source(frames[:1])
    parts = [animator.drive(source, animator.estimate_motion(part)) for part in frames.split(8)]
    return torch.cat(parts)


def load(path: Path, every: int, resolution: int) -> torch.Tensor:
    batches = [square_frames(batch, resolution) for batch in VideoReader(path).batches(32)]
    return torch.cat(batches)[::every].float() / 255


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("--pictures", type=Path, help="write source | truth | reconstruction of three frames a clip")
    options = parser.parse_args()
    checkpoint = read_checkpoint(resolve(options.checkpoint))
    animator = checkpoint.animator.channels_last()
    rows = []
    folder = options.folder / "test" if (options.folder / "test").is_dir() else options.folder
    for clip in find_clips(folder):
        frames = load(clip.path, options.every, checkpoint.config.model.resolution)
        predictions = reconstruct(animator, frames)
        ours = (predictions - frames).abs().mean().item()
        repeated = (frames[:1] - frames).abs().mean().item()
        rows.append((ours, repeated))
        print(f"{clip.path.stem:12} {ours:.4f} {repeated:.4f} {ours / repeated:.2f}", flush=True)
        if options.pictures:
            options.pictures.mkdir(parents=True, exist_ok=True)
            chosen = np.linspace(0, len(predictions) - 1, 4).round().astype(int)[1:]
            columns = {"source": frames[:1].expand(3, -1, -1, -1), "truth": frames[chosen], "ours": predictions[chosen]}
            picture = labelled_grid({title: list(to_frames(column)) for title, column in columns.items()})
            write_image(options.pictures / f"{clip.path.stem}.png", picture)
    ours, repeated = np.array(rows).T
    print(f"checkpoint {options.checkpoint}: {checkpoint.about}")
    print(f"clips {len(rows)}; L1 {ours.mean():.4f}; repeating the first frame {repeated.mean():.4f}")
    print(f"ratio {ours.mean() / repeated.mean():.3f}; lower on {(ours < repeated).mean():.0%} of the clips")


if __name__ == "__main__":
    main()
