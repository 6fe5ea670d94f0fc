"""The multi-resolution perceptual loss (Eq. 9)."""

import torch
from torch import Tensor, nn

from mtanimate.geometry import antialias_downsample
from mtanimate.models.losses.features import FeatureNetwork


class PerceptualLoss(nn.Module):
    """Mean |difference| of features, summed over the network's taps and the picture's scales.

    relative: divide each tap's term by the mean magnitude of the real picture's features, picture by picture;
    for networks whose taps differ in size by orders of magnitude (EfficientNet). VGG's are taken as they are,
    as in the field.
    """

    def __init__(self, network: FeatureNetwork, scales: tuple[float, ...], relative: bool) -> None:
        super().__init__()
        self.network = network
        self.scales = scales
        self.relative = relative

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [0, 1]; the gradient flows into `prediction` only."""
        return self.table(prediction, target).sum()

    def table(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The terms one by one: (scales, taps)."""
        return torch.stack([self._terms(prediction, target, scale) for scale in self.scales])

    def _terms(self, prediction: Tensor, target: Tensor, scale: float) -> Tensor:
        fake = self.network(antialias_downsample(prediction, scale))
        with torch.no_grad():
            real = self.network(antialias_downsample(target, scale))
        terms = [_magnitude(a - b) for a, b in zip(fake, real, strict=True)]
        if self.relative:
            terms = [term / _magnitude(b) for term, b in zip(terms, real, strict=True)]
        return torch.stack(terms).mean(dim=1)


def _magnitude(features: Tensor) -> Tensor:
    """Mean magnitude in each picture: (B, C, H, W) -> (B,)."""
    return features.abs().mean(dim=(1, 2, 3))
