"""What keeps the background where it is: the losses that go with the predictor (Eq. 11 and 12), and one without."""

from torch import Tensor

from mtanimate.geometry import coordinate_grid, resize

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
