"""Signals that end a process: every command treats them as Ctrl-C, and none is lost."""

import multiprocessing.process
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

# SIGHUP: the terminal was closed. SIGBREAK: Ctrl-Break on Windows. Not every system has each of them.
ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name))
_PARENT = "MTANIMATE_PARENT"  # in the environment of a command that is to end with the one that started it
_LONGEST_IMPORT = 30.0  # seconds that a signal waits for an import, and for what is held
_AGAIN = 0.05  # seconds until a postponed signal is sent again
_GLANCE = 1.0  # seconds between checks that the parent lives
_held: list[bool] = []  # not empty: signals wait


class Ended(KeyboardInterrupt):
    """A signal asks this process to end. number: of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def listened_to() -> list[int]:
    """The signals that end this process, without those that it was told to ignore (`nohup` ignores SIGHUP)."""
    return [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]


class SignalsAsInterrupt:
    """While it is entered, each of these signals raises Ended in the main thread.

    No import and no library's callback can swallow it: an import is completed first, and after a callback it is raised
    again. Outside of the main thread, signals are left alone.

    Attributes:
        number: of the first signal; 0: none yet.
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
        # Imports would swallow it, or leave a module half loaded; what is held would have no owner yet.
        if (_held or _importing(frame)) and time.monotonic() - self._since < _LONGEST_IMPORT:
            _send_soon(number)
            return
        raise Ended(number)

    def _not_raised(self, told: Any) -> None:
        """Handles exceptions that Python cannot raise where they occur: in `__del__`, in callbacks of C."""
        if isinstance(told.exc_value, Ended):
            _send_soon(told.exc_value.number)
        elif self._hook is not None:
            self._hook(told)


@contextmanager
def held() -> Iterator[None]:
    """While the block runs, signals wait: what it starts gets an owner, who ends it, before they are raised."""
    _held.append(True)
    try:
        yield
    finally:
        _held.pop()


def let_signals_end() -> None:
    """From now on signals end this process at once: during its shutdown Python would print a traceback for Ctrl-C."""
    for number in listened_to():
        signal.signal(number, signal.SIG_DFL)


def child_environment() -> dict[str, str]:
    """The environment for a child command that is to end with this process; see `end_with_parent`."""
    return os.environ | {_PARENT: str(os.getpid())}


def end_with_parent() -> None:
    """In a process with `child_environment`: sends itself SIGTERM when the parent is gone, even if that was killed.

    Windows does not tell whether a parent is gone.
    """
    parent = os.environ.pop(_PARENT, "")
    if parent and os.name == "posix":
        threading.Thread(target=_watch, args=(int(parent),), name="parent", daemon=True).start()


def end_with_maker() -> None:
    """In a process that `multiprocessing` made: it ends at once when the process that made it is gone, even killed.

    A server may stand between both (`forkserver`), whose end tells nothing.
    """
    maker = multiprocessing.parent_process()
    assert maker is not None
    threading.Thread(target=_end_after, args=(maker,), name="maker", daemon=True).start()


def leave_to_parent(*numbers: int) -> None:
    """In a child process: ignores signals that a terminal sends to the whole group; the parent ends its children."""
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
    """Sends a signal to the main thread, which wakes it where the system allows that."""
    if hasattr(signal, "pthread_kill"):
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, number)
    else:
        signal.raise_signal(number)


def _end_after(maker: multiprocessing.process.BaseProcess) -> None:
    maker.join()
    os._exit(1)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_GLANCE)
    _send(signal.SIGTERM)
