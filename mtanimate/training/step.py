"""One step of the optimiser, on one process or on many."""

import math
import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mtanimate.config import TrainingConfig
from mtanimate.data.loading import RawBatch
from mtanimate.training.objective import Scene
from mtanimate.training.optimisation import Statistics, gradient_norm, make_ema, make_optimizer, phase_of, schedule
from mtanimate.training.trainee import Trainee
from mtanimate.training.workers import Workers


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
