"""Signals that ask for the end: all are taken as Ctrl-C is, by every command, and none is lost on the way."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

# SIGHUP comes where a terminal is closed, SIGBREAK of Ctrl-Break on Windows; each system has its own.
ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name))
_PARENT = "MTANIMATE_PARENT"  # in the environment of a command that is to end with the one that started it
_LONGEST_IMPORT = 30.0  # seconds that a signal waits for
_AGAIN = 0.05  # seconds until one that came at a bad moment is sent once more
_GLANCE = 1.0  # seconds between looks at whether the parent lives


class Ended(KeyboardInterrupt):
    """A signal asks this process to end. number: the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def listened_to() -> list[int]:
    """Those that ask this process for its end. Not one that it was told to ignore: `nohup` says so of SIGHUP."""
    return [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]


class SignalsAsInterrupt:
    """While it is entered, each of these signals raises Ended in the main thread. number: of the first; 0: none yet.

    Neither an import nor a callback of a library can swallow it: the one is let be done first, out of the other it is
    raised once more. Outside of the main thread signals are left alone.
    """

    def __init__(self) -> None:
        self.number = 0
        self._since = 0.0
        self._before: dict[int, Any] = {}
        self._hook: Callable[[Any], Any] | None = None

    def __enter__(self) -> "SignalsAsInterrupt":
        if threading.current_thread() is threading.main_thread():
            for number in listened_to():
                self._before[number] = signal.signal(number, self._end)
            self._hook, sys.unraisablehook = sys.unraisablehook, self._not_raised
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._hook is not None:
            sys.unraisablehook = self._hook

    def _end(self, number: int, frame: FrameType | None) -> None:
        if not self.number:
            self.number, self._since = number, time.monotonic()
        if _importing(frame) and time.monotonic() - self._since < _LONGEST_IMPORT:
            _send_soon(number)  # imports catch what comes in them, or leave a module half there
            return
        raise Ended(number)

    def _not_raised(self, told: Any) -> None:
        """Of exceptions that Python cannot raise where they come up: in `__del__`, in callbacks of C."""
        if isinstance(told.exc_value, Ended):
            _send_soon(told.exc_value.number)
        elif self._hook is not None:
            self._hook(told)


def let_signals_end() -> None:
    """From now on they end this process at once: Python would show a traceback of Ctrl-C while it takes itself down."""
    for number in listened_to():
        signal.signal(number, signal.SIG_DFL)


def child_environment() -> dict[str, str]:
    """For another of our commands, that it ends with this process: see `end_with_parent`."""
    return os.environ | {_PARENT: str(os.getpid())}


def end_with_parent() -> None:
    """Where `child_environment` says so, SIGTERM comes when the parent is gone, even if that was killed.

    Windows does not tell that a parent is gone.
    """
    parent = os.environ.pop(_PARENT, "")
    if parent and os.name == "posix":
        threading.Thread(target=_watch, args=(int(parent),), name="parent", daemon=True).start()


def leave_to_parent(*numbers: int) -> None:
    """In a child of this process: signals that a terminal sends to the whole group are the parent's, who ends it."""
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_globals.get("__name__") == "importlib._bootstrap":
            return True
        frame = frame.f_back
    return False


def _send_soon(number: int) -> None:
    timer = threading.Timer(_AGAIN, _send, [number])
    timer.daemon = True
    timer.start()


def _send(number: int) -> None:
    """To the main thread, which it wakes from a wait where the system can."""
    if hasattr(signal, "pthread_kill"):
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, number)
    else:
        signal.raise_signal(number)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_GLANCE)
    _send(signal.SIGTERM)
