"""A network so small that a step of training takes milliseconds, and videos for it."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from mtanimate.checkpoints.file import read_checkpoint
from mtanimate.config import (
    AugmentationConfig,
    Config,
    DataConfig,
    DenseMotionConfig,
    GeneratorConfig,
    HRNetConfig,
    LossConfig,
    ModelConfig,
    MotionTransformerConfig,
    TrainingConfig,
)
from mtanimate.data.clips import Split, find_clips
from mtanimate.models.animator import Animator
from mtanimate.training.distribution import Workers
from mtanimate.training.metrics import Throughput
from mtanimate.training.run import Run
from mtanimate.video import VideoWriter

MODEL = ModelConfig(
    resolution=64,
    num_keypoints=4,
    estimator=MotionTransformerConfig(
        backbone=HRNetConfig(widths=(), stem_width=8, layer1_width=8, layer1_blocks=1), dim=32, layers=2, heads=4
    ),
    dense_motion=DenseMotionConfig(block_expansion=8, max_features=16, num_blocks=2),
    generator=GeneratorConfig(block_expansion=8, max_features=16, num_bottleneck_blocks=1),
)
LOSS = LossConfig(perceptual=0, pixel=10, equivariance_keypoints=1)
PLAIN = AugmentationConfig(
    time_flip=0, horizontal_flip=0, brightness=0, contrast=0, saturation=0, hue=0
)  # no flips, no jitter
TRAINING = TrainingConfig(steps=4, batch_size=4, learning_rate=1e-3, checkpoint_every=2, picture_every=1000)
CONFIG = Config(MODEL, DataConfig(augmentation=PLAIN), LOSS, TRAINING)


def tiny_animator(seed: int = 0) -> Animator:
    """With norm statistics unlike those of a fresh network."""
    torch.manual_seed(seed)
    animator = Animator(MODEL)
    for name, buffer in animator.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
    return animator


def write_video(path: Path, frames: np.ndarray) -> Path:
    """frames: uint8 RGB (T, H, W, 3)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = frames.shape[1:3]
    with VideoWriter(path, fps=Fraction(25), width=width, height=height) as writer:
        writer.write(frames)
    return path


def counting_frames(count: int, colour: int, size: int = 64) -> np.ndarray:
    """Frames that tell their number by their grey, and their clip by the `colour` channel at full strength."""
    frames = np.zeros((count, size, size, 3), np.uint8)
    frames[:] = (20 + 200 * np.arange(count) // count)[:, None, None, None]
    frames[..., colour] = 255
    return frames


def moving_square(count: int, speed: float, size: int = 64) -> np.ndarray:
    """A bright square that wanders over a dark gradient."""
    background = np.linspace(20, 80, size, dtype=np.uint8)
    frames = np.empty((count, size, size, 3), np.uint8)
    frames[:] = background[None, None, :, None]
    for index in range(count):
        x = round(20 + 16 * np.sin(speed * index))
        y = round(24 + 12 * np.cos(1.3 * speed * index))
        frames[index, y : y + 20, x : x + 20] = (240, 120, 40)
    return frames


# Runs


def tiny_config(loss=None, data=None, model=None, **training):
    """CONFIG with other settings in `loss`, `data` and `training`, or another network."""
    return replace(
        CONFIG,
        model=model or CONFIG.model,
        training=replace(CONFIG.training, **training),
        loss=replace(CONFIG.loss, **(loss or {})),
        data=replace(CONFIG.data, **(data or {})),
    )


def make_run(folder, videos, *, init=None, workers=None, said=None, run_precision="fp32", **settings):
    """A run of `tiny_config(**settings)`. said: a list that gets what the run says."""
    config = tiny_config(**settings)
    log = (lambda line: None) if said is None else said.append
    workers = workers or Workers(torch.device("cpu"))
    split = Split(find_clips(videos), [], "", "")
    return Run(folder, config, split, workers, precision=run_precision, init=init, log=log)


def train(run):
    reports = []
    path = run.train(reports.append)
    return path, reports


def take_steps(run, count):
    """The steps' outcomes, without a folder."""
    run.trainer.module.train()
    batches, throughput = run._load(), Throughput()
    return [run._step(run._draw(batches, throughput), throughput, stop=False) for _ in range(count)]


def weights(run):
    return {name: tensor.clone() for name, tensor in run.trainer.animator.state_dict().items()}


def assert_equal(first, second):
    assert first.keys() == second.keys()
    different = [name for name, tensor in first.items() if not torch.equal(tensor, second[name])]
    assert different == []


def checkpoint(folder, step):
    return read_checkpoint(folder / "checkpoints" / f"step-{step:07d}.safetensors").animator.state_dict()
