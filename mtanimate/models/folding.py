"""Batch normalisation folded into the convolution before it: the same network for inference, in fewer passes."""

import itertools
import re
from collections.abc import Iterator

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mtanimate.models.blocks import ResidualBlock


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """In place, in evaluation mode; a network without batch norms stays as it is. Returns it."""
    for module in network.modules():
        for conv_name, norm_name in _pairs(module):
            conv, norm = module.get_submodule(conv_name), module.get_submodule(norm_name)
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, conv_name, fuse_conv_bn_eval(conv, norm).requires_grad_(False))
                setattr(module, norm_name, nn.Identity())
    return network


def _pairs(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of a module's convolutions, and of the norm that each feeds."""
    names = [name for name, _ in module.named_children()]
    if isinstance(module, nn.Sequential):
        yield from itertools.pairwise(names)
    elif isinstance(module, ResidualBlock):
        yield "conv1", "norm2"  # pre-activation: nothing comes before norm1
    else:
        for name in names:
            norm = re.sub(r"^conv(\d*)$", lambda match: f"bn{match[1]}" if match[1] else "norm", name)
            if norm != name and norm in names:
                yield name, norm
