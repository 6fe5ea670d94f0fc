"""One training step from top to bottom, `Trainer.train_step`; below it, what it uses, in the order of use."""

import math
import warnings
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn, optim
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mtanimate.config import Config, DropoutConfig, TrainingConfig
from mtanimate.data.loading import Batch, RawBatch
from mtanimate.errors import InputError
from mtanimate.models.animator import Animator
from mtanimate.models.tpsmm import SplineDenseMotionNetwork
from mtanimate.training.distribution import Workers, synchronise
from mtanimate.training.objective import Objective, Outcome, Phase, Scene


@dataclass(frozen=True)
class Step:
    """The result of a training step.

    Attributes:
        terms: The weighted losses by name, each the mean over all workers; NaN or infinite where they were.
        gradient_norm: The norm of the gradient over all parameters, before clipping; the mean over all workers.
        bad: Empty, or which values were not finite and the clips of the workers where they were not.
        taken: Whether the step changed the network. A bad step does not. Neither does one whose gradients overflowed
            in half precision: it lowers the gradient scale instead.
        stop: Whether any worker was asked to stop.
        scene: What the step computed on its last part, to draw; None while the estimator trains alone.
    """

    terms: dict[str, float]
    gradient_norm: float
    bad: str
    taken: bool
    stop: bool
    scene: Scene | None


class Trainer:
    """Trains an Animator step by step.

    A step whose losses or gradients are not finite changes nothing: no weight, no buffer, no running mean.
    """

    def __init__(self, module: "TrainingModule", config: TrainingConfig, workers: Workers) -> None:
        """Prepare the optimiser, the gradient scaler and the running mean.

        Args:
            module: The network with its losses, on the device it trains on.
            config: Hyperparameters of the optimisation.
            workers: The processes of this run.

        Raises:
            InputError: Every part of the network is frozen.
        """
        self.module, self.config, self.workers = module, config, workers
        self.animator = module.animator
        if config.compile:
            module.compile()
        self.wrapped = module if workers.count == 1 else self._distributed()
        self.optimizer = make_optimizer(self.animator, config, workers.device)
        self.scaler = torch.amp.GradScaler(workers.device.type, enabled=module.precision == "fp16")
        self.ema = make_ema(self.animator, config)
        self.buffers = BufferCopy(self.animator)

    def train_step(self, parts: list[RawBatch], step: int, steps: int, stop: bool = False) -> Step:
        """Take one optimiser step on this worker's share of the batch.

        Args:
            parts: The share, in `training.accumulate` batches of equal size.
            step: The number of the step, from 0.
            steps: The number of steps of the whole run.
            stop: Ask all workers to stop after this step.
        """
        phase = phase_of(self.config, step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * schedule(self.config, step, steps)
        if isinstance(self.animator.dense_motion, SplineDenseMotionNetwork):
            self.animator.dense_motion.dropout = dropout(self.config.dropout, step, steps)
        self.buffers.save()
        self.optimizer.zero_grad(set_to_none=True)

        # Forward and backward, part by part. Workers exchange gradients once, after the last part.
        own = torch.zeros((), device=self.workers.device)
        for part in parts:
            with nullcontext() if part is parts[-1] else self._without_exchange():
                batch = part.to(self.workers.device).augmented(self.animator.config.resolution)
                outcome = self.wrapped(batch, phase)
                terms = torch.stack(list(outcome.terms.values())).float() / len(parts)
                self.scaler.scale(terms.sum()).backward()
            own = own + terms.detach()
        self.scaler.unscale_(self.optimizer)

        # One exchange tells every worker the mean losses, the gradient's norm, and whether to stop.
        norm = gradient_norm(self.animator.parameters())
        asked = torch.tensor([float(stop)], device=own.device)
        *means, length, stopped = self.workers.mean(torch.cat([own, norm.float()[None], asked])).tolist()
        losses = dict(zip(outcome.terms, means, strict=True))

        # A step is bad where a loss, or the gradient, is not finite. In half precision an overflow of the gradient
        # alone is the scaler's business: the step is left out, and the scale is lowered.
        not_finite = [name for name, value in losses.items() if not math.isfinite(value)]
        if not not_finite and not math.isfinite(length) and not self.scaler.is_enabled():
            not_finite = ["the gradient"]
        taken = not not_finite and math.isfinite(length)

        if taken:
            if self.config.clip_gradient:
                nn.utils.clip_grad_norm_(self.animator.motion_estimator.parameters(), self.config.clip_gradient)
            self.scaler.step(self.optimizer)
            if self.ema is not None:
                self.ema.update_parameters(self.animator)
        else:
            self.buffers.restore()
            self.optimizer.zero_grad(set_to_none=True)
        self.scaler.update()

        bad = self._describe(not_finite, own, parts) if not_finite else ""
        return Step(losses, length, bad, taken, stopped > 0, outcome.scene)

    def _distributed(self) -> nn.Module:
        # Only in the first phases are there parts without a gradient; looking for them costs time.
        phases = self.config.equivariance_steps + self.config.warmup_steps > 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # broadcast_buffers has another name in newer PyTorch
            return DistributedDataParallel(
                self.module, broadcast_buffers=False, gradient_as_bucket_view=True, find_unused_parameters=phases
            )

    def _without_exchange(self) -> AbstractContextManager:
        return self.wrapped.no_sync() if isinstance(self.wrapped, DistributedDataParallel) else nullcontext()

    def _describe(self, not_finite: list[str], own: Tensor, parts: list[RawBatch]) -> str:
        """Which values were not finite, and for which clips, gathered from all workers."""
        here = not own.isfinite().all() or not_finite == ["the gradient"]
        clips = [clip for part in parts for clip in part.clips] if here else []
        return f"{', '.join(not_finite)} not finite (clips {', '.join(sorted(set(self.workers.gather(clips))))})"


class TrainingModule(nn.Module):
    """An Animator, its losses and the precision they are computed in; the module that DistributedDataParallel wraps."""

    def __init__(self, animator: Animator, config: Config, precision: str, workers: Workers) -> None:
        """Share batch statistics between the workers, and freeze the parts in `training.freeze`.

        Args:
            animator: The network, on its device.
            config: The run's settings.
            precision: "fp32", "bf16" or "fp16".
            workers: The processes of this run.
        """
        super().__init__()
        synchronise(animator, workers)
        self.animator = animator
        self.objective = Objective(config.loss, workers.differentiable_mean).to(workers.device)
        self.precision = precision
        self.device_type = workers.device.type
        self.frozen = [_part(animator, name) for name in config.training.freeze]
        for module in self.frozen:
            module.requires_grad_(False)

    def forward(self, batch: Batch, phase: Phase) -> Outcome:
        dtype = torch.float16 if self.precision == "fp16" else torch.bfloat16
        with torch.autocast(self.device_type, dtype, enabled=self.precision != "fp32"):
            return self.objective(self.animator, batch, phase)

    def train(self, mode: bool = True) -> "TrainingModule":
        """As in PyTorch, except that frozen parts keep their batch statistics."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self


def _part(animator: Animator, name: str) -> nn.Module:
    """The part of the network that `training.freeze` calls `name`."""
    if name == "backbone":
        return animator.get_submodule("motion_estimator.backbone")
    module = getattr(animator, name)
    return module if module is not None else nn.Identity()  # no background predictor: nothing to freeze


def make_optimizer(animator: Animator, config: TrainingConfig, device: torch.device) -> optim.Adam:
    """Adam over the parameters that are not frozen, fused into one pass over memory where PyTorch supports it.

    Raises:
        InputError: Every parameter is frozen.
    """
    trained = [parameter for parameter in animator.parameters() if parameter.requires_grad]
    if not trained:
        raise InputError("nothing is left to train: freeze fewer parts")
    fused = device.type in ("cpu", "cuda")
    return optim.Adam(trained, lr=config.learning_rate, betas=config.betas, fused=fused)


def make_ema(animator: Animator, config: TrainingConfig) -> AveragedModel | None:
    """The running mean of weights and buffers; None where `training.ema` is 0."""
    if not config.ema:
        return None
    return AveragedModel(animator, multi_avg_fn=get_ema_multi_avg_fn(config.ema), use_buffers=True)


def schedule(config: TrainingConfig, step: int, steps: int) -> float:
    """The factor of the learning rate for step `step` (from 0) of `steps`, in [0, 1]."""
    ramp = min(1.0, (step + 1) / config.ramp_steps) if config.ramp_steps else 1.0
    progress = step / steps
    if config.schedule == "cosine":
        return ramp * 0.5 * (1 + math.cos(math.pi * progress))
    return ramp * 0.1 ** sum(progress >= milestone for milestone in config.milestones)


def dropout(config: DropoutConfig, step: int, steps: int) -> float:
    """The probability, for step `step` (from 0) of `steps`, that a part is left out."""
    progress = step / steps
    if progress >= config.until:
        return 0.0
    return min(config.most, config.first + config.most * progress / config.rise)


def phase_of(config: TrainingConfig, step: int) -> Phase:
    """The phase that step `step` (from 0) belongs to."""
    if step < config.equivariance_steps:
        return Phase.EQUIVARIANCE
    return Phase.WARMUP if step < config.equivariance_steps + config.warmup_steps else Phase.FULL


def check_phases(config: Config) -> None:
    """Raises InputError where a phase would have nothing to train."""
    loss, training = config.loss, config.training
    frozen = {"motion_estimator", "dense_motion"} & set(training.freeze)
    of_the_estimator = loss.equivariance_keypoints or loss.equivariance_affine or loss.anchor or loss.token_landmarks
    if training.equivariance_steps and ("motion_estimator" in frozen or not of_the_estimator):
        raise InputError(
            "training.equivariance_steps: these steps train the estimator alone, which is frozen or has no loss of its "
            "own (loss.equivariance_keypoints, loss.equivariance_affine, loss.anchor, loss.token_landmarks): set them "
            "to 0"
        )
    if training.warmup_steps and len(frozen) == 2:
        raise InputError("training.warmup_steps: everything that these steps train is frozen: set them to 0")
    if not (of_the_estimator or loss.perceptual or loss.pixel):
        raise InputError("every loss has weight 0: set loss.perceptual or loss.pixel above it")


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The norm of all gradients together: a scalar."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))


class BufferCopy:
    """A copy of a network's buffers, such as batch statistics, to undo what a step did to them."""

    def __init__(self, network: nn.Module) -> None:
        by_type: dict[torch.dtype, list[Tensor]] = {}  # a GPU copies all buffers of one type at once
        for buffer in network.buffers():
            by_type.setdefault(buffer.dtype, []).append(buffer)
        self._groups = [(buffers, [buffer.clone() for buffer in buffers]) for buffers in by_type.values()]

    def save(self) -> None:
        """Copy the buffers."""
        for buffers, copies in self._groups:
            torch._foreach_copy_(copies, buffers)

    def restore(self) -> None:
        """Set the buffers to what they were at the last `save`."""
        for buffers, copies in self._groups:
            torch._foreach_copy_(buffers, copies)
