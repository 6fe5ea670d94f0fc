"""The optimiser, its learning rate, and the running mean of the weights."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn, optim
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mtanimate.config import Config, TrainingConfig
from mtanimate.errors import InputError
from mtanimate.models.animator import Animator
from mtanimate.training.objective import Phase


def make_optimizer(animator: Animator, config: TrainingConfig, device: torch.device) -> optim.Adam:
    """Adam over what is not frozen, fused into one pass over memory where PyTorch has that."""
    trained = [parameter for parameter in animator.parameters() if parameter.requires_grad]
    if not trained:
        raise InputError("nothing is left to train: freeze fewer parts")
    fused = device.type in ("cpu", "cuda")
    return optim.Adam(trained, lr=config.learning_rate, betas=config.betas, fused=fused)


def check_phases(config: Config) -> None:
    """Raises InputError where a phase would have nothing to train."""
    loss, training = config.loss, config.training
    frozen = {"motion_estimator", "dense_motion"} & set(training.freeze)
    of_the_estimator = loss.equivariance_keypoints or loss.equivariance_affine or loss.anchor or loss.token_landmarks
    if training.equivariance_steps and ("motion_estimator" in frozen or not of_the_estimator):
        raise InputError(
            "training.equivariance_steps: they train the estimator alone, which is frozen or has no loss of its own "
            "(loss.equivariance_keypoints, loss.equivariance_affine, loss.anchor, loss.token_landmarks): set them to 0"
        )
    if training.warmup_steps and len(frozen) == 2:
        raise InputError("training.warmup_steps: what they train is frozen: set them to 0")
    if not (of_the_estimator or loss.perceptual or loss.pixel):
        raise InputError("every loss has weight 0: set loss.perceptual or loss.pixel above it")


def make_ema(animator: Animator, config: TrainingConfig) -> AveragedModel | None:
    if not config.ema:
        return None
    return AveragedModel(animator, multi_avg_fn=get_ema_multi_avg_fn(config.ema), use_buffers=True)


def schedule(config: TrainingConfig, step: int, steps: int) -> float:
    """The learning rate's factor before step `step` (from 0) of `steps`."""
    ramp = min(1.0, (step + 1) / config.ramp_steps) if config.ramp_steps else 1.0
    progress = step / steps
    if config.schedule == "cosine":
        return ramp * 0.5 * (1 + math.cos(math.pi * progress))
    return ramp * 0.1 ** sum(progress >= milestone for milestone in config.milestones)


def phase_of(config: TrainingConfig, step: int) -> Phase:
    """What step `step` (from 0) trains."""
    if step < config.equivariance_steps:
        return Phase.EQUIVARIANCE
    return Phase.WARMUP if step < config.equivariance_steps + config.warmup_steps else Phase.FULL


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Of all of them together; a scalar."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))


class Statistics:
    """A copy of a network's buffers, to take a step's effect on them back."""

    def __init__(self, network: nn.Module) -> None:
        by_type: dict[torch.dtype, list[Tensor]] = {}  # copied type by type: all at once on a GPU
        for buffer in network.buffers():
            by_type.setdefault(buffer.dtype, []).append(buffer)
        self.groups = [(buffers, [buffer.clone() for buffer in buffers]) for buffers in by_type.values()]

    def save(self) -> None:
        for buffers, copies in self.groups:
            torch._foreach_copy_(copies, buffers)

    def restore(self) -> None:
        for buffers, copies in self.groups:
            torch._foreach_copy_(buffers, copies)
