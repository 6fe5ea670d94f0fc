"""Video as it comes and goes: a camera or standard input on one side, standard output on the other."""

import io
import re
import subprocess
import sys
import time
from fractions import Fraction
from types import TracebackType
from typing import Literal

import numpy as np

from mtanimate.errors import InputError, MTAnimateError
from mtanimate.video.cameras import camera_arguments
from mtanimate.video.encoding import TAGGED_BT709, TAGS, TO_BT709
from mtanimate.video.ffmpeg import FFmpeg
from mtanimate.video.probe import TEXT_AND_LISTS
from mtanimate.video.timing import frame_rate

_INPUT = re.compile(r"\[info\] Input #0, (\S+), from")
_OUTPUT = "[info] Output #0, rawvideo"
_SIZE = re.compile(r"\[info\] +Stream #0:0.*?: Video: rawvideo .*?, (\d+)x(\d+)[ ,]")
_RATE = re.compile(r", ([\d.]+) fps")
_WRONG = re.compile(r"^(\[[^\]]* @ [^\]]*\] *)*\[(error|fatal|panic)\] *")
_FASTEST = 1000  # frames a second; what ffmpeg calls faster than this has no rate of its own


class Closed(Exception):
    """Nobody watches any more: the window was closed, or the program that read our standard output has ended."""


def is_stream(driving: str) -> bool:
    """Whether `--driving` names a stream: `-`, `webcam:N`, or `lavfi:FILTER`, ffmpeg's made-up pictures, in a camera's
    place. Anything else is a file's name, whatever is at that place: only these open a camera."""
    return driving == "-" or driving.startswith(("webcam:", "lavfi:"))


def check_stream(name: str) -> None:
    """Raises InputError for what can be known to be wrong before a stream is opened. Open one when all else is ready:
    what comes until then is old when it is seen."""
    if name == "-":
        _standard_input()
    else:
        _camera(name)


class DrivingStream:
    """Frames of a camera or of standard input. Use it in a `with` statement.

    name: as the user gave it; see `is_stream`. width, height: pixels. fps: the rate that ffmpeg names, 25 where it
    knows none; when a frame was taken is not kept. live: frames come when they like, and old ones are worthless.
    Waits for the first frame. Raises InputError where there is no such camera, or no video comes.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.live = name != "-"
        self._closed = False
        # -loglevel: with the level in front of each line. slice: threads that do not delay frames.
        arguments = ["-loglevel", "level+info", "-nostats", "-thread_type", "slice"]
        if self.live:
            self._ffmpeg = FFmpeg([*arguments, "-nostdin", *_camera(name), *_FRAMES], stdin=subprocess.DEVNULL)
        else:  # a playlist in the pipe opens no file and no address
            arguments += ["-protocol_whitelist", "pipe", "-i", "pipe:0"]
            self._ffmpeg = FFmpeg([*arguments, *_FRAMES], stdin=_standard_input())
        try:
            self.width, self.height, self.fps = self._report()
        except BaseException:
            self._ffmpeg.kill()
            raise

    def read(self) -> np.ndarray | None:
        """The next frame, uint8 RGB (H, W, 3), or None at the end. Raises MTAnimateError where a camera fails."""
        frame = np.empty((self.height, self.width, 3), np.uint8)
        stdout = self._ffmpeg.process.stdout
        assert isinstance(stdout, io.BufferedReader)
        if stdout.readinto(frame.data.cast("B")) == frame.nbytes:
            return frame
        if self._ffmpeg.process.wait() != 0 and self.live and not self._closed:
            raise MTAnimateError(f"{self.name} gives no more frames ({self._reason()}): is it still plugged in?")
        return None

    def close(self) -> None:
        """Ends it at once; a `read` that waits in another thread returns None."""
        self._closed = True
        self._ffmpeg.process.kill()

    def __enter__(self) -> "DrivingStream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ffmpeg.kill()

    def _report(self) -> tuple[int, int, Fraction]:
        """Width, height and rate, which ffmpeg says when the first frame is there."""
        while True:
            ended = self._ffmpeg.process.poll() is not None
            if ended:
                self._ffmpeg.finish()  # its last words are here
            lines = list(self._ffmpeg.messages)
            container = next((found[1] for line in lines if (found := _INPUT.search(line))), "")
            if container in TEXT_AND_LISTS:
                raise self._no_video("it is text or a list of files")
            # Before it come the lines of the input, which look alike.
            start = next((index for index, line in enumerate(lines) if line.startswith(_OUTPUT)), len(lines))
            for line in lines[start:]:
                if size := _SIZE.search(line):
                    return int(size[1]), int(size[2]), _rate(line)
            if ended:
                raise self._no_video(self._reason())
            time.sleep(0.01)

    def _no_video(self, reason: str) -> InputError:
        if self.live:
            return InputError(f"{self.name} cannot be opened ({reason}): is another program using it?")
        return InputError(
            f"standard input holds no video ({reason}): pipe in Matroska, MPEG-TS, NUT or Y4M, as ffmpeg writes them"
        )

    def _reason(self) -> str:
        wrong = [_WRONG.sub("", line) for line in self._ffmpeg.messages if _WRONG.search(line)]
        if any("matches no streams" in line for line in wrong):
            return "it has no pictures"
        return wrong[0] if wrong else "it ended before the first frame"


# Each frame once, as it comes. V: a cover picture is no video. One thread: several keep back a frame.
_FRAMES = ["-map", "0:V:0", "-fps_mode", "passthrough", "-threads", "1", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]


def _rate(line: str) -> Fraction:
    """Frames a second in ffmpeg's line about a video; it rounds them to two decimals."""
    found = _RATE.search(line)
    if not found or not 0 < float(found[1]) < _FASTEST:
        return Fraction(25)
    common = frame_rate([0], Fraction(1), float(found[1]))
    return common if abs(common - Fraction(found[1])) < Fraction("0.01") else Fraction(found[1])


def _camera(name: str) -> list[str]:
    kind, _, rest = name.partition(":")
    if kind == "lavfi":
        return ["-re", "-readrate_initial_burst", "0.001", "-f", "lavfi", "-i", rest]
    if not (rest.isascii() and rest.isdecimal()):
        raise InputError(f"{name}: cameras have numbers, the first is webcam:0 (a file of this name: ./{name})")
    return camera_arguments(int(rest))


def _standard_input() -> int:
    if sys.stdin is None or sys.stdin.closed:
        raise InputError("--driving -: standard input is closed: pipe a video into it")
    if sys.stdin.isatty():
        raise InputError("--driving -: standard input is the terminal: pipe a video into it")
    return sys.stdin.fileno()


def _standard_output() -> int:
    if sys.stdout is None or sys.stdout.closed:
        raise InputError("--out -: standard output is closed: pipe it into a player, e.g. | ffplay -")
    if sys.stdout.isatty():
        raise InputError("--out -: standard output is the terminal: pipe it into a player, e.g. | ffplay -")
    sys.stdout.flush()
    return sys.stdout.fileno()


class StreamWriter:
    """Writes a video to standard output as it is made; nothing else may be written there. Use it in a `with` statement.

    codec: `h264` in Matroska, every frame sent when the next one comes; `raw` is Y4M, 4:2:0. An odd width or height
    grows by one pixel that repeats the last column or row. text: of the file's metadata.
    stdout: a file descriptor in place of standard output's. Raises InputError where that is a terminal.
    """

    audio = False

    def __init__(
        self,
        *,
        fps: Fraction,
        width: int,
        height: int,
        codec: Literal["h264", "raw"] = "h264",
        text: dict[str, str] | None = None,
        stdout: int | None = None,
    ) -> None:
        stdout = _standard_output() if stdout is None else stdout
        self._shape = (height, width, 3)
        arguments = [
            "-f",
            "rawvideo",
            "-pixel_format",
            "rgb24",
            "-video_size",
            f"{width + width % 2}x{height + height % 2}",
        ]
        arguments += ["-framerate", f"{fps.numerator}/{fps.denominator}", "-i", "pipe:0"]
        arguments += _RAW if codec == "raw" else _H264
        for key, value in (text or {}).items():
            arguments += ["-metadata", f"{key}={value}"]
        self._ffmpeg = FFmpeg([*arguments, "pipe:1"], stdout=stdout)

    def write(self, frames: np.ndarray) -> None:
        """Adds frames: uint8 RGB (B, H, W, 3). Raises Closed when their reader is gone, MTAnimateError for a full
        disk behind a `>`."""
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != self._shape:
            raise ValueError(f"expected uint8 (B, *{self._shape}), got {frames.dtype} {frames.shape}")
        height, width, _ = self._shape
        even = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        stdin = self._ffmpeg.process.stdin
        assert stdin is not None
        try:
            stdin.write(even.tobytes())
            stdin.flush()
        except OSError as error:  # ffmpeg is gone
            raise self._failed() from error

    def __enter__(self) -> "StreamWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._ffmpeg.finish() != 0 and kind is None:
                raise self._failed()
        finally:
            self._ffmpeg.kill()

    def _failed(self) -> Exception:
        self._ffmpeg.finish()
        if self._ffmpeg.said(["Broken pipe"]):
            return Closed()
        if self._ffmpeg.said(["No space left on device"]):
            return MTAnimateError("--out -: the disk is full: free some space or choose another folder")
        return MTAnimateError(f"--out -: standard output could not be written ({self._ffmpeg.reason()})")


# Of the last two: a cluster is sent when it is full, which it is after one frame, and ffmpeg keeps nothing back.
_H264 = [
    *("-vf", f"scale={TO_BT709}:flags=accurate_rnd+full_chroma_int,{TAGGED_BT709}", "-pix_fmt", "yuv420p", *TAGS),
    *("-c:v", "libx264", "-preset", "veryfast", "-tune", "zerolatency", "-crf", "18", "-g", "50"),
    *("-f", "matroska", "-cluster_time_limit", "1", "-flush_packets", "1"),
]
_RAW = ["-pix_fmt", "yuv420p", "-f", "yuv4mpegpipe", "-flush_packets", "1"]
