"""One training run: draw pairs, take steps, write log, pictures, state and checkpoints."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn, optim
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mtanimate.checkpoints.file import mismatches, read_checkpoint, write_checkpoint
from mtanimate.config import Config, TrainingConfig, to_mapping
from mtanimate.data.pairs import PairSampler
from mtanimate.drawing.grids import grid
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.geometry import resize, warp
from mtanimate.models.animator import Animator
from mtanimate.models.hrnet import load_imagenet_weights
from mtanimate.models.weights import read_weights
from mtanimate.training.objective import Objective, Outcome
from mtanimate.training.state import RunState
from mtanimate.video import write_image


@dataclass(frozen=True)
class Report:
    """Of one step, to whoever shows progress: losses are weighted means since the last report."""

    step: int
    steps: int
    losses: dict[str, float]
    samples_per_second: float


class Run:
    """A run's folder and everything that trains in it.

    The folder has `config.yaml`, `log.jsonl`, `pictures/`, `state/last.pt` and `checkpoints/*.safetensors`.
    """

    def __init__(
        self,
        folder: Path,
        config: Config,
        sampler: PairSampler,
        device: torch.device,
        init: Path | None = None,
    ) -> None:
        self.folder = folder
        self.config = config
        self.sampler = sampler
        self.device = device
        torch.manual_seed(config.training.seed)
        self.animator = Animator(config.model).to(device).channels_last()
        if config.training.backbone_file:
            file = Path(config.training.backbone_file).expanduser()
            weights = read_weights(file, "ImageNet weights of HRNet", "check training.backbone_file")
            load_imagenet_weights(self.animator.motion_estimator.backbone, weights)
        if init is not None:
            self._initialise_from(init)
        self.objective = Objective(config.loss).to(device)
        training = config.training
        self.ema = None
        if training.ema:
            average = get_ema_multi_avg_fn(training.ema)
            self.ema = AveragedModel(self.animator, multi_avg_fn=average, use_buffers=True)
        self.optimizer = optim.Adam(self.animator.parameters(), lr=training.learning_rate, betas=training.betas)
        generator = torch.Generator().manual_seed(training.seed)
        self.state = RunState(self.animator, self.ema, self.optimizer, generator)
        self.steps = training.steps or self._steps_of_epochs()
        self.state_file = folder / "state" / "last.pt"

    def _initialise_from(self, checkpoint: Path) -> None:
        """Begin from another run's weights; the configurations may differ in sizes that weights do not show."""
        weights = read_checkpoint(checkpoint).animator.state_dict()
        mismatched = mismatches(self.animator.state_dict(), weights)
        if mismatched:
            raise InputError(f"--init {checkpoint} has another network: {mismatched}")
        self.animator.load_state_dict(weights)

    def _steps_of_epochs(self) -> int:
        training = self.config.training
        pairs = self.sampler.clip_count * self.config.data.repeats
        return math.ceil(pairs * training.epochs / training.batch_size)

    def resume(self) -> bool:
        """Go on from the folder's last state; False where it has none."""
        if not self.state_file.exists():
            return False
        self.state.load(self.state_file)
        return True

    def train(self, report: Callable[[Report], None]) -> Path:
        """Take the steps that are left; returns the last checkpoint. Ctrl-C saves the state first."""
        for name in ("pictures", "state", "checkpoints"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "config.yaml").write_text(yaml.safe_dump(to_mapping(self.config), sort_keys=False))
        training = self.config.training
        self.animator.train()
        sums: dict[str, float] = {}
        since, samples, started = 0, self.state.samples, time.monotonic()
        try:
            while self.state.step < self.steps:
                terms, outcome = self._step()
                for name, term in terms.items():
                    sums[name] = sums.get(name, 0.0) + term.item()
                since += 1
                step = self.state.step
                if step % training.log_every == 0 or step == self.steps:
                    rate = (self.state.samples - samples) / (time.monotonic() - started)
                    self._log({name: value / since for name, value in sums.items()}, rate, report)
                    sums, since, samples, started = {}, 0, self.state.samples, time.monotonic()
                if outcome is not None and step % training.picture_every == 0:
                    self._draw(outcome)
                if step % training.checkpoint_every == 0:
                    self.save()
        except KeyboardInterrupt:
            self.save()
            raise
        return self.save()

    def _step(self) -> tuple[dict[str, Tensor], Outcome | None]:
        training, state = self.config.training, self.state
        for group in self.optimizer.param_groups:
            group["lr"] = training.learning_rate * schedule(training, state.step, self.steps)
        source, driving = (
            frames.to(self.device).contiguous(memory_format=torch.channels_last)
            for frames in self.sampler.batch(training.batch_size, state.generator)
        )
        with torch.autocast(self.device.type, torch.bfloat16, enabled=training.precision == "bf16"):
            terms, outcome = self._losses(source, driving)
        total = torch.stack(list(terms.values())).sum()
        if not torch.isfinite(total):
            raise MTAnimateError(
                f"the loss is {total.item()} at step {state.step + 1}: "
                f"lower training.learning_rate, or set training.precision=fp32; '{self.state_file}' is kept"
            )
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        if training.clip_gradient:
            parameters = self.animator.motion_estimator.parameters()
            nn.utils.clip_grad_norm_(parameters, training.clip_gradient)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update_parameters(self.animator)
        state.step += 1
        state.samples += training.batch_size if outcome is None else len(outcome.prediction)
        return terms, outcome

    def _losses(self, source: Tensor, driving: Tensor) -> tuple[dict[str, Tensor], Outcome | None]:
        """Of the phase that the step is in; no prediction while the estimator trains alone."""
        training, step = self.config.training, self.state.step
        if step < training.equivariance_steps:
            return self.objective.equivariance(self.animator, torch.cat([source, driving])), None
        warmup = step < training.equivariance_steps + training.warmup_steps
        outcome = self.objective(self.animator, source, driving, warmup=warmup)
        return outcome.terms, outcome

    def _log(self, losses: dict[str, float], rate: float, report: Callable[[Report], None]) -> None:
        entry: dict[str, Any] = {"step": self.state.step, "loss": sum(losses.values()), **losses}
        entry |= {"samples": self.state.samples, "samples_per_second": rate}
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(entry) + "\n")
        report(Report(self.state.step, self.steps, losses, rate))

    def _draw(self, outcome: Outcome) -> None:
        """source | driving | prediction | warped source | occlusion, the first four pairs."""
        source = outcome.source
        columns = [source, outcome.driving, outcome.prediction, warp(source, outcome.motion.flow)]
        if outcome.motion.occlusion is not None:
            columns.append(resize(outcome.motion.occlusion, (source.shape[2], source.shape[3])))
        path = self.folder / "pictures" / f"{self.state.step:07d}.png"
        write_image(path, grid([column[:4] for column in columns]))

    def save(self) -> Path:
        """State to resume from, and a checkpoint of the averaged weights."""
        self.state.save(self.state_file)
        animator = self.animator if self.ema is None else self.ema.module
        assert isinstance(animator, Animator)
        path = self.folder / "checkpoints" / f"step-{self.state.step:07d}.safetensors"
        about = {
            "steps": self.state.step,
            "samples": self.state.samples,
            "identities": len(self.sampler.identities),
            "clips": self.sampler.clip_count,
            "date": date.today().isoformat(),
        }
        write_checkpoint(path, animator, self.config, about)
        return path


def schedule(config: TrainingConfig, step: int, steps: int) -> float:
    """The learning rate's factor before step `step` (from 0) of `steps`."""
    ramp = min(1.0, (step + 1) / config.ramp_steps) if config.ramp_steps else 1.0
    progress = step / steps
    if config.schedule == "cosine":
        return ramp * 0.5 * (1 + math.cos(math.pi * progress))
    return ramp * 0.1 ** sum(progress >= milestone for milestone in config.milestones)
