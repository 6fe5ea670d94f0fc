"""The motion estimator of MRAA (Siarohin et al., CVPR 2021): regions, whose principal axes are the affine matrices."""

import torch
from torch import Tensor

from mtanimate.geometry import coordinate_grid
from mtanimate.models.keypoint_detector import HeatmapEstimator
from mtanimate.models.motion import Motion

_ROUND = 1e-3  # a covariance whose two eigenvalues differ by a smaller share of their sum counts as round


class RegionPredictor(HeatmapEstimator):
    """A region is a heat map: its mean is the keypoint, and its covariance U S U^T gives A = U sqrt(S).

    No head is learned for A. An axis points both ways, so A and -A mean the same; `affine_change` chooses between them.
    """

    def forward(self, image: Tensor) -> Motion:
        """Estimates the motion of each picture, (B, 3, H, W) in [0, 1], with matrices known up to sign (`axes`)."""
        _, heatmaps, keypoints = self.detect(image)
        height, width = heatmaps.shape[2:]
        grid = coordinate_grid(height, width, like=heatmaps)
        offset = grid - keypoints[:, :, None, None]
        x, y = offset.unbind(dim=-1)
        # A pixel is a square, not a point: its own variance gives even a map of one pixel a size.
        xx = (heatmaps * x**2).sum(dim=(2, 3)) + (2 / (width - 1)) ** 2 / 12
        yy = (heatmaps * y**2).sum(dim=(2, 3)) + (2 / (height - 1)) ** 2 / 12
        xy = (heatmaps * x * y).sum(dim=(2, 3))
        return Motion(keypoints, principal_axes(xx, xy, yy), kind="axes")


def principal_axes(xx: Tensor, xy: Tensor, yy: Tensor) -> Tensor:
    """The principal axes U sqrt(S) of covariances [[xx, xy], [xy, yy]] = U S U^T.

    The SVD in closed form, with finite gradients also where a covariance is round and has no axes.

    Args:
        xx: variances along x, any shape (...).
        xy: covariances, (...).
        yy: variances along y, (...).

    Returns:
        (..., 2, 2), the longer axis first; U is a rotation by an angle in (-pi/2, pi/2].
    """
    sine, cosine = 2 * xy, xx - yy
    round_ = torch.stack([sine, cosine]).norm(dim=0) < _ROUND * (xx + yy)
    sine, cosine = torch.where(round_, 0.0, sine), torch.where(round_, 1.0, cosine)
    angle = torch.atan2(sine, cosine) / 2
    gap = torch.where(round_, 0.0, (sine**2 + cosine**2).sqrt())  # ONNX has no hypot
    longer = ((xx + yy + gap) / 2).clamp_min(0).sqrt()
    # The product of the two eigenvalues is the determinant: it avoids a difference of nearly equal numbers.
    shorter = (xx * yy - xy**2).clamp_min(1e-12).sqrt() / longer
    cos, sin = torch.cos(angle), torch.sin(angle)
    return torch.stack([cos * longer, -sin * shorter, sin * longer, cos * shorter], dim=-1).unflatten(-1, (2, 2))
