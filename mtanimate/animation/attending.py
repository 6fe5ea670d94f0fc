"""Pieces of work in threads that are looked after: asked to stop where the whole is, given up where they hang."""

import queue
import threading
import time
from collections.abc import Callable, Generator, Sequence
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")

# Seconds without a sign of life. The last is given before a file is finished, which takes minutes for a long GIF.
LONGEST_SILENCE = 1800.0
_LAST_WORDS = 10.0  # seconds that all have to end in where the whole is stopped
_GLANCE = 1.0  # seconds between two looks at who is silent


class Stopped(Exception):
    """The work is not wanted any more."""


class Piece(Generic[T]):
    """What one thread does with one item. No thread can be ended from outside: one that hangs is left behind, and is
    no reason for the process not to end."""

    def __init__(self, item: T, work: "Callable[[Piece[T]], bool]", ended: "Callable[[Piece[T]], None]") -> None:
        self.item, self.good = item, False
        self.error: BaseException | None = None
        self._work, self._ended = work, ended
        self._last = time.monotonic()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="row", daemon=True)
        self._thread.start()

    @property
    def silence(self) -> float:
        return time.monotonic() - self._last

    def progress(self, *counts: object) -> None:
        """A sign of life, to be given often. Raises Stopped where the work is to end."""
        self._last = time.monotonic()
        if self._stopped.is_set():
            raise Stopped

    def stop(self) -> None:
        self._stopped.set()

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)

    def _run(self) -> None:
        try:
            self.good = self._work(self)
        except BaseException as error:  # whatever it is, it is the taker's to see
            self.error = error
        self._ended(self)


def attend(
    work: Callable[[Piece[T]], bool], hung: Callable[[T], None], items: Sequence[T], workers: int
) -> Generator[bool, None, None]:
    """The outcomes as they come; no more items are begun than there are workers.

    One whose work is silent for `LONGEST_SILENCE` is told to `hung`, and counts as False. Raises what the work raises.
    Whoever stops taking them stops the work. Close it.
    """
    waiting, running = iter(items), set[Piece[T]]()
    ended: queue.SimpleQueue[Piece[T]] = queue.SimpleQueue()
    try:
        while True:
            running |= {Piece(item, work, ended.put) for item in islice(waiting, workers - len(running))}
            if not running:
                return
            for piece in _next(ended) & running:
                running.remove(piece)
                if piece.error is not None:
                    raise piece.error
                yield piece.good
            for piece in [piece for piece in running if piece.silence > LONGEST_SILENCE]:
                running.remove(piece)
                piece.stop()
                hung(piece.item)
                yield False
    finally:
        for piece in running:
            piece.stop()
        until = time.monotonic() + _LAST_WORDS
        for piece in running:
            piece.join(max(0.0, until - time.monotonic()))


def _next(ended: "queue.SimpleQueue[Piece[T]]") -> set[Piece[T]]:
    """The next that ends, if one does before long."""
    try:
        return {ended.get(timeout=_GLANCE)}
    except queue.Empty:
        return set()
