"""The device and the precision that a network runs in."""

import platform
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch
from torch.nn import functional as F

from mtanimate.errors import InputError

Precision = Literal["auto", "fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str, log: Callable[[str], None] = lambda line: None, *, training: bool = False) -> torch.device:
    """Chooses a device.

    Args:
        name: cpu, cuda, cuda:N, mps, or `auto`: CUDA, else MPS where it computes what is needed, else the CPU.
        log: gets a line where MPS is there and not used.
        training: whether gradients are needed.

    Raises:
        InputError: the device is not there, or does not compute what is needed.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        if not torch.backends.mps.is_available():
            return torch.device("cpu")
        fault = mps_fault(training)
        if fault:
            log(f"Apple's GPU is not used: {fault}")
        return torch.device("cpu" if fault else "mps")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not index.isdecimal()):
        raise InputError(f"--device {name}: not one of auto, cpu, cuda, cuda:N, mps")
    if kind == "cuda":
        count = torch.cuda.device_count()
        if int(index or 0) >= count:
            raise InputError(
                f"--device {name}: PyTorch sees {count} CUDA devices; 'mtanimate doctor' says what is missing"
            )
    if kind == "mps":
        if not torch.backends.mps.is_available():
            raise InputError("--device mps: this machine or this build of PyTorch has no Metal device")
        if fault := mps_fault(training):
            raise InputError(f"--device mps: {fault}; give --device cpu")
    return torch.device(name)


@lru_cache
def mps_fault(training: bool) -> str:
    """Tests what networks need and Apple's GPU computes differently in some versions of PyTorch.

    Args:
        training: whether gradients are needed.

    Returns:
        What is wrong, for people; "" where nothing is.
    """
    for padding in ("zeros", "border", "reflection"):
        for exact in (False, True):
            try:
                here, there = (_sampled(device, padding, exact, training) for device in ("cpu", "mps"))
                if torch.allclose(there, here, atol=1e-4):
                    continue
                found = "gives other values than a CPU"
            except (RuntimeError, TypeError) as error:  # also for missing operators
                found = f"fails ({' '.join(str(error).split())[:120]})"
            what = f"grid_sample({padding}{', with gradients' if training else ''})"
            return f"its {what} {found} with PyTorch {torch.__version__}; a newer one may do"
    return ""


def out_of_memory(error: RuntimeError) -> bool:
    """Whether an error means that a device ran out of memory; Metal and other libraries tell it only by their text."""
    return isinstance(error, torch.cuda.OutOfMemoryError) or "out of memory" in str(error)


def choose_precision(name: Precision, device: torch.device) -> str:
    """Chooses a precision for inference; `auto`: fp16 on CUDA, fp32 elsewhere.

    Raises:
        InputError: the device cannot use it.
    """
    if name == "auto":
        return "fp16" if device.type == "cuda" else "fp32"
    if name == "fp16" and device.type == "cpu":
        raise InputError("--precision fp16: CPUs compute it slowly or not at all; use bf16 or fp32")
    return name


def choose_training_precision(name: Precision, device: torch.device) -> str:
    """Chooses a precision for training; `auto`: bf16 where the device computes it, fp32 elsewhere.

    Raises:
        InputError: the device cannot use it.
    """
    if name == "auto":
        return "bf16" if has_bf16(device) else "fp32"
    if name == "fp16" and device.type != "cuda":
        raise InputError(f"--precision fp16 trains on CUDA only, not on {device.type}: give bf16 or fp32")
    return name


def has_bf16(device: torch.device) -> bool:
    """Whether the device computes bfloat16 in hardware: other CPUs emulate it, slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Older PyTorch cannot tell.
    tests = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    return device.type == "cpu" and any(test() for test in tests if test is not None)


def describe_device(device: torch.device) -> str:
    """The device for people: `cuda (NVIDIA H100)`, `cpu (2 threads)`."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.get_num_threads()} threads)" if device.type == "cpu" else str(device)


def processor() -> str:
    """The processor's model, as the system names it: `AMD EPYC 9354 32-Core Processor`."""
    told = Path("/proc/cpuinfo")  # Linux, where Python knows the family only
    lines = told.read_text("utf-8", "replace").splitlines() if told.is_file() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def check_gpus(count: int) -> None:
    """Raises InputError where there are fewer GPUs."""
    there = torch.cuda.device_count()
    if count > there:
        raise InputError(f"--gpus {count}: PyTorch sees {there} here; 'mtanimate doctor' says what is missing")


def _sampled(device: str, padding: str, exact: bool, training: bool) -> torch.Tensor:
    """Samples a picture inside and outside, as networks do; with `training`, the gradient. Returned on the CPU."""
    random = torch.Generator().manual_seed(0)
    picture = torch.rand(1, 3, 8, 8, generator=random).to(device)
    grid = (3 * torch.rand(1, 8, 8, 2, generator=random) - 1.5).to(device).requires_grad_(training)
    with torch.inference_mode(not training), torch.autocast(device, enabled=False):
        values = F.grid_sample(picture, grid, padding_mode=padding, align_corners=exact)
    return torch.autograd.grad(values.square().sum(), grid)[0].cpu() if training else values.cpu()
