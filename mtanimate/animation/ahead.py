"""Work that goes on while its results are used: reading beside the network, the network beside writing."""

import queue
import threading
from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import Any, TypeVar

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
