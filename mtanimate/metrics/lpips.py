"""LPIPS by the package `lpips` (Zhang et al., "The Unreasonable Effectiveness of Deep Features", 2018)."""

import importlib.metadata
import warnings

import torch
from torch import Tensor

from mtanimate.errors import InputError

NAME = "AlexNet, version 0.1 of its linear layers"


class Lpips:
    """Two (B, 3, H, W) in [0, 1] -> (B,), 0 for equal pictures. Raises InputError, naming the extra, where the
    package is missing, or AlexNet's weights, which torchvision fetches when they are first used."""

    def __init__(self, device: torch.device) -> None:
        try:
            import lpips
        except ImportError as error:
            raise InputError("lpips needs the package of that name: pip install 'mtanimate[lpips]'") from error
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torchvision, about the way the package calls it
                self._network = lpips.LPIPS(net="alex", verbose=False).to(device)
        except OSError as error:
            raise InputError(
                f"lpips needs AlexNet's weights, and torchvision cannot fetch them ({error}): connect this machine, or "
                f"put alexnet-owt-7be5be79.pth into {torch.hub.get_dir()}/checkpoints"
            ) from error
        self.name = f"lpips {importlib.metadata.version('lpips')}, {NAME}"

    def __call__(self, truth: Tensor, generated: Tensor) -> Tensor:
        return self._network(truth * 2 - 1, generated * 2 - 1).reshape(-1)
