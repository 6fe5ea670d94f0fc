"""Losses on motion: equivariance (Eq. 10, and FOMM's term on the affine matrices), masks (Eq. 11, 12) and flow."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mtanimate.config import TransformConfig
from mtanimate.geometry import coordinate_grid, inverse_2x2, matmul_2x2, resize, sample, transform_points
from mtanimate.models.motion import Motion


@dataclass(frozen=True)
class Transform:
    """T(c) = theta [c; 1] + sum_p w_p r_p^2 log(r_p + 1e-6), the sum added to x and y alike.

    r_p is the L1 distance to control point p. theta: (B, 2, 3); control_points: (P, 2); weights w: (B, P).
    """

    theta: Tensor
    control_points: Tensor
    weights: Tensor

    @staticmethod
    def random(random: np.random.Generator, config: TransformConfig) -> "Transform":
        """One of them: identity plus normal noise, `sigma_affine` on theta and `sigma_tps` on the weights."""
        points = config.points_tps
        noise = torch.from_numpy(random.standard_normal((1, 2, 3))).float()
        weights = torch.from_numpy(random.standard_normal((1, points**2))).float()
        theta = torch.eye(2, 3) + config.sigma_affine * noise
        control = coordinate_grid(points, points, theta).flatten(0, 1)
        return Transform(theta, control, config.sigma_tps * weights)

    def repeat(self, times: int) -> "Transform":
        """The same for a batch that is repeated as a whole."""
        return Transform(self.theta.repeat(times, 1, 1), self.control_points, self.weights.repeat(times, 1))

    def points(self, coordinates: Tensor) -> Tensor:
        """T of (B, N, 2) coordinates."""
        moved = transform_points(self.theta[:, None, :, :2], coordinates) + self.theta[:, None, :, 2]
        distance = self._distances(coordinates)
        radial = (self.weights[:, None] * distance**2 * torch.log(distance + 1e-6)).sum(dim=-1)
        return moved + radial[..., None]

    def jacobian(self, coordinates: Tensor) -> Tensor:
        """dT/dc at (B, N, 2) coordinates: (B, N, 2, 2), row = output coordinate. In closed form."""
        offset = coordinates[:, :, None] - self.control_points
        distance = self._distances(coordinates)
        slope = 2 * distance * torch.log(distance + 1e-6) + distance**2 / (distance + 1e-6)
        radial = ((self.weights[:, None] * slope)[..., None] * torch.sign(offset)).sum(dim=2)
        return self.theta[:, None, :, :2] + radial[:, :, None, :]

    def frame(self, image: Tensor) -> Tensor:
        """T(Z): each pixel of (B, 3, H, W) reads Z at T(pixel), reflected at the border."""
        height, width = image.shape[2:]
        grid = coordinate_grid(height, width, self.theta).flatten(0, 1).expand(len(image), -1, -1)
        return sample(image, self.points(grid).unflatten(1, (height, width)), padding="reflection")

    def _distances(self, coordinates: Tensor) -> Tensor:
        return (coordinates[:, :, None] - self.control_points).abs().sum(dim=-1)


def equivariance_keypoints(motion: Motion, transformed: Motion, transform: Transform) -> Tensor:
    """Eq. 10 as a mean: |t(Z) - T(t(T(Z)))| over batch, parts, x and y."""
    return (motion.keypoints - transform.points(transformed.keypoints)).abs().mean()


def equivariance_affine(motion: Motion, transformed: Motion, transform: Transform) -> Tensor:
    """FOMM's term: mean |I - A(Z)^-1 (dT/dc at t(T(Z))) A(T(Z))|."""
    turned = matmul_2x2(transform.jacobian(transformed.keypoints), transformed.affine)
    product = matmul_2x2(inverse_2x2(motion.affine), turned)
    identity = torch.eye(2, dtype=product.dtype, device=product.device)
    return (identity - product).abs().mean()


_NOBODY = 0.02  # of a pixel; a matte's rim is neither person nor background


def mask_loss(masks: Tensor) -> Tensor:
    """Eq. 11 with means: the background's mask to 1, the parts' to 0 (weighted 10 / K, as in the release).

    masks: (B, K+1, h, w), background first.
    """
    parts = masks[:, 1:]
    return (masks[:, 0] - 1).abs().mean() + 10 / parts.shape[1] * parts.mean()


def concentration_loss(masks: Tensor) -> Tensor:
    """Eq. 12: the spread of each part's mask about its mean coordinate, summed over parts."""
    parts = masks[:, 1:]
    weights = parts / (parts.sum(dim=(2, 3), keepdim=True) + 1e-8)
    grid = coordinate_grid(parts.shape[2], parts.shape[3], like=parts)
    mean = (weights[..., None] * grid).sum(dim=(2, 3), keepdim=True)
    spread = weights * ((grid - mean) ** 2).sum(dim=-1)
    return spread.sum(dim=(1, 2, 3)).mean()


def still_loss(flow: Tensor, people: Tensor) -> Tensor:
    """Mean |displacement|, summed over x and y, where neither the source nor the driving frame has a person.

    flow: backward, (B, h, w, 2). people: (2, B, 1, R, R), how much of each pixel is a person, of the sources, then of
    the driving frames; 1 throughout where it is not known whether the background stands still.
    """
    size = (flow.shape[1], flow.shape[2])
    nobody = (resize(people.amax(dim=0), size) < _NOBODY).to(flow.dtype)[:, 0]
    moved = (flow - coordinate_grid(*size, like=flow)).abs().sum(dim=-1)
    return (moved * nobody).sum() / nobody.sum().clamp_min(1)
