"""Pieces of work in threads that are looked after: asked to stop where the whole is, given up where they hang."""

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")
V = TypeVar("V")

# Seconds without a sign of life. The last is given before a file is finished, which takes minutes for a long GIF.
LONGEST_SILENCE = 1800.0
_LAST_WORDS = 10.0  # seconds that all have to end in where the whole is stopped
_GLANCE = 1.0  # seconds between two looks at who is silent

Alive = Callable[..., None]


class Stopped(Exception):
    """The work is not wanted any more."""


class Piece(Generic[T]):
    """What one thread does with one item. No thread can be ended from outside: one that hangs is left behind, and is
    no reason for the process not to end."""

    def __init__(self, item: T, work: "Callable[[Piece[T]], None]", ended: "Callable[[Piece[T]], None]") -> None:
        self.item = item
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
            self._work(self)
        except BaseException as error:  # whatever it is, it is the taker's to see
            self.error = error
        self._ended(self)


class _Said(Generic[V]):
    """What a piece says. It waits until somebody has heard it."""

    def __init__(self, value: V) -> None:
        self.value = value
        self.heard = threading.Event()


def attend(
    work: Callable[[T, Alive], Iterator[V]], hung: Callable[[T], V], items: Iterable[T], workers: int
) -> Generator[tuple[T, V], None, None]:
    """Each item with what the work says of it, as it comes. The work goes on when the taker has come back for more.

    Args:
        work: Called in a thread with an item and a function to call often, which raises Stopped where the work is to
            end. Says any number of values. What it raises is raised here.
        hung: Gives the last value for an item whose work is silent for `LONGEST_SILENCE`.
        items: Taken in the caller's thread, when a worker is free.
        workers: Items at a time.

    Whoever stops taking the values stops the work. Close it.
    """
    waiting, running = iter(items), set[Piece[T]]()
    told: queue.SimpleQueue[tuple[Piece[T], _Said[V] | None]] = queue.SimpleQueue()

    def tell(piece: Piece[T]) -> None:
        for value in work(piece.item, piece.progress):
            said = _Said(value)
            told.put((piece, said))
            while not said.heard.wait(_GLANCE):
                piece.progress()

    try:
        while True:
            begun = islice(waiting, workers - len(running))
            running |= {Piece(item, tell, lambda piece: told.put((piece, None))) for item in begun}
            if not running:
                return
            for piece, said in _next(told):
                if piece not in running:  # it was given up
                    continue
                if said is not None:
                    yield piece.item, said.value
                    said.heard.set()
                    continue
                running.remove(piece)
                if piece.error is not None:
                    raise piece.error
            for piece in [piece for piece in running if piece.silence > LONGEST_SILENCE]:
                running.remove(piece)
                piece.stop()
                yield piece.item, hung(piece.item)
    finally:
        for piece in running:
            piece.stop()
        until = time.monotonic() + _LAST_WORDS
        for piece in running:
            piece.join(max(0.0, until - time.monotonic()))


def _next(told: "queue.SimpleQueue[tuple[Piece[T], _Said[V] | None]]") -> list[tuple[Piece[T], _Said[V] | None]]:
    """The next word, if one comes before long."""
    try:
        return [told.get(timeout=_GLANCE)]
    except queue.Empty:
        return []
