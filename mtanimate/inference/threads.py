"""Frames side by side on a CPU: some frames on each thread take less time than all threads on each layer."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

T = TypeVar("T")
_EACH = 2  # frames for a thread, which share the reading of weights
_LEAST, _MOST = 4, 16  # frames of a batch: with more, memory grows faster than speed


def frames_at_once() -> int:
    """How many frames a CPU's threads take at once."""
    return min(max(_EACH * torch.get_num_threads(), _LEAST), _MOST)


def side_by_side(work: Callable[[slice], T], part: slice) -> list[T]:
    """`work` on the frames of `part`, in one piece for each thread, in order.

    It runs in inference mode. Where it raises an error, all pieces have ended.
    """
    threads, count = torch.get_num_threads(), part.stop - part.start
    if threads == 1 or count == 1:
        return [work(part)]
    step = -(-count // threads)
    pieces = [slice(first, min(first + step, part.stop)) for first in range(part.start, part.stop, step)]
    pool, run = _pool(threads), torch.inference_mode()(work)
    futures = [pool.submit(run, piece) for piece in pieces]
    wait(futures)
    return [future.result() for future in futures]


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "frames", initializer=_without_others)


def _without_others() -> None:
    """Has this thread compute its layers alone. The whole process's number of threads stays."""
    torch.get_num_threads()  # first, since PyTorch sets a new thread's number when it is first used
    threadpool_limits(1, user_api="openmp")


if hasattr(os, "register_at_fork"):  # a forked process has none of the threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
