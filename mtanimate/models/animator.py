"""The whole network of Figure 1: encode a source once, animate it by many driving frames."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from mtanimate.config import ModelConfig
from mtanimate.errors import InputError
from mtanimate.geometry import full_precision
from mtanimate.models.background_predictor import BackgroundPredictor
from mtanimate.models.dense_motion import DenseMotion, DenseMotionNetwork
from mtanimate.models.face_dense_motion import FaceDenseMotionNetwork
from mtanimate.models.generator import Generator
from mtanimate.models.inpainting import InpaintingNetwork
from mtanimate.models.keypoint_detector import KeypointDetector
from mtanimate.models.motion import Motion
from mtanimate.models.motion_transformer import MotionTransformer
from mtanimate.models.region_predictor import RegionPredictor
from mtanimate.models.tpsmm import SplineDenseMotionNetwork, SplineEstimator

# The motion estimators by `model.estimator.name`: from pictures to Motion.
ESTIMATORS: dict[str, type[nn.Module]] = {
    "motion-transformer": MotionTransformer,
    "fomm": KeypointDetector,
    "monkey-net": KeypointDetector,
    "mraa": RegionPredictor,
    "tpsmm": SplineEstimator,
}


def check_disentangles(config: ModelConfig) -> None:
    """Raises InputError where a network has no part that tells a subject's shape from its pose."""
    if not config.disentangles:
        raise InputError(
            "--mode avd needs a network that tells shape from pose, which TPSMM's checkpoints have after their last "
            "stage of training; this checkpoint has none: give --mode relative or absolute"
        )


@dataclass(frozen=True)
class EncodedSource:
    """Everything that is computed from the source alone, and so only once.

    Attributes:
        picture: (B, 3, H, W) in [0, 1].
        reduced: (B, 3, h, w), the picture at the size of the dense motion network.
        features: of the generator's encoder, full size first: (B, C, H, W), (B, C', H/2, W/2), ...
        motion: of the source.
    """

    picture: Tensor
    reduced: Tensor
    features: list[Tensor]
    motion: Motion

    def expand(self, batch: int) -> "EncodedSource":
        """Repeats the source for `batch` driving frames, as views without a copy.

        Args:
            batch: the number of driving frames B.

        Returns:
            The same source, picture and features with batch size B.
        """
        if len(self.picture) == batch:
            return self
        features = [feature.expand(batch, -1, -1, -1) for feature in self.features]
        return EncodedSource(self.picture.expand(batch, -1, -1, -1), self.reduced, features, self.motion)


@dataclass(frozen=True)
class Rendering:
    """An animated picture and the dense motion that it was made with.

    Attributes:
        prediction: (B, 3, H, W) in [0, 1].
        motion: masks, flow and occlusion.
    """

    prediction: Tensor
    motion: DenseMotion


_MOST_PARAMETERS = 1_000_000_000  # 4 GB; the paper's networks have a tenth of that


def outline_network(config: ModelConfig) -> "Animator":
    """Builds the network on the meta device: shapes without weights, which a checkpoint then provides.

    Args:
        config: of the network.

    Returns:
        The network without weights.

    Raises:
        InputError: it would have more parameters than any checkpoint that is read.
    """
    with torch.device("meta"):
        animator = Animator(config)
    count = sum(tensor.numel() for tensor in animator.state_dict().values())
    if count > _MOST_PARAMETERS:
        raise InputError(f"a network of {count} parameters: more than {_MOST_PARAMETERS} are not read")
    return animator


class Animator(nn.Module):
    """Motion estimator, dense motion network, generator and, where configured, background predictor.

    Pictures are (B, 3, H, W), float, RGB, in [0, 1]. H and W must be divisible by what patches and hourglasses of the
    configuration need; the configured resolution is.

    Args:
        config: sizes and variants of all parts.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.motion_estimator = ESTIMATORS[config.estimator.name](config.estimator, config.num_keypoints)
        self.dense_motion: DenseMotionNetwork | FaceDenseMotionNetwork
        if config.dense_motion.prior:
            self.dense_motion = FaceDenseMotionNetwork(config.dense_motion)
        else:
            bends = config.estimator.motion_kind == "splines"
            network = SplineDenseMotionNetwork if bends else DenseMotionNetwork
            self.dense_motion = network(config.dense_motion, config.num_keypoints)
        inpainting = config.generator.inpainting
        self.generator = InpaintingNetwork(config.generator) if inpainting else Generator(config.generator)
        self.background_predictor = BackgroundPredictor(config.background) if config.background else None

    def estimate_motion(self, frames: Tensor) -> Motion:
        """Estimates the motion of each picture, (B, 3, H, W) in [0, 1]."""
        return self.motion_estimator(frames)

    def encode_source(self, picture: Tensor, motion: Motion | None = None) -> EncodedSource:
        """Computes everything that depends on the source alone.

        Args:
            picture: (B, 3, H, W) in [0, 1].
            motion: of the picture, where it is known already.

        Returns:
            The encoded source, for `drive` and `render`.
        """
        if motion is None:
            motion = self.estimate_motion(picture)
        reduced = self.dense_motion.reduce(picture)
        return EncodedSource(picture, reduced, self.generator.encode(picture), motion)

    def drive(self, source: EncodedSource, motion: Motion, background: Tensor | None = None) -> Tensor:
        """Animates the source.

        Args:
            source: encoded, of batch size 1 or B.
            motion: of B driving frames.
            background: (B, 3, 3) from `predict_background`; None leaves the background where it is.

        Returns:
            Pictures (B, 3, H, W) in [0, 1].
        """
        return self.render(source, motion, background).prediction

    def render(self, source: EncodedSource, motion: Motion, background: Tensor | None = None) -> Rendering:
        """As `drive`; returns masks, flow and occlusion beside the pictures."""
        source = source.expand(len(motion))
        dense = self.dense_motion(source.reduced, source.motion, motion, background)
        return Rendering(self.generator.decode(source.features, source.picture, dense), dense)

    def warp_source(self, source: Tensor, source_motion: Motion, motion: Motion) -> tuple[Tensor, DenseMotion]:
        """Warps the source's pixels by the dense flow, without the generator.

        Args:
            source: (B, 3, H, W) in [0, 1].
            source_motion: of the source, batch size B.
            motion: of the driving frames, batch size B.

        Returns:
            The warped source (B, 3, H, W) and the dense motion.
        """
        dense = self.dense_motion(self.dense_motion.reduce(source), source_motion, motion)
        return dense.warp(source), dense

    def predict_background(self, source: Tensor, driving: Tensor) -> Tensor | None:
        """Predicts the motion of the background, if the network has a background predictor.

        Args:
            source: (1 or B, 3, H, W) in [0, 1].
            driving: (B, 3, H, W) in [0, 1].

        Returns:
            (B, 3, 3), from driving to source coordinates, or None.
        """
        if self.background_predictor is None:
            return None
        return self.background_predictor(source.expand_as(driving), driving)

    def disentangle(self, source: Motion, driving: Motion) -> Motion:
        """The motion of the source's shape in the driver's pose, by a network that tells the two apart.

        Args:
            source: batch size B or 1.
            driving: batch size B.

        Raises:
            InputError: the network has no such part.
        """
        check_disentangles(self.config)
        with full_precision(self.device):  # half precision is not enough for coordinates
            keypoints = self.motion_estimator.get_submodule("disentanglement")(source.keypoints, driving.keypoints)
        return replace(driving, keypoints=keypoints)

    def channels_last(self) -> "Animator":
        """Lays the weights out channels last, which is fastest for convolutions; returns the same network."""
        return self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device
