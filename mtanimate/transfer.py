"""Between the computer's memory and a GPU's, beside what the GPU computes. On other devices nothing is to be done."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor


def upload(frames: Tensor, device: torch.device) -> Tensor:
    """The same there. For a thread that reads ahead: it waits for the copy, the GPU's other work does not."""
    if device.type != "cuda":
        return frames.to(device)
    with beside(device):
        there = frames.pin_memory().to(device, non_blocking=True)
        settle(device)
    # Its memory belongs to another stream than those that will read it: it must not be given away under them.
    there.record_stream(torch.cuda.default_stream(device))
    return there


def download(tensor: Tensor) -> Tensor:
    """The same on the CPU."""
    if tensor.device.type != "cuda":
        return tensor.cpu()
    here = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    here.copy_(tensor, non_blocking=True)
    settle(tensor.device)
    return here


@contextmanager
def beside(device: torch.device) -> Iterator[None]:
    """What this thread asks of a GPU herein does not queue up behind what others ask. Tensors that come in must be
    settled, and so must those that go out."""
    if device.type != "cuda":
        yield
        return
    with torch.cuda.stream(_aside(device)):
        yield


@lru_cache
def _aside(device: torch.device) -> torch.cuda.Stream:
    """One for all: each stream keeps the memory that it once had."""
    return torch.cuda.Stream(device)


def settle(device: torch.device) -> None:
    """Wait until the GPU has done what this thread asked of it."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
