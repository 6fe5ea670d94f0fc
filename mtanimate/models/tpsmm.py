"""The motion half of the Thin-Plate Spline Motion Model (Zhao and Zhang, CVPR 2022): parts that bend.

A part's motion is a thin-plate spline in place of an affine map about a keypoint. Its control points are five keypoints
of the driving picture, its targets the same five of the source.
"""

import itertools

import torch
from torch import Tensor, nn

from mtanimate.config import DenseMotionConfig, SplineEstimatorConfig
from mtanimate.config.model import SPLINE_POINTS
from mtanimate.geometry import antialias_downsample, full_precision
from mtanimate.models.blocks import instance_norm
from mtanimate.models.dense_motion import DenseMotionNetwork, with_background
from mtanimate.models.motion import Motion
from mtanimate.models.resnet import ResNet18
from mtanimate.models.thin_plate_splines import fit_splines

_HIDDEN = (256, 512, 1024)  # widths of the layers between keypoints and their codes


class SplineEstimator(nn.Module):
    """Regresses the control points of all splines by a ResNet-18.

    Args:
        config: sizes.
        num_keypoints: the number of control points of all splines together.
    """

    def __init__(self, config: SplineEstimatorConfig, num_keypoints: int) -> None:
        super().__init__()
        self.scale_factor = config.scale_factor
        self.resnet = ResNet18(3, 2 * num_keypoints, config.width)
        self.disentanglement: Disentanglement | None = None
        if config.identity_width:
            self.disentanglement = Disentanglement(num_keypoints, config.identity_width, config.pose_width)

    def forward(self, frames: Tensor) -> Motion:
        """Estimates the motion of each picture, (B, 3, H, W) in [0, 1]; control points of a spline follow each other.

        A spline needs no matrices: they are the identity.
        """
        numbers = self.resnet(antialias_downsample(frames, self.scale_factor))
        return spline_motion(2 * torch.sigmoid(numbers).unflatten(1, (-1, 2)) - 1)


def spline_motion(keypoints: Tensor) -> Motion:
    """The motion of control points (B, K, 2)."""
    identity = torch.eye(2, dtype=keypoints.dtype, device=keypoints.device)
    return Motion(keypoints, identity.repeat(*keypoints.shape[:2], 1, 1), kind="splines")


class Disentanglement(nn.Module):
    """Tells a subject's shape from its pose (the model's animation via disentanglement, AVD).

    Args:
        num_keypoints: of a picture.
        identity_width: numbers of the code of a shape.
        pose_width: numbers of the code of a pose.
    """

    def __init__(self, num_keypoints: int, identity_width: int, pose_width: int) -> None:
        super().__init__()
        numbers = 2 * num_keypoints
        self.identity = _layers(numbers, *_HIDDEN, identity_width)
        self.pose = _layers(numbers, *_HIDDEN, pose_width)
        self.decoder = _layers(pose_width + identity_width, *_HIDDEN[::-1], numbers)

    def forward(self, source: Tensor, driving: Tensor) -> Tensor:
        """Keypoints of the source's shape in the driver's pose.

        Args:
            source: (B or 1, K, 2).
            driving: (B, K, 2).

        Returns:
            (B, K, 2).
        """
        pose = self.pose(driving.flatten(1))
        identity = self.identity(source.flatten(1)).expand(pose.shape[0], -1)
        return self.decoder(torch.cat([pose, identity], dim=1)).unflatten(1, driving.shape[1:])


def _layers(*widths: int) -> nn.Sequential:
    """Linear layers, with a batch norm and a ReLU after each but the last."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-2])


class SplineDenseMotionNetwork(DenseMotionNetwork):
    """As its parent, with a mask for each spline, heat maps of all control points, and instance norms.

    Args:
        config: sizes, and which maps of occlusion there are.
        num_keypoints: the number of control points of all splines together.

    Attributes:
        dropout: probability that a spline is left out of the flow of a picture, in training. At inference none is.
    """

    def __init__(self, config: DenseMotionConfig, num_keypoints: int) -> None:
        nn.Module.__init__(self)
        splines = num_keypoints // SPLINE_POINTS
        self._build(config, splines, 3 * (splines + 1) + num_keypoints + 1, instance_norm)
        self.dropout = 0.0

    def _motions(self, source: Motion, driving: Motion, grid: Tensor) -> Tensor:
        with full_precision(grid.device):  # half precision is not enough for coordinates
            groups = (motion.keypoints.unflatten(1, (-1, SPLINE_POINTS)) for motion in (driving, source))
            return fit_splines(*groups)(grid)

    def _masks(self, logits: Tensor) -> Tensor:
        if self.training and self.dropout:
            dropped = torch.rand(logits.shape[:2], device=logits.device) < self.dropout
            dropped[:, 0] = False  # the background stays
            logits = logits.masked_fill(dropped[:, :, None, None], -torch.inf)
        return super()._masks(logits)

    def _inputs(self, reduced: Tensor, motions: Tensor, heatmaps: Tensor) -> Tensor:
        """All heat maps, then the deformed sources, the background's first in both: (B, K + 1 + 3 (G + 1), h, w)."""
        deformed = self._deformed(reduced, motions)
        both = torch.cat([with_background(heatmaps).to(deformed.dtype), deformed.flatten(1, 2)], dim=1)
        return both.contiguous(memory_format=torch.channels_last)  # convolutions are several times as fast
