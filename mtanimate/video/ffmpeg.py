"""Running the ffmpeg program of the package imageio-ffmpeg."""

import ctypes
import os
import re
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Thread, Timer

from mtanimate.errors import MTAnimateError
from mtanimate.signals import held
from mtanimate.video.decoding import FORMATS

# Input options: a file cannot make ffmpeg open other files or addresses that it names.
ONLY_FORMATS = ("-format_whitelist", ",".join(FORMATS))
ONLY_FILES = ("-protocol_whitelist", "file,pipe", *ONLY_FORMATS)
_LONGEST_END = 3600.0  # seconds to finish after the last frame, e.g. to choose the colours of a long GIF
_KILLED = 9  # SIGKILL, which Windows does not have
_PR_SET_PDEATHSIG = 1  # of Linux' prctl
_LONGEST_ANSWER = 60.0  # seconds to list its encoders
# SVT-AV1 ignores ffmpeg's log level: this limits it to errors.
_ENVIRONMENT = {"SVT_LOG": "1"}


def executable() -> str:
    """The path of the ffmpeg program.

    Raises:
        MTAnimateError: there is none.
    """
    import imageio_ffmpeg

    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise MTAnimateError("ffmpeg was not found: reinstall the package imageio-ffmpeg") from error


def local(path: Path) -> str:
    """A path in ffmpeg's notation for files: never an option, a device or an address, whatever the name looks like."""
    return f"file:{path}"


@cache
def encoders() -> frozenset[str]:
    """The names of this ffmpeg's encoders.

    Raises:
        MTAnimateError: ffmpeg cannot be started.
    """
    command = [executable(), "-hide_banner", "-encoders"]
    try:
        said = subprocess.run(command, capture_output=True, check=True, timeout=_LONGEST_ANSWER).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise _unusable(error) from error
    return frozenset(re.findall(r"^ [VAS][A-Z.]{5} (\w\S*)", said.decode(errors="replace"), re.MULTILINE))


class FFmpeg:
    """A running ffmpeg. Its messages are collected as they come, since a full pipe would block it.

    However this process ends, ffmpeg ends too: on Linux at once, also with the thread that started it; elsewhere when
    it next reads or writes its pipe.

    Args:
        arguments: the command line after the program's name.
        stdin: a file descriptor that ffmpeg reads; by default a pipe.
        stdout: a file descriptor that ffmpeg writes; by default a pipe.

    Attributes:
        process: the subprocess, with stdin and stdout in bytes.
        messages: the latest lines of its standard error.

    Raises:
        MTAnimateError: it cannot be started.
    """

    def __init__(self, arguments: list[str], *, stdin: int = subprocess.PIPE, stdout: int = subprocess.PIPE) -> None:
        self.messages: deque[str] = deque(maxlen=1000)
        program = executable()
        try:
            with held():  # between its start and this process's knowing of it
                self.process = subprocess.Popen(
                    [program, "-hide_banner", "-loglevel", "error", *arguments],
                    stdin=stdin,
                    stdout=stdout,
                    stderr=subprocess.PIPE,
                    env={**os.environ, **_ENVIRONMENT},
                    start_new_session=True,  # Ctrl-C must not reach ffmpeg, which would finish the file
                    preexec_fn=_ending_with(os.getpid()),
                )
        except OSError as error:
            raise _unusable(error) from error
        self._collector = Thread(target=self._collect, daemon=True)
        self._collector.start()

    def _collect(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.messages.append(line.decode(errors="replace").strip())

    def finish(self) -> int:
        """Closes the input and waits for the end; output that nobody read is dropped. After an hour ffmpeg is killed.

        Returns:
            The exit status; see also `ended_from_outside`.
        """
        too_long = Timer(_LONGEST_END, self.process.kill)
        too_long.daemon = True
        too_long.start()
        try:
            with suppress(OSError):  # ffmpeg is gone already: its exit status says so
                if self.process.stdin is not None:
                    self.process.stdin.close()
            if self.process.stdout is not None and not self.process.stdout.closed:
                while self.process.stdout.read(1 << 16):
                    pass
                self.process.stdout.close()
            status = self.process.wait()
            self._collector.join()
        finally:
            too_long.cancel()
        return status

    def kill(self) -> None:
        """Ends ffmpeg at once."""
        self.process.kill()
        self.finish()

    def said(self, texts: Iterable[str]) -> bool:
        """Whether one of these texts is in the messages so far."""
        return any(text in line for line in tuple(self.messages) for text in texts)

    def ended_from_outside(self) -> str:
        """What ended ffmpeg where no file is to blame, in one line: a signal, or lack of memory; else ""."""
        status = self.process.poll() or 0
        number = -status if status < 0 else status - 128  # as shells have it, whose script may start ffmpeg
        if number == _KILLED:
            return "ffmpeg was killed: is memory short?"
        if status < 0:
            return f"ffmpeg was ended by signal {number}"
        if self.said(["Cannot allocate memory"]):
            return "memory ran out: close other programs"
        return ""

    def reason(self) -> str:
        """Why ffmpeg failed, in one line: the message nearest to the cause that says more than "failed"."""
        if outside := self.ended_from_outside():
            return outside
        # "[aac @ 0x55d] text" -> "text"; what follows the first error only repeats it
        lines = [re.sub(r"^(\[[^\]]*\] *)+", "", line) for line in self.messages]
        return next((line for line in lines if line), "it was stopped from outside")


def _ending_with(parent: int) -> Callable[[], None] | None:
    """What a new process calls so that it is killed with its parent; only Linux offers that."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl

    def end_with_parent() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it was gone before
            os._exit(1)

    return end_with_parent


def _unusable(error: Exception) -> MTAnimateError:
    return MTAnimateError(
        f"ffmpeg cannot be used ({error}): reinstall the package imageio-ffmpeg, or mend or unset IMAGEIO_FFMPEG_EXE"
    )
