"""The colour of each motion token, the same in every picture."""

import colorsys

import torch
from torch import Tensor


def token_colours(count: int) -> Tensor:
    """(count, 3) RGB in [0, 1]: hues a golden angle apart, so that neighbours in number differ most."""
    hues = [(0.02 + 0.618034 * index) % 1 for index in range(count)]
    values = [(0.95, 1.0), (0.75, 0.8), (0.5, 1.0)]
    return torch.tensor([colorsys.hsv_to_rgb(hue, *values[i // 6 % 3]) for i, hue in enumerate(hues)])
