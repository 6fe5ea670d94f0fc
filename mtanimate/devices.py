"""Which device and which precision the network runs in."""

from typing import Literal

import torch

from mtanimate.errors import InputError

Precision = Literal["auto", "fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str) -> torch.device:
    """`auto` (CUDA, else MPS, else the CPU), or what is named. Raises InputError where that is not there."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not index.isdecimal()):
        raise InputError(f"--device {name}: not one of auto, cpu, cuda, cuda:N, mps")
    if kind == "cuda":
        count = torch.cuda.device_count()
        if int(index or 0) >= count:
            raise InputError(
                f"--device {name}: PyTorch sees {count} CUDA devices; 'mtanimate doctor' says what is missing"
            )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise InputError("--device mps: this machine or this build of PyTorch has no Metal device")
    return torch.device(name)


def choose_precision(name: Precision, device: torch.device) -> str:
    """`auto`: fp16 on CUDA, fp32 elsewhere. Raises InputError for a pair that does not work."""
    if name == "auto":
        return "fp16" if device.type == "cuda" else "fp32"
    if name == "fp16" and device.type == "cpu":
        raise InputError("--precision fp16: CPUs compute it slowly or not at all; use bf16 or fp32")
    return name


def choose_training_precision(name: Precision, device: torch.device) -> str:
    """`auto`: bf16 where the device computes it, fp32 elsewhere. Raises InputError for a pair that does not work."""
    if name == "auto":
        return "bf16" if has_bf16(device) else "fp32"
    if name == "fp16" and device.type != "cuda":
        raise InputError(f"--precision fp16 trains on CUDA only, not on {device.type}: give bf16 or fp32")
    return name


def has_bf16(device: torch.device) -> bool:
    """Whether it computes bfloat16 itself: other CPUs emulate it, slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Older PyTorch cannot tell.
    tests = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    return device.type == "cpu" and any(test() for test in tests if test is not None)


def describe_device(device: torch.device) -> str:
    """For people: `cuda (NVIDIA H100)`, `cpu (2 threads)`."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.get_num_threads()} threads)" if device.type == "cpu" else str(device)


def check_gpus(count: int) -> None:
    """Raises InputError where there are fewer GPUs."""
    there = torch.cuda.device_count()
    if count > there:
        raise InputError(f"--gpus {count}: PyTorch sees {there} here; 'mtanimate doctor' says what is missing")
