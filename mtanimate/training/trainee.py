"""The network as a step of training sees it: one forward pass from a batch to losses."""

import torch
from torch import nn

from mtanimate.config import Config
from mtanimate.data.loading import Batch
from mtanimate.models.animator import Animator
from mtanimate.training.batch_norm import synchronise
from mtanimate.training.objective import Objective, Outcome, Phase
from mtanimate.training.workers import Workers


class Trainee(nn.Module):
    """An Animator, its objective and the precision it computes in; what DistributedDataParallel wraps."""

    def __init__(self, animator: Animator, config: Config, precision: str, workers: Workers) -> None:
        super().__init__()
        synchronise(animator, workers)
        self.animator = animator
        self.objective = Objective(config.loss, workers.differentiable_mean).to(workers.device)
        self.precision = precision
        self.device_type = workers.device.type
        self.frozen = [part(animator, name) for name in config.training.freeze]
        for module in self.frozen:
            module.requires_grad_(False)

    def forward(self, batch: Batch, phase: Phase) -> Outcome:
        dtype = torch.float16 if self.precision == "fp16" else torch.bfloat16
        with torch.autocast(self.device_type, dtype, enabled=self.precision != "fp32"):
            return self.objective(self.animator, batch, phase)

    def train(self, mode: bool = True) -> "Trainee":
        """As ever, but frozen parts keep their batch statistics."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self


def part(animator: Animator, name: str) -> nn.Module:
    """A part of the network by the name that `training.freeze` has for it."""
    if name == "backbone":
        return animator.get_submodule("motion_estimator.backbone")
    module = getattr(animator, name)
    return module if module is not None else nn.Identity()  # no background predictor: nothing to freeze
