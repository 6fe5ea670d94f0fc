"""Ctrl-C, SIGTERM and SIGHUP: the step is finished and saved before the run ends."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from mtanimate.signals import listened_to


class StopRequest:
    """While it is entered, remembers the first signal that asks for the end; a Ctrl-C after it ends the process as
    usual.

    Another SIGTERM does not: launchers and batch systems send it to a worker that has had its own.
    signal: its number, 0 while there is none. Outside the main thread signals are left alone.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in listened_to():
                self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.signal = self.signal or number
        if signal.SIGINT in self._before:
            signal.signal(signal.SIGINT, self._before[signal.SIGINT])
