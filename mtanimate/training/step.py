"""The optimiser, its learning rate, and the running mean of the weights."""

import math
import warnings
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn, optim
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mtanimate.config import Config, TrainingConfig
from mtanimate.data.loading import Batch, RawBatch
from mtanimate.errors import InputError
from mtanimate.models.animator import Animator
from mtanimate.training.distribution import Workers, synchronise
from mtanimate.training.objective import Objective, Outcome, Phase, Scene


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


@dataclass(frozen=True)
class Step:
    """What came of a step. terms: weighted, the mean over all workers; nan or inf where they were.

    bad: empty, or what was not finite and the clips of the workers where it was not. taken: it changed the network; not
    so where it is bad, or where gradients overflowed in half precision, which then lowers their scale.
    stop: a worker was asked to.
    """

    terms: dict[str, float]
    gradient_norm: float
    bad: str
    taken: bool
    stop: bool
    scene: Scene | None


class Stepper:
    """Takes steps with a Trainee: forward, backward, clipping, Adam, running mean.

    A step whose losses or gradients are not finite changes nothing: no weight, no batch statistic, no running mean.
    """

    def __init__(self, trainee: Trainee, config: TrainingConfig, workers: Workers) -> None:
        self.trainee, self.config, self.workers = trainee, config, workers
        self.animator = trainee.animator
        if config.compile:
            trainee.compile()
        self.module = trainee if workers.count == 1 else self._distributed()
        self.optimizer = make_optimizer(self.animator, config, workers.device)
        self.scaler = torch.amp.GradScaler(workers.device.type, enabled=trainee.precision == "fp16")
        self.ema = make_ema(self.animator, config)
        self.statistics = Statistics(self.animator)

    def _distributed(self) -> nn.Module:
        # Only in the first phases are there parts without a gradient; looking for them costs time.
        phases = self.config.equivariance_steps + self.config.warmup_steps > 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # broadcast_buffers has another name in newer PyTorch
            return DistributedDataParallel(
                self.trainee, broadcast_buffers=False, gradient_as_bucket_view=True, find_unused_parameters=phases
            )

    def take(self, batches: list[RawBatch], step: int, steps: int, stop: bool = False) -> Step:
        """Step `step` (from 0) of `steps` on the parts of this worker's share. stop: ask all workers to end."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * schedule(self.config, step, steps)
        self.statistics.save()
        self.optimizer.zero_grad(set_to_none=True)
        names, own, scene = self._backward(batches, step)
        self.scaler.unscale_(self.optimizer)
        norm = gradient_norm(self.animator.parameters())
        asked = torch.tensor([float(stop)], device=own.device)
        *terms, length, stopped = self.workers.mean(torch.cat([own, norm.float()[None], asked])).tolist()
        wrong = [name for name, term in zip(names, terms, strict=True) if not math.isfinite(term)]
        if not wrong and not self.scaler.is_enabled() and not math.isfinite(length):
            wrong = ["the gradient"]  # the scaler, in half precision, sees to that itself
        taken = not wrong and math.isfinite(length)
        if taken:
            self._update()
        else:
            self.statistics.restore()
            self.optimizer.zero_grad(set_to_none=True)
        self.scaler.update()
        bad = self._describe(wrong, own, batches) if wrong else ""
        return Step(dict(zip(names, terms, strict=True)), length, bad, taken, stopped > 0, scene)

    def _backward(self, batches: list[RawBatch], step: int) -> tuple[list[str], torch.Tensor, Scene | None]:
        """Gradients of the mean over the parts; the terms' names and values, and what the last part saw."""
        phase = phase_of(self.config, step)
        total = torch.zeros((), device=self.workers.device)
        for batch in batches:
            with self._without_exchange() if batch is not batches[-1] else nullcontext():
                outcome = self.module(batch.to(self.workers.device).augmented(), phase)
                terms = torch.stack(list(outcome.terms.values())).float() / len(batches)
                self.scaler.scale(terms.sum()).backward()
            total = total + terms.detach()
        return list(outcome.terms), total, outcome.scene

    def _without_exchange(self) -> AbstractContextManager:
        return self.module.no_sync() if isinstance(self.module, DistributedDataParallel) else nullcontext()

    def _update(self) -> None:
        if self.config.clip_gradient:
            nn.utils.clip_grad_norm_(self.animator.motion_estimator.parameters(), self.config.clip_gradient)
        self.scaler.step(self.optimizer)
        if self.ema is not None:
            self.ema.update_parameters(self.animator)

    def _describe(self, wrong: list[str], own: torch.Tensor, batches: list[RawBatch]) -> str:
        mine = [] if own.isfinite().all() and wrong != ["the gradient"] else [c for b in batches for c in b.clips]
        clips = sorted(set(self.workers.gather(mine)))
        return f"{', '.join(wrong)} not finite (clips {', '.join(clips)})"
