"""Frames as they arrive, and when each did."""

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from fractions import Fraction
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from mtanimate.animation.retargeting import transferred
from mtanimate.faces.detection import square_frames
from mtanimate.inference.predictor import Performer
from mtanimate.models.motion import Motion
from mtanimate.video.streams import StreamClosed

if TYPE_CHECKING:
    from mtanimate.animation.settings import Mode
    from mtanimate.animation.source import Stage

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


class Sink(Protocol):
    """Where results go. All three may raise StreamClosed; `attend` is called often, also while there is no frame."""

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


_REMEMBERED = 10_000  # frames whose latency is known for the report


@dataclass(frozen=True)
class Report:
    """frames: driven. dropped: came while the network was busy, and were never looked at. held: frames without a usable
    motion, which show the one before. latency: milliseconds from a frame's arrival to the sink's having its result."""

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


def perform_live(
    performer: Performer,
    stage: "Stage",
    stream: Stream,
    sink: Sink,
    *,
    mode: "Mode" = "relative",
    adapt_scale: bool = True,
    strength: float = 1.0,
    squares: Callable[[np.ndarray], Tensor] | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> Report:
    """Drive the source on `stage`, a still picture, with every frame of `stream` until it ends or `sink` is closed.

    squares: cuts frames, uint8 (B, H, W, 3), for the network: (B, 3, R, R); by default the centred squares. Movement is
    since the first frame, or since the one that comes after the sink asked for a new reference, or SIGUSR1 did.
    Ctrl-C is raised as KeyboardInterrupt, and what the stream raised as it is, when the sink has been closed in good
    order and `log` got the report. Raises what the sink raises, which then is closed in disorder.
    """
    resolution = performer.animator.config.resolution
    follower = Follower(performer, stage, mode, adapt_scale, strength)
    arrivals, tally = Arrivals(stream), _Tally()
    interrupt: KeyboardInterrupt | None = None
    with suppress(StreamClosed), sink, arrivals, _signals() as signals:
        try:
            for at, frame in arrivals.each(sink.attend):
                if sink.reference_asked() or signals:
                    signals.clear()
                    follower.rest_here()
                square = squares(frame[None]) if squares else square_frames(frame[None], resolution)
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
    """Moves the source as the driver moves. held: frames whose motion was of no use."""

    def __init__(self, performer: Performer, stage: "Stage", mode: "Mode", adapt_scale: bool, strength: float) -> None:
        self.performer, self.stage, self.mode = performer, stage, mode
        self.adapt_scale, self.strength = adapt_scale, strength
        self.held = 0
        self._reference: Motion | None = None
        self._last: Motion | None = None

    def rest_here(self) -> None:
        """The next frame with a usable motion is the new reference."""
        self._reference = None

    def follow(self, square: Tensor) -> np.ndarray:
        """A driving frame, uint8 (1, 3, R, R) -> the result, uint8 (H, W, 3)."""
        motion = self.performer.estimate(square).to(torch.device("cpu"))
        if motion.is_finite().all():
            self._last = motion
            self._reference = motion if self._reference is None else self._reference
        else:
            self.held += 1
        background = self.stage.backgrounds(square) if self.mode == "absolute" else None
        return self.stage.compose(self.stage.drive(slice(0, 1), self._direct, background))[0]

    def _direct(self, source: Motion, first: Motion, part: slice) -> Motion:
        if self._last is None:
            return source
        if self.mode == "absolute":
            return self._last
        # None: not one usable motion since a new reference was asked for.
        reference = self._last if self._reference is None else self._reference
        return transferred(source, first, self._last, reference, self.adapt_scale, self.strength)


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

    def report(self, dropped: int, held: int) -> Report:
        seconds = self._last - self._first if self._frames else 0.0
        return Report(
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
