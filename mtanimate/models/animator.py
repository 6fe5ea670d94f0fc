"""The whole network: encode a source once, drive it many times."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mtanimate.config import ModelConfig
from mtanimate.errors import InputError
from mtanimate.models.background_predictor import BackgroundPredictor
from mtanimate.models.dense_motion import DenseMotion, DenseMotionNetwork
from mtanimate.models.face_dense_motion import FaceDenseMotionNetwork
from mtanimate.models.generator import Generator
from mtanimate.models.keypoint_detector import KeypointDetector
from mtanimate.models.motion import Motion
from mtanimate.models.motion_transformer import MotionTransformer
from mtanimate.models.region_predictor import RegionPredictor

# Pictures in, Motion out: what `model.estimator.name` chooses from.
ESTIMATORS: dict[str, type[nn.Module]] = {
    "motion-transformer": MotionTransformer,
    "fomm": KeypointDetector,
    "monkey-net": KeypointDetector,
    "mraa": RegionPredictor,
}


@dataclass(frozen=True)
class EncodedSource:
    """What of the source does not depend on the driving frame.

    picture (B, 3, H, W); reduced (B, 3, h, w) for the masks; features of the generator's encoder; motion.
    """

    picture: Tensor
    reduced: Tensor
    features: list[Tensor]
    motion: Motion

    def expand(self, batch: int) -> "EncodedSource":
        """The same source for `batch` driving frames, without a copy."""
        if len(self.picture) == batch:
            return self
        features = [feature.expand(batch, -1, -1, -1) for feature in self.features]
        return EncodedSource(self.picture.expand(batch, -1, -1, -1), self.reduced, features, self.motion)


@dataclass(frozen=True)
class Rendering:
    """A driven picture (B, 3, H, W) in [0, 1] and how it came about."""

    prediction: Tensor
    motion: DenseMotion


_MOST_PARAMETERS = 1_000_000_000  # 4 GB; the paper's networks have a tenth


def outline_network(config: ModelConfig) -> "Animator":
    """The network without its numbers, which a file brings. Raises InputError where there would be too many."""
    with torch.device("meta"):
        animator = Animator(config)
    count = sum(tensor.numel() for tensor in animator.state_dict().values())
    if count > _MOST_PARAMETERS:
        raise InputError(f"a network of {count} parameters: more than {_MOST_PARAMETERS} are not read")
    return animator


class Animator(nn.Module):
    """Motion estimator, dense motion, generator and, where configured, the background predictor.

    Pictures are (B, 3, H, W) float RGB in [0, 1]; H and W must be divisible by what the configuration's
    patches and hourglasses need (the configured resolution is).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.motion_estimator = ESTIMATORS[config.estimator.name](config.estimator, config.num_keypoints)
        self.dense_motion: DenseMotionNetwork | FaceDenseMotionNetwork
        if config.dense_motion.prior:
            self.dense_motion = FaceDenseMotionNetwork(config.dense_motion)
        else:
            self.dense_motion = DenseMotionNetwork(config.dense_motion, config.num_keypoints)
        self.generator = Generator(config.generator)
        self.background_predictor = BackgroundPredictor(config.background) if config.background else None

    def estimate_motion(self, frames: Tensor) -> Motion:
        """The motion of each picture."""
        return self.motion_estimator(frames)

    def encode_source(self, picture: Tensor, motion: Motion | None = None) -> EncodedSource:
        """Everything that the source gives once and for all; `motion` where it is known already."""
        if motion is None:
            motion = self.estimate_motion(picture)
        reduced = self.dense_motion.reduce(picture)
        return EncodedSource(picture, reduced, self.generator.encode(picture), motion)

    def drive(self, source: EncodedSource, motion: Motion, background: Tensor | None = None) -> Tensor:
        """The source (batch 1 or B) moved as `motion` (batch B) says: (B, 3, H, W) in [0, 1].

        background: (B, 3, 3) from the background predictor; without it the background stands still.
        """
        return self.render(source, motion, background).prediction

    def render(self, source: EncodedSource, motion: Motion, background: Tensor | None = None) -> Rendering:
        """As `drive`, with masks, flow and occlusion."""
        source = source.expand(len(motion))
        dense = self.dense_motion(source.reduced, source.motion, motion, background)
        return Rendering(self.generator.decode(source.features, source.picture, dense), dense)

    def warp_source(self, source: Tensor, source_motion: Motion, motion: Motion) -> tuple[Tensor, DenseMotion]:
        """The motion half alone: source pixels moved by the dense flow, no generator. Both batch B."""
        dense = self.dense_motion(self.dense_motion.reduce(source), source_motion, motion)
        return dense.warp(source), dense

    def predict_background(self, source: Tensor, driving: Tensor) -> Tensor | None:
        """(B, 3, 3) where the network has a background predictor, else None."""
        if self.background_predictor is None:
            return None
        return self.background_predictor(source.expand_as(driving), driving)

    def channels_last(self) -> "Animator":
        """The same network, its weights laid out as convolutions are fastest with."""
        return self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device
