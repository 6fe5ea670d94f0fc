"""Between the computer's memory and a GPU's, beside what the GPU computes. On other devices nothing is to be done."""

import queue
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
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


def to_frames(images: Tensor) -> np.ndarray:
    """(B, 3, H, W) in [0, 1] -> uint8 (B, H, W, 3), rounded."""
    frames = (images.float().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    return download(frames.contiguous()).numpy()


T = TypeVar("T")
_PATIENCE = 0.1  # seconds until a thread that waits for room looks whether anybody still takes


class _End:
    """What comes last: the error that ended the work, if one did."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def ahead(items: Generator[T, None, None], depth: int = 1) -> Iterator[T]:
    """The same items in the same order, made by a thread, of which up to `depth` wait while one is used.

    An error of theirs is raised here. Whoever stops taking them stops the thread and closes `items`.
    """
    waiting: queue.Queue[Any] = queue.Queue(depth)
    over = threading.Event()

    def put(item: Any) -> None:
        while not over.is_set():
            with suppress(queue.Full):
                waiting.put(item, timeout=_PATIENCE)
                return

    def work() -> None:
        error = None
        try:
            for item in items:
                put(item)
                if over.is_set():
                    break
        except BaseException as raised:  # whatever it is, it is the taker's to see
            error = raised
        finally:
            items.close()
        put(_End(error))

    thread = threading.Thread(target=work, name="ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(item := waiting.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        over.set()
        thread.join()
