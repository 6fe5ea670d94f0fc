"""The processes of one run: alone, or joined by PyTorch's launcher, torchrun or SLURM."""

import atexit
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

from mtanimate.devices import choose_device
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.signals import child_environment


@dataclass(frozen=True)
class Workers:
    """This process among `count`: the first has rank 0 and writes what a run writes. local: of this machine."""

    device: torch.device
    rank: int = 0
    count: int = 1
    local_count: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all workers, on each of them."""
        if self.count == 1:
            return values
        distributed.all_reduce(values)
        return values / self.count

    def differentiable_mean(self, values: Tensor) -> Tensor:
        """As `mean`, and the gradient reaches every worker's own values."""
        if self.count == 1:
            return values
        return _Sum.apply(values) / self.count

    def gather(self, lines: list[str]) -> list[str]:
        """The lines of all workers, on each of them."""
        if self.count == 1:
            return lines
        gathered: list[list[str]] = [[] for _ in range(self.count)]
        distributed.all_gather_object(gathered, lines)
        return [line for each in gathered for line in each]

    def wait(self) -> None:
        """Until all workers are here."""
        if self.count > 1:
            distributed.barrier()


class _Sum(torch.autograd.Function):
    """Over all workers; so is its gradient."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        distributed.all_reduce(total)
        return total


@contextmanager
def join(device: str) -> Iterator[Workers]:
    """This process alone, or as one of those that torchrun or SLURM's srun started.

    device: as `choose_device` takes it; of a kind with several devices each worker gets its own. Raises
    InputError where it is not there, MTAnimateError where another worker is lost.
    """
    environment = os.environ if "RANK" in os.environ else _slurm()
    if "RANK" not in environment:
        yield Workers(choose_device(device, training=True))
        return
    os.environ.update(environment)
    local = int(environment.get("LOCAL_RANK", 0))
    chosen = choose_device(device, training=True)
    if chosen.type == "cuda":
        # SLURM may show each task its own GPU only, as number 0.
        chosen = choose_device(f"cuda:{local % torch.cuda.device_count()}")
        torch.cuda.set_device(chosen)
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    distributed.init_process_group(backend, device_id=chosen if chosen.type == "cuda" else None)
    lost = False
    try:
        local_count = int(environment.get("LOCAL_WORLD_SIZE", 1))
        yield Workers(chosen, distributed.get_rank(), distributed.get_world_size(), local_count)
    except RuntimeError as error:
        lost = isinstance(error, distributed.DistError) or "gloo" in str(error)
        if not lost:
            raise
        atexit.register(_leave)
        raise MTAnimateError("another worker of this run ended: what it said tells why") from error
    finally:
        if not lost:
            distributed.destroy_process_group()


def _leave() -> None:
    """End at once, when all has been said: taking down a group that has lost a worker aborts now and then, in C++."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(MTAnimateError.exit_code)


def _slurm() -> dict[str, str]:
    """torchrun's variables from those that srun gives each of a step's several tasks; empty outside of one."""
    given = os.environ
    if int(given.get("SLURM_STEP_NUM_TASKS", 1)) < 2:
        return {}
    return {
        "RANK": given["SLURM_PROCID"],
        "WORLD_SIZE": given["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": given["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": given.get("SLURM_STEP_TASKS_PER_NODE", "1").split("(")[0].split(",")[0],
        "MASTER_ADDR": given.get("MASTER_ADDR") or first_host(given["SLURM_STEP_NODELIST"]),
        # The same on every node, and another for each job, so that two jobs can share a node.
        "MASTER_PORT": given.get("MASTER_PORT") or str(20000 + int(given["SLURM_JOB_ID"]) % 20000),
    }


def first_host(nodes: str) -> str:
    """The first of SLURM's compressed list of hosts: `gpu[07-09,12],cpu1` -> `gpu07`, `r[0-3]n[1-8]` -> `r0n1`."""
    first = re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", nodes).split(",")[0].strip()
    if not first:
        raise InputError(f"SLURM_STEP_NODELIST is '{nodes}': set MASTER_ADDR to the first node's name")
    return first


def run_workers(count: int, arguments: list[str]) -> int:
    """Run `mtanimate ARGUMENTS` in `count` processes by PyTorch's elastic launcher; returns the exit code.

    The workers themselves say on stderr what went wrong.
    """
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # The launcher's own log of an ended worker is a page long, and comes after the worker's one line.
    logging.disable()
    warnings.filterwarnings("ignore", module="torch.distributed")
    os.environ.update(child_environment())
    try:
        run.run(run.parse_args(["--standalone", f"--nproc-per-node={count}", "-m", "mtanimate", *arguments]))
    except ChildFailedError as error:
        # Those that were left alone end with 1 at nearly the same time: the other code tells why.
        codes = [failure.exitcode for failure in error.failures.values()]
        return max(codes) if min(codes) > 0 else 128 - min(codes)  # below zero: ended by that signal
    except SignalException as error:
        return 128 + error.sigval
    finally:
        sys.stderr.flush()
    return 0


def synchronise(network: nn.Module, workers: Workers) -> None:
    """Every batch normalisation in `network` takes its statistics from all workers; names stay as they are."""
    if workers.count == 1:
        return
    for name, module in network.named_children():
        if not isinstance(module, nn.BatchNorm2d):
            synchronise(module, workers)
        elif workers.device.type == "cuda":
            setattr(network, name, nn.SyncBatchNorm.convert_sync_batchnorm(module))
        else:
            setattr(network, name, _SyncBatchNorm.of(module, workers))


class _SyncBatchNorm(nn.BatchNorm2d):
    """`nn.SyncBatchNorm` for devices that it refuses: it works on GPUs only."""

    workers: Workers

    @staticmethod
    def of(norm: nn.BatchNorm2d, workers: Workers) -> "_SyncBatchNorm":
        converted = _SyncBatchNorm(norm.num_features, norm.eps, norm.momentum).to(workers.device)
        converted.load_state_dict(norm.state_dict())
        converted.workers = workers
        return converted.train(norm.training)

    def forward(self, features: Tensor) -> Tensor:
        if not self.training:
            return super().forward(features)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        assert self.num_batches_tracked is not None  # always so here; the types allow more
        values = features.float()
        mean = self.workers.differentiable_mean(values.mean(dim=(0, 2, 3)))
        centred = values - mean[:, None, None]
        variance = self.workers.differentiable_mean(centred.square().mean(dim=(0, 2, 3)))
        count = self.workers.count * values[:, 0].numel()
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(features.dtype)
