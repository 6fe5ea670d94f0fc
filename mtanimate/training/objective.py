"""The training objective (Eq. 13): a pair of frames in, named losses out."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mtanimate.config import LossConfig
from mtanimate.errors import InputError
from mtanimate.models.animator import Animator
from mtanimate.models.dense_motion import DenseMotion
from mtanimate.models.losses.background import concentration_loss, mask_loss
from mtanimate.models.losses.equivariance import Transform, equivariance_affine, equivariance_keypoints
from mtanimate.models.losses.features import EfficientNetLite0Features, VGG19Features
from mtanimate.models.losses.perceptual import PerceptualLoss
from mtanimate.models.motion import Motion
from mtanimate.models.motion_transformer import sunflower


@dataclass(frozen=True)
class Outcome:
    """Weighted terms by name, the predictions of `driving` (B, 3, H, W), and how they came about.

    source, driving: what was driven and what it should have become; twice the batch where both directions
    were trained.
    """

    terms: dict[str, Tensor]
    source: Tensor
    driving: Tensor
    prediction: Tensor
    motion: DenseMotion


def perceptual_loss(config: LossConfig) -> PerceptualLoss | None:
    """The term that the configuration asks for. Raises InputError where its weights are not at hand."""
    if config.perceptual == 0:
        return None
    if config.features == "efficientnet_lite0":
        return PerceptualLoss(EfficientNetLite0Features.load(), config.scales, relative=True)
    if not config.vgg19_file:
        raise InputError(
            "the perceptual loss needs VGG-19: give torchvision's vgg19-dcbb9e9d.pth with "
            "--set loss.vgg19_file=FILE, or use --set loss.features=efficientnet_lite0"
        )
    network = VGG19Features.load(Path(config.vgg19_file).expanduser())
    return PerceptualLoss(network, config.scales, relative=False)


class Objective(nn.Module):
    """Weighted losses of an Animator on pairs of frames; holds nothing that is trained."""

    def __init__(self, config: LossConfig) -> None:
        super().__init__()
        self.config = config
        self.perceptual = perceptual_loss(config)

    def equivariance(self, animator: Animator, frames: Tensor) -> dict[str, Tensor]:
        """The estimator alone: (B, 3, H, W) in [0, 1] -> terms."""
        motion = animator.estimate_motion(frames)
        return self._equivariance(animator, frames, motion) | self._anchor(motion)

    def forward(self, animator: Animator, source: Tensor, driving: Tensor, warmup: bool = False) -> Outcome:
        """source, driving: (B, 3, H, W) in [0, 1]. warmup: the warped source is the prediction."""
        frames = torch.cat([source, driving])
        motion = animator.estimate_motion(frames)
        # Second frames first: what each frame is to become. In both directions, or the first alone.
        swapped = frames.roll(len(source), dims=0)
        swapped_motion = motion.roll(len(source))
        if not self.config.both_directions:
            frames, swapped = source, driving
            motion, swapped_motion = motion[: len(source)], swapped_motion[: len(source)]
        background = animator.predict_background(frames, swapped)
        if warmup:
            prediction, dense = animator.warp_source(frames, motion, swapped_motion)
        else:
            encoded = animator.encode_source(frames, motion)
            rendering = animator.render(encoded, swapped_motion, background)
            prediction, dense = rendering.prediction, rendering.motion
        prediction = prediction.float()
        terms = self._reconstruction(prediction, swapped)
        terms |= self._equivariance(animator, driving, swapped_motion[: len(driving)])
        terms |= self._anchor(motion)
        if self.config.mask:
            terms["mask"] = self.config.mask * mask_loss(dense.masks)
        if self.config.concentration:
            terms["concentration"] = self.config.concentration * concentration_loss(dense.masks)
        return Outcome(terms, frames, swapped, prediction, dense)

    def _reconstruction(self, prediction: Tensor, driving: Tensor) -> dict[str, Tensor]:
        terms = {}
        if self.perceptual is not None:
            terms["perceptual"] = self.config.perceptual * self.perceptual(prediction, driving)
        if self.config.pixel:
            terms["pixel"] = self.config.pixel * (prediction - driving).abs().mean()
        return terms

    def _anchor(self, motion: Motion) -> dict[str, Tensor]:
        """|mean over the batch of t_k - its point of the sunflower|: keeps the parts apart while they learn."""
        if not self.config.anchor:
            return {}
        start = sunflower(motion.keypoints.shape[1]).to(motion.keypoints)
        return {"anchor": self.config.anchor * (motion.keypoints.mean(dim=0) - start).abs().mean()}

    def _equivariance(self, animator: Animator, driving: Tensor, motion: Motion) -> dict[str, Tensor]:
        config = self.config
        if not (config.equivariance_keypoints or config.equivariance_affine):
            return {}
        transform = Transform.random(len(driving), config.transform, like=motion.keypoints)
        transformed = animator.estimate_motion(transform.frame(driving))
        terms = {}
        if config.equivariance_keypoints:
            value = equivariance_keypoints(motion, transformed, transform)
            terms["equivariance_keypoints"] = config.equivariance_keypoints * value
        if config.equivariance_affine:
            value = equivariance_affine(motion, transformed, transform)
            terms["equivariance_affine"] = config.equivariance_affine * value
        return terms
