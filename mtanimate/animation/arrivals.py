"""Frames as they arrive, and when each did."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Protocol

import numpy as np

_WAITING = 2  # frames of a pipe that are read ahead
_PATIENCE = 0.03  # seconds without a frame until the window is looked after


class Stream(Protocol):
    """What `video.streams.DrivingStream` is. live: of frames not yet taken, only the newest counts."""

    live: bool

    def read(self) -> np.ndarray | None: ...

    def close(self) -> None: ...


class Arrivals:
    """Frames of a stream, read by a thread of their own. dropped: how many were overtaken. error: what ended it.

    Of a live stream only the newest frame waits; of another all are kept in order, and the stream waits for us.
    """

    def __init__(self, stream: Stream) -> None:
        self.dropped = 0
        self.error: Exception | None = None
        self._stream = stream
        self._frames: deque[tuple[float, np.ndarray]] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._read, name="frames", daemon=True)

    def each(self, idle: Callable[[], None]) -> Iterator[tuple[float, np.ndarray]]:
        """When each frame came, by `time.monotonic`, and the frame. Calls `idle` while there is none."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._frames or self._ended, _PATIENCE)
                came = self._frames.popleft() if self._frames else None
                over = self._ended and came is None
                self._changed.notify_all()
            if over:
                return
            if came is None:
                idle()
            else:
                yield came

    def _read(self) -> None:
        try:
            while not self._ended and (frame := self._stream.read()) is not None:
                self._put(time.monotonic(), frame)
        except Exception as error:  # whatever it is, it is the main thread's to say
            self.error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _put(self, at: float, frame: np.ndarray) -> None:
        with self._changed:
            if self._stream.live:
                self.dropped += len(self._frames)
                self._frames.clear()
            else:
                self._changed.wait_for(lambda: len(self._frames) < _WAITING or self._ended)
            self._frames.append((at, frame))
            self._changed.notify_all()

    def __enter__(self) -> "Arrivals":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._stream.close()
        self._thread.join()
