"""The processes of one run: a single one, or several that PyTorch's launcher, torchrun or SLURM started."""

import atexit
import logging
import os
import re
import signal
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
    """This process among those of a run.

    Attributes:
        device: The device it trains on.
        rank: Its number, from 0. The first one writes the run's files.
        count: The number of processes.
        local_count: The number of processes on this machine.
    """

    device: torch.device
    rank: int = 0
    count: int = 1
    local_count: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all workers. Every worker must call this; each gets the result."""
        if self.count == 1:
            return values
        distributed.all_reduce(values)
        return values / self.count

    def differentiable_mean(self, values: Tensor) -> Tensor:
        """As `mean`; the gradient flows back to every worker's values."""
        if self.count == 1:
            return values
        return _Sum.apply(values) / self.count

    def gather(self, lines: list[str]) -> list[str]:
        """The lines of all workers. Every worker must call this; each gets the result."""
        if self.count == 1:
            return lines
        gathered: list[list[str]] = [[] for _ in range(self.count)]
        distributed.all_gather_object(gathered, lines)
        return [line for each in gathered for line in each]

    def wait(self) -> None:
        """Wait until all workers are here."""
        if self.count > 1:
            distributed.barrier()


class _Sum(torch.autograd.Function):
    """The sum over all workers. Its gradient is summed, too."""

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
    """Join the other processes of a run, where torchrun or SLURM's srun started several; leave them at the end.

    Args:
        device: As in `choose_device`. With several GPUs, each worker on a machine gets its own.

    Yields:
        This process among them.

    Raises:
        InputError: There is no such device.
        MTAnimateError: Another worker was lost.
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
        raise MTAnimateError("another worker of this run ended: see its own message for the reason") from error
    finally:
        if not lost:
            distributed.destroy_process_group()


def _slurm() -> dict[str, str]:
    """torchrun's variables, made from SLURM's. Empty unless srun started several tasks."""
    given = os.environ
    if int(given.get("SLURM_STEP_NUM_TASKS", 1)) < 2:
        return {}
    return {
        "RANK": given["SLURM_PROCID"],
        "WORLD_SIZE": given["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": given["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": given.get("SLURM_STEP_TASKS_PER_NODE", "1").split("(")[0].split(",")[0],
        "MASTER_ADDR": given.get("MASTER_ADDR") or first_host(given["SLURM_STEP_NODELIST"]),
        # The same on all nodes, but different for each job, so that two jobs can share a node.
        "MASTER_PORT": given.get("MASTER_PORT") or str(20000 + int(given["SLURM_JOB_ID"]) % 20000),
    }


def first_host(nodes: str) -> str:
    """The first host of SLURM's compressed list: `gpu[07-09,12],cpu1` -> `gpu07`, `r[0-3]n[1-8]` -> `r0n1`.

    Raises:
        InputError: The list is empty.
    """
    first = re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", nodes).split(",")[0].strip()
    if not first:
        raise InputError(f"SLURM_STEP_NODELIST is '{nodes}': set MASTER_ADDR to the first node's name")
    return first


def _leave() -> None:
    """End the process at once: taking down a group that has lost a worker sometimes aborts in C++."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(MTAnimateError.exit_code)


def run_workers(count: int, arguments: list[str]) -> int:
    """Run `mtanimate ARGUMENTS` in several processes, by PyTorch's elastic launcher.

    The workers write on stderr what went wrong.

    Args:
        count: The number of processes.
        arguments: The command's.

    Returns:
        The exit code.
    """
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # When a worker ends, the launcher logs a whole page after the worker's one line.
    logging.disable()
    warnings.filterwarnings("ignore", module="torch.distributed")
    os.environ.update(child_environment())
    try:
        run.run(run.parse_args(["--standalone", f"--nproc-per-node={count}", "-m", "mtanimate", *arguments]))
    except ChildFailedError as error:
        # Workers that lost another one end with 1, or by the launcher's SIGTERM: any other code is the reason.
        codes = [failure.exitcode for failure in error.failures.values()]
        reasons = [code for code in codes if code not in (1, -signal.SIGTERM)] or codes
        return max(reasons) if min(reasons) > 0 else 128 - min(reasons)  # below zero: ended by that signal
    except SignalException as error:
        return 128 + error.sigval
    finally:
        sys.stderr.flush()
    return 0


def synchronise(network: nn.Module, workers: Workers) -> None:
    """Make every batch normalisation in `network` compute its statistics over all workers.

    The names of parameters and buffers do not change.
    """
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
    """`nn.SyncBatchNorm` for other devices: PyTorch's own works on GPUs only."""

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
        assert self.num_batches_tracked is not None  # for the type checker: never None here
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
