"""How fast a run goes, and how much of its time the device waits for data."""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

WINDOW = 20  # steps


class Meter:
    """Over the last steps: pairs a second, the share of time spent waiting for data, seconds a step."""

    def __init__(self) -> None:
        self._steps: deque[tuple[float, float, int]] = deque(maxlen=WINDOW)
        self._last = time.monotonic()
        self._waited = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self._waited += time.monotonic() - started

    def step(self, pairs: int) -> None:
        """A step with so many pairs has ended."""
        now = time.monotonic()
        self._steps.append((now - self._last, self._waited, pairs))
        self._last, self._waited = now, 0.0

    @property
    def pairs_per_second(self) -> float:
        return sum(pairs for _, _, pairs in self._steps) / self._seconds

    @property
    def data_wait(self) -> float:
        return sum(waited for _, waited, _ in self._steps) / self._seconds

    @property
    def seconds_per_step(self) -> float:
        return self._seconds / max(len(self._steps), 1)

    @property
    def _seconds(self) -> float:
        return max(sum(seconds for seconds, _, _ in self._steps), 1e-9)
