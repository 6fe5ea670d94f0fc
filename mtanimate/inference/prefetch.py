"""Work that goes on beside the network: copies to and from a GPU, and a thread that prefetches."""

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
    """The frames on the device. For a thread that prefetches: it waits for the copy, the GPU's other work does not."""
    if device.type != "cuda":
        return frames.to(device)
    with side_stream(device):
        there = frames.pin_memory().to(device, non_blocking=True)
        synchronize(device)
    # The memory belongs to the side stream. It must not be reused while another stream still reads it.
    there.record_stream(torch.cuda.default_stream(device))
    return there


def download(tensor: Tensor) -> Tensor:
    """The tensor on the CPU."""
    if tensor.device.type != "cuda":
        return tensor.cpu()
    here = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    here.copy_(tensor, non_blocking=True)
    synchronize(tensor.device)
    return here


@contextmanager
def side_stream(device: torch.device) -> Iterator[None]:
    """Run this thread's work for a GPU on a stream of its own, so that it does not queue behind the network's.

    Call `synchronize` before a tensor goes in, and before it goes out. On other devices this does nothing.
    """
    if device.type != "cuda":
        yield
        return
    with torch.cuda.stream(_side_stream(device)):
        yield


@lru_cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all threads, since each stream keeps the memory that it once had."""
    return torch.cuda.Stream(device)


def synchronize(device: torch.device) -> None:
    """Wait until the GPU has done what this thread asked of it. On other devices this does nothing."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def to_frames(images: Tensor) -> np.ndarray:
    """(B, 3, H, W) in [0, 1] -> uint8 (B, H, W, 3), rounded."""
    frames = (images.float().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    return download(frames.contiguous()).numpy()


T = TypeVar("T")
_PATIENCE = 0.1  # seconds between two looks of a waiting thread at whether its items are still wanted


class _End:
    """The last entry of the queue. error: what ended the work, if anything did."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def prefetch(items: Generator[T, None, None], depth: int = 1) -> Iterator[T]:
    """The same items in the same order, made ahead of time by a thread.

    Up to `depth` items wait while one is in use. An error of `items` is raised here. When the iterator is closed, the
    thread ends and `items` is closed.
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
        except BaseException as raised:  # raised again in the thread that takes the items
            error = raised
        finally:
            items.close()
        put(_End(error))

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while not isinstance(item := waiting.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        over.set()
        thread.join()
