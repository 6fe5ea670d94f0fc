"""The mask and concentration losses that go with the background predictor (Eq. 11 and 12)."""

from torch import Tensor

from mtanimate.geometry import coordinate_grid


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
