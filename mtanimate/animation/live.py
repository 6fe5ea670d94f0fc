"""The live loop: each driving frame as it arrives, driven, shown, and its latency measured."""

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from fractions import Fraction
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from mtanimate.animation.retargeting import (
    AbsoluteTransfer,
    AtRest,
    DisentangledTransfer,
    MotionTransfer,
    RelativeTransfer,
)
from mtanimate.animation.settings import Mode
from mtanimate.animation.source import SourceRenderer
from mtanimate.faces.detection import square_frames
from mtanimate.inference.predictor import Predictor
from mtanimate.models.motion import Motion
from mtanimate.video.streams import StreamClosed

_WAITING = 2  # frames of a pipe that are read ahead
_PATIENCE = 0.03  # seconds without a frame after which the window's events are handled


class Stream(Protocol):
    """As `video.streams.DrivingStream` is. live: Of the frames that wait, only the newest counts."""

    live: bool

    def read(self) -> np.ndarray | None: ...

    def close(self) -> None: ...


class Arrivals:
    """The frames of a stream, read by a thread.

    Of a live stream only the newest frame waits. Of any other all are kept in order, and the stream waits for us.

    Attributes:
        dropped: How many frames a newer one replaced.
        error: What ended the stream, if anything did.
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
        """Yields when each frame came, by `time.monotonic`, and the frame. Calls `idle` while there is none."""
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
        except Exception as error:  # raised by the main thread, when it has closed the sink
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


class LiveSink(Protocol):
    """Where results go. Its methods may raise StreamClosed. `attend` is called often, also while there is no frame."""

    def write(self, frame: np.ndarray, at: float) -> None:
        """Show a result, uint8 (H, W, 3), of the driving frame that came `at` seconds after the first one."""

    def attend(self) -> None: ...

    def reference_asked(self) -> bool: ...

    def __enter__(self) -> Any: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class Writer(Protocol):
    """What a `LiveVideo` writes to. write: Takes uint8 (B, H, W, 3)."""

    def write(self, frames: np.ndarray) -> None: ...

    def __enter__(self) -> Any: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class LiveVideo:
    """A sink that is a video at a constant rate.

    Args:
        writer: A `StreamWriter`, or what writes a file.
        fps: Frames a second.
        live: Frames come at any time. Each fills the time since the one before, so that the video runs in real time.
            Otherwise every frame is written once.
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

    def __enter__(self) -> "LiveVideo":
        self._writer.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, trace)


_REMEMBERED = 10_000  # frames whose latency counts in the report


@dataclass(frozen=True)
class LiveReport:
    """How a live animation went.

    Attributes:
        frames: How many were driven.
        dropped: How many came while the network was busy, and were skipped.
        held: How many had no usable motion, and show the one before.
        seconds: From the first frame's arrival to the last result.
        latency_mean: Milliseconds from a frame's arrival until the sink has its result; None without frames.
        latency_95: Its 95th percentile.
    """

    frames: int
    dropped: int
    held: int
    seconds: float
    frames_per_second: float
    latency_mean: float | None
    latency_95: float | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        latency = f", latency {self.latency_mean:.0f} ms, 95 % under {self.latency_95:.0f} ms" if self.frames else ""
        return f"{self.frames} frames, {self.dropped} dropped, {self.frames_per_second:.1f} a second{latency}"


def run_live(
    predictor: Predictor,
    renderer: SourceRenderer,
    stream: Stream,
    sink: LiveSink,
    *,
    mode: Mode = "relative",
    adapt_scale: bool = True,
    strength: float = 1.0,
    squares: Callable[[np.ndarray], Tensor] | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> LiveReport:
    """Drive a still source with every frame of `stream`, until it ends or `sink` is closed.

    The reference frame is the first one. The sink, or the signal SIGUSR1, can ask for a new one: the next frame then.

    Args:
        renderer: Of the source.
        mode, adapt_scale, strength: As `Settings` has them.
        squares: Cuts frames, uint8 (B, H, W, 3), to what the network sees, (B, 3, R, R). None cuts the centred squares.
        log: Gets the report where an error ends the loop.

    Raises:
        KeyboardInterrupt: On Ctrl-C, when the sink is closed in good order.
        Exception: What the stream raised, when the sink is closed in good order; or what the sink raised.
    """
    follower = Follower(predictor, renderer, mode, adapt_scale, strength)
    arrivals, tally = Arrivals(stream), _Tally()
    interrupt: KeyboardInterrupt | None = None
    with suppress(StreamClosed), sink, arrivals, _signals() as signals:
        try:
            for at, frame in arrivals.each(sink.attend):
                if sink.reference_asked() or signals:
                    signals.clear()
                    follower.set_reference()
                square = squares(frame[None]) if squares else square_frames(frame[None], predictor.resolution)
                sink.write(follower.follow(square), tally.begin(at))
                tally.end(at)
        except KeyboardInterrupt as error:
            interrupt = error
    report = tally.report(arrivals.dropped, follower.held)
    ending = interrupt or arrivals.error
    if ending:
        log(str(report))
        raise ending
    return report


class Follower:
    """Moves the source as the driver moves, frame by frame. held: How many frames had no usable motion."""

    def __init__(
        self, predictor: Predictor, renderer: SourceRenderer, mode: Mode, adapt_scale: bool, strength: float
    ) -> None:
        self.predictor, self.renderer, self.mode = predictor, renderer, mode
        self.adapt_scale, self.strength = adapt_scale, strength
        self.held = 0
        self._reference: Motion | None = None
        self._last: Motion | None = None
        self._transfer: MotionTransfer = AtRest()

    def set_reference(self) -> None:
        """Make the next frame with a usable motion the reference frame; until it comes, the last one serves."""
        self._reference = None
        if self._last is not None:
            self._transfer = self._transfer_of(self._last, self._last)

    def follow(self, square: Tensor) -> np.ndarray:
        """A driving frame, uint8 (1, 3, R, R) -> the result, uint8 (H, W, 3)."""
        motion = self.predictor.estimate(square).to(torch.device("cpu"))
        if motion.is_finite().all():
            self._last = motion
            self._reference = motion if self._reference is None else self._reference
            self._transfer = self._transfer_of(motion, self._reference)
        else:
            self.held += 1
        background = self.renderer.backgrounds(square) if self.mode == "absolute" else None
        return self.renderer.compose(self.renderer.drive(slice(0, 1), self._transfer, background))[0]

    def _transfer_of(self, motion: Motion, reference: Motion) -> MotionTransfer:
        if self.mode == "absolute":
            return AbsoluteTransfer(motion)
        if self.mode == "avd":
            return DisentangledTransfer(motion, self.predictor.disentangle)
        return RelativeTransfer(motion, reference, self.adapt_scale, self.strength)


class _Tally:
    """Counts frames and their latency. Times are of `time.monotonic`."""

    def __init__(self) -> None:
        self._frames, self._total = 0, 0.0
        self._first = self._last = 0.0
        self._latencies: deque[float] = deque(maxlen=_REMEMBERED)

    def begin(self, at: float) -> float:
        """Seconds since the first frame came."""
        self._first = self._first or at
        return at - self._first

    def end(self, at: float) -> None:
        self._last = time.monotonic()
        self._frames += 1
        self._total += self._last - at
        self._latencies.append(self._last - at)

    def report(self, dropped: int, held: int) -> LiveReport:
        seconds = self._last - self._first if self._frames else 0.0
        return LiveReport(
            frames=self._frames,
            dropped=dropped,
            held=held,
            seconds=round(seconds, 3),
            frames_per_second=round(self._frames / max(seconds, 1e-6), 3),
            latency_mean=round(1000 * self._total / self._frames, 2) if self._frames else None,
            latency_95=round(1000 * float(np.percentile(self._latencies, 95)), 2) if self._frames else None,
        )


@contextmanager
def _signals() -> Iterator[deque[int]]:
    """Yields a list that gets an entry for each SIGUSR1; empty where systems or threads have no signals."""
    came: deque[int] = deque(maxlen=1)
    if not hasattr(signal, "SIGUSR1") or threading.current_thread() is not threading.main_thread():
        yield came
        return
    before = signal.signal(signal.SIGUSR1, lambda number, frame: came.append(number))
    try:
        yield came
    finally:
        signal.signal(signal.SIGUSR1, before)
