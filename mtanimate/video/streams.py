"""Live streams: cameras and standard input in, standard output out, through ffmpeg."""

import io
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from threading import Timer
from types import TracebackType
from typing import Literal

import numpy as np

from mtanimate.errors import InputError, MTAnimateError
from mtanimate.reading import MAX_PIXELS, check_pixels
from mtanimate.video.colour import full_bt709_to_rgb
from mtanimate.video.encoding import TAGGED_BT709, TAGS, TO_BT709
from mtanimate.video.ffmpeg import ONLY_FORMATS, FFmpeg, executable
from mtanimate.video.timing import frame_rate

_DSHOW = re.compile(r'"([^"]+)" \(video\)')
_PATIENCE = 60.0  # seconds without a frame until a stream counts as dead
_FASTEST = 1000  # frames a second; ffmpeg reports more for streams without a rate
# Every frame once, without delay, in Y4M, which tells size and rate.
# V excludes cover pictures. One thread, since several delay a frame.
_SQUARE = "scale=iw*clip(sar\\,1\\,5):ih/clip(sar\\,0.2\\,1)"
_FRAMES = [
    *("-map", "0:V:0", "-fps_mode", "passthrough", "-threads", "1"),
    *("-vf", f"{_SQUARE}:out_color_matrix=bt709:out_range=pc:flags=accurate_rnd+full_chroma_int,setsar=1"),
    *("-pix_fmt", "yuv444p", "-f", "yuv4mpegpipe", "-flush_packets", "1", "-"),
]
# The last two options: a cluster is full, and sent, after one frame, and ffmpeg flushes its output.
_H264 = [
    *("-vf", f"scale={TO_BT709}:flags=accurate_rnd+full_chroma_int,{TAGGED_BT709}", "-pix_fmt", "yuv420p", *TAGS),
    *("-c:v", "libx264", "-preset", "veryfast", "-tune", "zerolatency", "-crf", "18", "-g", "50"),
    *("-f", "matroska", "-cluster_time_limit", "1", "-flush_packets", "1"),
]
_RAW = ["-pix_fmt", "yuv420p", "-f", "yuv4mpegpipe", "-flush_packets", "1"]


class StreamClosed(Exception):
    """Nobody watches any more: the window was closed, or the program that read our standard output has ended."""


def is_stream(driving: str) -> bool:
    """Whether `--driving` names a stream: `-`, `webcam:N`, or `lavfi:FILTER`, ffmpeg's test sources, as a camera.

    Anything else is a file's name: nothing but these opens a camera.
    """
    return driving == "-" or driving.startswith(("webcam:", "lavfi:"))


def check_stream(name: str) -> None:
    """Checks a stream without opening it. Open it when all else is ready: frames that come earlier are outdated.

    Args:
        name: see `is_stream`.

    Raises:
        InputError: there is no such camera, or standard input is closed or a terminal.
    """
    if name == "-":
        _standard_input()
    else:
        _camera(name)


class DrivingStream:
    """Frames of a camera or of standard input. Waits for the first frame. Use it in a `with` statement.

    Args:
        name: as the user gave it; see `is_stream`.
        max_pixels: the most pixels of a frame.

    Attributes:
        width: in pixels.
        height: in pixels.
        fps: the rate that ffmpeg names, 25 where it knows none; the frames' own times are not kept.
        live: whether frames come at their own pace, so that old ones are worthless.

    Raises:
        InputError: no such camera, no video, or frames of more than `max_pixels`.
        MTAnimateError: nothing comes for a minute.
    """

    def __init__(self, name: str, max_pixels: int = MAX_PIXELS) -> None:
        self.name, self._max_pixels = name, max_pixels
        self.live = name != "-"
        self._closed = self._silent = False
        arguments = ["-thread_type", "slice"]  # threads that do not delay frames
        if self.live:
            self._ffmpeg = FFmpeg([*arguments, "-nostdin", *_camera(name), *_FRAMES], stdin=subprocess.DEVNULL)
        else:  # a playlist in the pipe must not open files or addresses
            arguments += ["-protocol_whitelist", "pipe", *ONLY_FORMATS, "-i", "pipe:0"]
            self._ffmpeg = FFmpeg([*arguments, *_FRAMES], stdin=_standard_input())
        try:
            self.width, self.height, self.fps = self._header()
        except BaseException:
            self._ffmpeg.kill()
            raise

    def read(self) -> np.ndarray | None:
        """Waits for the next frame.

        Returns:
            uint8 RGB (H, W, 3), or None at the end.

        Raises:
            MTAnimateError: the camera fails, ffmpeg is killed, or nothing comes for a minute.
        """
        planes = np.empty((3, self.height, self.width), np.uint8)
        stdout = self._stdout()
        with self._patience():
            whole = stdout.readline() == b"FRAME\n" and stdout.readinto(planes.data.cast("B")) == planes.nbytes
        if whole:
            return full_bt709_to_rgb(planes)
        failed = self._ffmpeg.process.wait() != 0 and not self._closed
        if failed and (outside := self._ffmpeg.ended_from_outside()):
            raise MTAnimateError(f"{self.name} gives no more frames: {outside}")
        if failed and self.live:
            raise MTAnimateError(f"{self.name} gives no more frames ({self._reason()}): is it still plugged in?")
        return None

    def close(self) -> None:
        """Ends the stream at once; a `read` that waits in another thread returns None."""
        self._closed = True
        self._ffmpeg.process.kill()

    def __enter__(self) -> "DrivingStream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ffmpeg.kill()

    def _header(self) -> tuple[int, int, Fraction]:
        """Width, height and rate from the first line: "YUV4MPEG2 W96 H64 F30000:1001 ..."."""
        with self._patience():
            line = self._stdout().readline()
        magic, *fields = line.decode("ascii").split()[:4] or [""]
        if magic != "YUV4MPEG2":
            self._ffmpeg.finish()  # now all its messages are there
            raise self._no_video(self._reason())
        width, height, rate = (field[1:] for field in fields)
        check_pixels(self.name if self.live else "standard input", int(width), int(height), self._max_pixels)
        return int(width), int(height), _rate(rate)

    @contextmanager
    def _patience(self) -> Iterator[None]:
        """Limits a wait: ends ffmpeg, and so the wait, where nothing comes for long. Raises MTAnimateError then."""
        watchdog = Timer(_PATIENCE, self._give_up)
        watchdog.daemon = True
        watchdog.start()
        try:
            yield
        finally:
            watchdog.cancel()
        if self._silent and not self._closed:
            what = f"{self.name}: is it still plugged in" if self.live else "standard input: does its writer hang"
            raise MTAnimateError(f"nothing came for {_PATIENCE:g} seconds from {what}?")

    def _give_up(self) -> None:
        self._silent = True
        self._ffmpeg.process.kill()

    def _stdout(self) -> io.BufferedReader:
        stdout = self._ffmpeg.process.stdout
        assert isinstance(stdout, io.BufferedReader)
        return stdout

    def _no_video(self, reason: str) -> MTAnimateError:
        if outside := self._ffmpeg.ended_from_outside():
            return MTAnimateError(f"{self.name} gives no frames: {outside}")
        if self.live:
            return InputError(f"{self.name} cannot be opened ({reason}): is another program using it?")
        return InputError(
            f"standard input holds no video ({reason}): pipe in Matroska, MPEG-TS, NUT or Y4M, as ffmpeg writes them"
        )

    def _reason(self) -> str:
        if self._ffmpeg.said(["matches no streams"]):
            return "it has no pictures"
        return self._ffmpeg.reason() if self._ffmpeg.messages else "it ended before the first frame"


class StreamWriter:
    """Writes a video to standard output as it is made; nothing else may be written there. Use it in a `with` statement.

    An odd width or height grows by one pixel that repeats the last column or row.

    Args:
        fps: frames a second.
        width: of the frames, in pixels.
        height: of the frames, in pixels.
        codec: `h264` in Matroska, where each frame is sent when the next one comes, or `raw`, Y4M 4:2:0.
        text: metadata by ffmpeg's keys.
        stdout: a file descriptor in place of standard output's.

    Raises:
        InputError: standard output is closed or a terminal.
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
        """Adds frames.

        Args:
            frames: uint8 RGB (B, H, W, 3).

        Raises:
            StreamClosed: the reader of standard output has ended.
            MTAnimateError: standard output cannot be written, e.g. the disk is full.
        """
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
            return StreamClosed()
        if self._ffmpeg.said(["No space left on device"]):
            return MTAnimateError("--out -: the disk is full: free some space or choose another folder")
        return MTAnimateError(f"--out -: standard output could not be written ({self._ffmpeg.reason()})")


def camera_arguments(number: int) -> list[str]:
    """ffmpeg's options that open a camera.

    Args:
        number: of the camera, from 0.

    Raises:
        InputError: there is no such camera, as far as the system tells.
    """
    if sys.platform == "darwin":  # it takes only rates that the camera offers; every camera offers 30
        return ["-f", "avfoundation", "-framerate", "30", "-i", f"{number}:none"]
    if sys.platform == "win32":
        names = _windows_cameras()
        if number >= len(names):
            raise InputError(f"webcam:{number}: there is {_listed(names)}")
        return ["-f", "dshow", "-i", f"video={names[number]}"]
    device = Path(f"/dev/video{number}")
    if not device.exists():
        raise InputError(f"webcam:{number}: there is no {device}, but {_listed(linux_cameras())}")
    return ["-f", "v4l2", "-i", str(device)]


def linux_cameras(folder: Path = Path("/dev")) -> list[str]:
    """/dev/video0, /dev/video2, ... in the order of their numbers."""
    found = [path for path in folder.glob("video*") if path.name[5:].isdecimal()]
    return [str(path) for path in sorted(found, key=lambda path: int(path.name[5:]))]


def dshow_names(listing: str) -> list[str]:
    """The names of the cameras in ffmpeg's listing of DirectShow devices."""
    return _DSHOW.findall(listing)


def _windows_cameras() -> list[str]:
    """The names of the cameras, in DirectShow's order."""
    command = [executable(), "-hide_banner", "-f", "dshow", "-list_devices", "true", "-i", "dummy"]
    return dshow_names(subprocess.run(command, capture_output=True, check=False).stderr.decode(errors="replace"))


def _listed(cameras: list[str]) -> str:
    return ", ".join(cameras) if cameras else "no camera at all: plug one in, or drive with a video"


def _rate(text: str) -> Fraction:
    """Frames a second from Y4M's notation, "30000:1001"."""
    over, _, under = text.partition(":")
    rate = Fraction(int(over), int(under)) if int(under) else Fraction(0)
    if not 0 < rate < _FASTEST:
        return Fraction(25)
    common = frame_rate([0], Fraction(1), float(rate))
    return common if abs(common - rate) < Fraction("0.01") else rate


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
