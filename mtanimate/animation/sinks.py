"""Where live results go: a window, or a video that is written as they come."""

from fractions import Fraction
from types import TracebackType
from typing import Any, Protocol

import numpy as np


class Sink(Protocol):
    """Where results go. All three may raise Closed; `attend` is called often, also while there is no frame."""

    def write(self, frame: np.ndarray, at: float) -> None:
        """A result, uint8 (H, W, 3), of the frame that came `at` so many seconds after the first."""

    def attend(self) -> None: ...

    def reference_asked(self) -> bool: ...

    def __enter__(self) -> Any: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class Writer(Protocol):
    """What a `Recording` is written with. write: uint8 (B, H, W, 3)."""

    def write(self, frames: np.ndarray) -> None: ...

    def __enter__(self) -> Any: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class Recording:
    """A sink that is a video at a constant rate. writer: a `StreamWriter`, or one that makes a file.

    live: frames come when they like; each fills the time since the one before, so that the video runs at the speed of
    life. Else every frame is written once.
    """

    def __init__(self, writer: Writer, fps: Fraction, *, live: bool) -> None:
        self._writer, self._fps, self._live = writer, fps, live
        self._written = 0

    def write(self, frame: np.ndarray, at: float) -> None:
        # None where two frames came within one period.
        due = round(at * self._fps) + 1 - self._written if self._live else 1
        for _ in range(due):
            self._writer.write(frame[None])
        self._written += max(due, 0)

    def attend(self) -> None:
        pass

    def reference_asked(self) -> bool:
        return False

    def __enter__(self) -> "Recording":
        self._writer.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, trace)
