"""The losses of a training step: what each phase trains, on which pictures, and by which terms."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtanimate.config import LossConfig
from mtanimate.data.loading import Batch
from mtanimate.errors import InputError
from mtanimate.geometry import coordinate_grid, resize, sample
from mtanimate.models.animator import Animator
from mtanimate.models.dense_motion import DenseMotion
from mtanimate.models.losses.face import close_ups, contour_points, expression_loss, landmark_loss, token_landmark_loss
from mtanimate.models.losses.motion import (
    Transform,
    concentration_loss,
    equivariance_affine,
    equivariance_keypoints,
    mask_loss,
    still_loss,
)
from mtanimate.models.losses.perceptual import EfficientNetLite0Features, PerceptualLoss, VGG19Features
from mtanimate.models.motion import Motion
from mtanimate.models.motion_transformer import sunflower
from mtanimate.training.detail import at_full_size

_MOUTH, _EYES = 14, 168  # vertices of the face mesh: the lower lip, and the bridge of the nose
_SPREAD = 0.08  # standard deviation of a window's centre about them, in coordinates
# The weight of a pixel in the painting term: what a pixel counts that the warped source gets right, and the difference
# from the driving frame that adds 1 to it.
_PAINTED, _MISSED = 0.15, 0.15


class Phase(Enum):
    """What a step trains.

    EQUIVARIANCE: The estimator alone. WARMUP: The motion half; the warped source is the prediction. FULL: Everything.
    """

    EQUIVARIANCE = "equivariance"
    WARMUP = "warm-up"
    FULL = "everything"


@dataclass(frozen=True)
class Scene:
    """What a step computed, of whole pictures or of the windows that were trained on.

    Attributes:
        source: (B, 3, H, W) in [0, 1]; B is twice the batch where both directions are trained.
        driving: The same shape; what the prediction should be.
        source_motion: The sources' motion.
        driving_motion: The driving frames' motion.
        prediction: The same shape.
        dense: The dense motion from the sources to the driving frames.
    """

    source: Tensor
    driving: Tensor
    source_motion: Motion
    driving_motion: Motion
    prediction: Tensor
    dense: DenseMotion

    def detach(self) -> "Scene":
        """The same without gradients."""
        return Scene(
            self.source,
            self.driving,
            self.source_motion.detach(),
            self.driving_motion.detach(),
            self.prediction.detach(),
            self.dense.detach(),
        )

    def first(self, count: int) -> "Scene":
        """The first `count` of the batch."""
        few = slice(count)
        return Scene(
            self.source[few],
            self.driving[few],
            self.source_motion[few],
            self.driving_motion[few],
            self.prediction[few],
            self.dense.each(lambda tensor: tensor[few]),
        )


@dataclass(frozen=True)
class Outcome:
    """The weighted losses by name, and what was computed; no scene while the estimator trains alone."""

    terms: dict[str, Tensor]
    scene: Scene | None


class Objective(nn.Module):
    """The weighted losses of an Animator on pairs of frames. It has no parameters that are trained."""

    def __init__(self, config: LossConfig, batch_mean: Callable[[Tensor], Tensor] = lambda mean: mean) -> None:
        """Load what the losses need.

        Args:
            config: The weights.
            batch_mean: Turns a mean over this process's pictures into the mean over all workers' pictures.

        Raises:
            InputError: The weights of the perceptual loss are missing.
        """
        super().__init__()
        self.config = config
        self.batch_mean = batch_mean
        self.perceptual = perceptual_loss(config)

    def forward(self, animator: Animator, batch: Batch, phase: Phase = Phase.FULL) -> Outcome:
        """Compute the losses of a phase on a batch."""
        frames = torch.cat([batch.source, batch.driving])
        motion = animator.estimate_motion(frames)
        if phase is Phase.EQUIVARIANCE:
            terms = self._equivariance(animator, frames, motion, batch.transform.repeat(2))
            return Outcome(terms | self._anchor(motion) | self._tokens(motion, batch), None)
        # `driving` has the other frame of each pair: what each frame is to become.
        count = len(batch.source)
        driving, driving_motion = frames.roll(count, dims=0), motion.roll(count)
        terms = self._equivariance(animator, batch.driving, driving_motion[:count], batch.transform)
        terms |= self._anchor(motion) | self._tokens(motion, batch)
        meshes = driving_meshes = None
        if batch.landmarks is not None:
            meshes = batch.landmarks.flatten(0, 1)
            driving_meshes = meshes.roll(count, dims=0)
        if not self.config.both_directions:
            frames, driving = batch.source, batch.driving
            motion, driving_motion = motion[:count], driving_motion[:count]
            meshes, driving_meshes = (None if mesh is None else mesh[:count] for mesh in (meshes, driving_meshes))
        if self.config.window and phase is Phase.FULL:
            dense = animator.dense_motion(animator.dense_motion.reduce(frames), motion, driving_motion)
            scene, painted = self._in_windows(animator, frames, driving, motion, driving_motion, dense, driving_meshes)
            terms |= self._painting(scene, painted) | self._warped(dense, frames, driving)
        else:
            prediction, dense = self._predict(animator, frames, driving, motion, driving_motion, phase)
            scene = Scene(frames, driving, motion, driving_motion, prediction, dense)
            if batch.full is not None and phase is Phase.FULL:
                terms["detail"] = self._detail(scene, batch.full)
        terms |= self._reconstruction(scene.prediction, scene.driving)
        if meshes is not None and driving_meshes is not None:
            terms |= self._landmarks(dense, meshes, driving_meshes)
            if self.config.close_up:
                terms["close_up"] = self._close_up(batch, scene.prediction, driving, driving_meshes)
        terms |= self._dense(dense, batch)
        return Outcome(terms, scene.detach())

    def _dense(self, dense: DenseMotion, batch: Batch) -> dict[str, Tensor]:
        """The terms on masks and flow alone."""
        terms = {}
        if self.config.mask:
            terms["mask"] = self.config.mask * mask_loss(dense.masks)
        if self.config.concentration:
            terms["concentration"] = self.config.concentration * concentration_loss(dense.masks)
        if self.config.still and batch.people is not None:
            people = batch.people.flatten(0, 1)
            both = torch.stack([people, people.roll(len(batch.source), dims=0)])[:, : len(dense.flow)]
            terms["still"] = self.config.still * still_loss(dense.flow, both)
        return terms

    def _in_windows(
        self,
        animator: Animator,
        source: Tensor,
        driving: Tensor,
        motion: Motion,
        driving_motion: Motion,
        dense: DenseMotion,
        meshes: Tensor | None,
    ) -> tuple[Scene, Tensor]:
        """Run the generator on windows of the pictures, most of them about the driving faces' eyes and mouths.

        Args:
            animator: The network.
            source: (B, 3, R, R) in [0, 1].
            driving: The same shape.
            motion: The sources' motion.
            driving_motion: The driving frames' motion.
            dense: The dense motion of the whole pictures.
            meshes: The driving faces, (B, 478, 2) in coordinates, NaN where there is none; None for windows anywhere.

        Returns:
            The scene in the windows, and what the generator painted behind the warped source.
        """
        windows = Windows.draw(driving, self.config.window, meshes)
        seen = windows.dense(dense, driving.shape[-1])
        source, driving = windows.cut(source), windows.cut(driving)
        painted = animator.generator.paint(animator.generator.encode(source), seen)
        prediction = animator.generator.blend(source, painted, seen).float()
        motions = windows.motion(motion), windows.motion(driving_motion)
        return Scene(source, driving, *motions, prediction, seen), painted.float()

    def _warped(self, dense: DenseMotion, source: Tensor, driving: Tensor) -> dict[str, Tensor]:
        """The warped source of whole pictures, (B, 3, R, R) each, compared at the size of the flow."""
        if not self.config.warped:
            return {}
        source, driving = (F.interpolate(frames, dense.flow.shape[1:3], mode="area") for frames in (source, driving))
        return {"warped": self.config.warped * (dense.warp(source) - driving).abs().mean()}

    def _painting(self, scene: Scene, painted: Tensor) -> dict[str, Tensor]:
        """What is painted behind the warped source. Where the warped source is shown, no other term trains it."""
        if not self.config.painting:
            return {}
        missed = (scene.dense.warp(scene.source) - scene.driving).abs().mean(dim=1, keepdim=True).detach()
        weight = (_PAINTED + missed / _MISSED).clamp(max=2.0)
        value = self.config.pixel * (weight * (painted - scene.driving).abs()).mean()
        if self.perceptual is not None:
            value = value + self.config.perceptual * self.perceptual(painted, scene.driving)
        return {"painting": self.config.painting * value}

    def _predict(
        self, animator: Animator, source: Tensor, driving: Tensor, motion: Motion, driving_motion: Motion, phase: Phase
    ) -> tuple[Tensor, DenseMotion]:
        if phase is Phase.WARMUP:
            prediction, dense = animator.warp_source(source, motion, driving_motion)
        else:
            background = animator.predict_background(source, driving)
            rendering = animator.render(animator.encode_source(source, motion), driving_motion, background)
            prediction, dense = rendering.prediction, rendering.motion
        return prediction.float(), dense

    def _reconstruction(self, prediction: Tensor, driving: Tensor) -> dict[str, Tensor]:
        terms = {}
        if self.perceptual is not None:
            terms["perceptual"] = self.config.perceptual * self.perceptual(prediction, driving)
        if self.config.pixel:
            terms["pixel"] = self.config.pixel * (prediction - driving).abs().mean()
        return terms

    def _detail(self, scene: Scene, full: Tensor) -> Tensor:
        """The reconstruction at full size. full: (2, B, 3, F, F), as `Batch.full`."""
        count = len(scene.source)
        source, driving = full.flatten(0, 1)[:count], full.flip(0).flatten(0, 1)[:count]
        rendered = at_full_size(source, scene.source, scene.prediction, scene.dense)
        values = self._reconstruction(rendered, driving).values()
        return self.config.detail * sum(values, start=0 * rendered.sum())

    def _landmarks(self, dense: DenseMotion, meshes: Tensor, driving_meshes: Tensor) -> dict[str, Tensor]:
        """The terms on where the flow says that landmarks come from. Both meshes: (B, 478, 2) in coordinates."""
        terms = {}
        source_points, driving_points = contour_points(meshes), contour_points(driving_meshes)
        if self.config.expression:
            value = expression_loss(dense.flow, meshes, driving_meshes)
            terms["expression"] = self.config.expression * value
        if self.config.landmarks:
            terms["landmarks"] = self.config.landmarks * landmark_loss(dense.flow, source_points, driving_points)
        return terms

    def _close_up(self, batch: Batch, prediction: Tensor, driving: Tensor, meshes: Tensor) -> Tensor:
        """The reconstruction of mouths and eyes, enlarged. meshes: The driving faces, (B, 478, 2) in coordinates."""
        assert batch.faces is not None
        of_sources, faces = batch.faces
        if self.config.both_directions:
            faces = torch.cat([faces, of_sources + len(batch.source)])
        fake, real = close_ups(torch.cat([prediction, driving], dim=1), contour_points(meshes), faces).split(3, dim=1)
        values = self._reconstruction(fake, real).values() if len(faces) else []  # no face was found
        return self.config.close_up * sum(values, start=0 * prediction.sum())

    def _anchor(self, motion: Motion) -> dict[str, Tensor]:
        """|mean over the batch of t_k - its point of the sunflower|: keeps the parts apart during training."""
        if not self.config.anchor:
            return {}
        start = _sunflower(motion.keypoints.shape[1], motion.keypoints.device).to(motion.keypoints.dtype)
        mean = self.batch_mean(motion.keypoints.mean(dim=0))
        return {"anchor": self.config.anchor * (mean - start).abs().mean()}

    def _tokens(self, motion: Motion, batch: Batch) -> dict[str, Tensor]:
        """The distance of tied tokens to their landmarks, in both frames of each pair."""
        if not self.config.token_landmarks or batch.landmarks is None:
            return {}
        value = token_landmark_loss(motion.keypoints, batch.landmarks.flatten(0, 1))
        return {"token_landmarks": self.config.token_landmarks * value}

    def _equivariance(
        self, animator: Animator, driving: Tensor, motion: Motion, transform: Transform
    ) -> dict[str, Tensor]:
        config = self.config
        if not (config.equivariance_keypoints or config.equivariance_affine):
            return {}
        transformed = animator.estimate_motion(transform.frame(driving))
        terms = {}
        if config.equivariance_keypoints:
            value = equivariance_keypoints(motion, transformed, transform)
            terms["equivariance_keypoints"] = config.equivariance_keypoints * value
        if config.equivariance_affine:
            value = equivariance_affine(motion, transformed, transform)
            terms["equivariance_affine"] = config.equivariance_affine * value
        return terms


def perceptual_loss(config: LossConfig) -> PerceptualLoss | None:
    """The perceptual loss of a configuration, if any. Raises InputError where its weights are missing."""
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


@lru_cache
def _sunflower(count: int, device: torch.device) -> Tensor:
    """Kept on the device: copying it there at every step would stall a GPU."""
    with torch.inference_mode(False):
        return sunflower(count).to(device)


@dataclass(frozen=True)
class Windows:
    """A square of whole pixels in each picture of a batch.

    A generator learns from windows what it learns from whole pictures, in less time.

    Attributes:
        middles: The centres, (B, 2) in coordinates.
        half: Half the side, in coordinates.
        side: The side, in pixels.
    """

    middles: Tensor
    half: float
    side: int

    @staticmethod
    def draw(driving: Tensor, side: int, meshes: Tensor | None) -> "Windows":
        """Draw windows: a third of them about mouths, a third about eyes, the rest anywhere.

        Args:
            driving: (B, 3, R, R).
            side: The side in pixels, at most R.
            meshes: The faces in `driving`, (B, 478, 2) in coordinates, NaN where there is none.
        """
        batch, size = len(driving), driving.shape[-1]
        side = min(side, size)
        anywhere = 2 * torch.rand(batch, 2, device=driving.device) - 1
        middles = anywhere
        if meshes is not None:
            kind = torch.rand(batch, 1, device=driving.device)
            chosen = torch.where(kind < 1 / 3, meshes[:, _MOUTH], meshes[:, _EYES])
            chosen = chosen + _SPREAD * torch.randn_like(chosen)
            middles = torch.where((kind > 2 / 3) | chosen.isnan(), anywhere, chosen)
        corners = ((middles + 1) / 2 * (size - 1) - (side - 1) / 2).round().clamp(0, size - side)
        return Windows((2 * corners + side - 1) / (size - 1) - 1, (side - 1) / (size - 1), side)

    def cut(self, pictures: Tensor) -> Tensor:
        """Cut the windows out of pictures: (B, C, R, R) to (B, C, side, side)."""
        grid = self.half * coordinate_grid(self.side, self.side, self.middles) + self.middles[:, None, None]
        return sample(pictures, grid, exact=True).contiguous(memory_format=torch.channels_last)

    def motion(self, motion: Motion) -> Motion:
        """Motion in the coordinates of the windows."""
        keypoints = (motion.keypoints - self.middles[:, None]) / self.half
        return replace(motion, keypoints=keypoints, affine=motion.affine / self.half)

    def dense(self, dense: DenseMotion, size: int) -> DenseMotion:
        """Dense motion in the windows. Where it points outside of them, the edge is read. size: R of the pictures."""
        flow = self.cut(resize(dense.flow.permute(0, 3, 1, 2), (size, size), exact=dense.exact)).permute(0, 2, 3, 1)
        flow = (flow - self.middles[:, None, None]) / self.half
        occlusion = None if dense.occlusion is None else self.cut(resize(dense.occlusion, (size, size)))
        openings = None if dense.openings is None else self.cut(resize(dense.openings, (size, size)))
        several = []
        for one in dense.occlusions:  # each keeps its share of the pictures' size
            own = self.side * one.shape[-1] // size
            several.append(resize(self.cut(resize(one, (size, size))), (own, own)))
        masks = self.cut(resize(dense.masks, (size, size)))
        return DenseMotion(masks, flow, occlusion, dense.exact, openings, dense.padding, tuple(several))
