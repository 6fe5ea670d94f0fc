"""Runs for the page: one at a time, the others in a line, each in a folder of its own that does not stay."""

import re
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from mtanimate.animation.attending import Piece
from mtanimate.cli.terminal import Stages, explained
from mtanimate.credentials import Credentials
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.inference.loading import LoadedNetwork
from mtanimate.reading import check_readable
from mtanimate.video.footage import Footage, open_footage

T = TypeVar("T")

_GLANCE = 0.5  # seconds between two looks at a run
_SWEEP = 60.0  # seconds between two looks for what is old


@dataclass(frozen=True)
class Limits:
    """What one visitor may ask for.

    Attributes:
        megabytes: Of an uploaded file.
        pixels: Of a picture, and of a video's frame.
        seconds: Of a video.
        waiting: Runs that may wait for their turn.
        keep_hours: How long files stay.
    """

    megabytes: int = 200
    pixels: int = 50_000_000
    seconds: float = 120.0
    waiting: int = 10
    keep_hours: float = 1.0


@dataclass(frozen=True)
class Waiting:
    """A run that waits. place: 1 is next."""

    place: int


@dataclass(frozen=True)
class Working:
    """How far a run is. left: Seconds for all stages; 0 where that is not known yet."""

    stage: str
    done: int
    total: int
    left: float


@dataclass(frozen=True)
class Done(Generic[T]):
    """What a run gave."""

    value: T


class Room:
    """The private folder of a server: uploads and results. Nobody else can read it, and nothing in it stays.

    Args:
        keep_hours: Files that are older are removed.
    """

    def __init__(self, keep_hours: float) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mtanimate-web-")).resolve()
        self._keep = keep_hours * 3600
        self._closed = threading.Event()
        threading.Thread(target=self._sweep_often, name="sweep", daemon=True).start()

    @contextmanager
    def new_folder(self) -> Iterator[Path]:
        """Yields an empty folder with a name that cannot be guessed. It is removed where the block fails."""
        folder = self.folder / uuid.uuid4().hex
        folder.mkdir(mode=0o700)
        try:
            yield folder
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def sweep(self) -> None:
        """Remove what was last changed too long ago."""
        oldest = time.time() - self._keep
        for entry in self.folder.iterdir():
            with suppress(OSError):  # it may be gone by now, or still grow
                if max(path.lstat().st_mtime for path in (entry, *entry.rglob("*"))) < oldest:
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def close(self) -> None:
        """Remove everything."""
        self._closed.set()
        shutil.rmtree(self.folder, ignore_errors=True)

    def without_paths(self, text: str) -> str:
        """The text with names in place of paths in this folder: visitors learn no path of this machine."""
        separator = r"[\\/]"
        below = rf"(?:{separator}(?:[0-9a-f]{{32,}}{separator})?)?"
        return re.sub(re.escape(str(self.folder)) + below, "", text)

    def _sweep_often(self) -> None:
        while not self._closed.wait(_SWEEP):
            self.sweep()


class Runner:
    """One network, and a line of those who wait for it.

    Args:
        loaded: The network.
        room: For files.
        limits: What a visitor may ask for.
        credentials: To sign results with.
    """

    def __init__(self, loaded: LoadedNetwork, room: Room, limits: Limits, credentials: Credentials | None) -> None:
        self.loaded, self.room, self.limits, self.credentials = loaded, room, limits, credentials
        self.network = threading.Lock()  # whoever computes holds it
        self._line: list[object] = []
        self._changed = threading.Lock()

    def follow(
        self, work: Callable[[Callable[..., None]], T], shares: Mapping[str, float]
    ) -> Generator[Waiting | Working | Done[T], None, None]:
        """Do the work in a thread when its turn comes, and tell how far it is. Closing the generator stops the work.

        Args:
            work: Gets `progress`, which it has to call often, as `run_job` does.
            shares: Of the stages, as `Stages` takes them.

        Raises:
            MTAnimateError: Too many are waiting.

        Also raises what the work raises.
        """
        ticket = self._enter()
        started = False
        try:
            place = 0
            while (now := self._place(ticket)) > 0 or not self.network.acquire(blocking=False):
                if now != place:
                    yield Waiting(max(now, 1))
                place = now
                time.sleep(_GLANCE)
            started = True
        finally:
            if not started:
                self._leave(ticket)
        run = _Run(work, Stages(shares), lambda: self._end(ticket))
        try:
            yield from run.steps()
        finally:
            run.piece.stop()

    def words(self, error: BaseException) -> str:
        """An error in one line, as the command line says it, without paths."""
        message = explained(error)[0] if isinstance(error, Exception) else "it was ended"
        return self.room.without_paths(" ".join(message.split()))

    def open_clip(self, path: str | Path | None, what: str = "driving video") -> Footage:
        """An uploaded video, opened but not decoded. Raises InputError where it is none, or larger than allowed."""
        if path is None:
            raise InputError(f"the {what} is missing: upload or record one first")
        check_readable(Path(path), "video")
        footage = open_footage(Path(path), max_pixels=self.limits.pixels)
        if seconds_of(footage) > self.limits.seconds:
            long, most = f"{seconds_of(footage):.0f}", f"{self.limits.seconds:g}"
            raise InputError(f"{Path(path).name} is {long} s long, and {most} s is the limit here: cut it first")
        return footage

    def _enter(self) -> object:
        ticket = object()
        with self._changed:
            if len(self._line) > self.limits.waiting:
                raise MTAnimateError(f"{len(self._line) - 1} runs are waiting already: try again in a few minutes")
            self._line.append(ticket)
        return ticket

    def _place(self, ticket: object) -> int:
        with self._changed:
            return self._line.index(ticket)

    def _leave(self, ticket: object) -> None:
        with self._changed:
            self._line.remove(ticket)

    def _end(self, ticket: object) -> None:
        self._leave(ticket)
        self.network.release()


class _Run(Generic[T]):
    """One piece of work in its thread."""

    def __init__(self, work: Callable[[Callable[..., None]], T], stages: Stages, end: Callable[[], None]) -> None:
        self._stages = stages
        self._latest: Working | None = None
        self._value: list[T] = []
        self._over = threading.Event()

        def one(piece: Piece[None]) -> None:
            def progress(done: int, total: int, stage: str = "") -> None:
                piece.progress()
                stage = stage or next(iter(stages.shares))
                self._latest = Working(stage, done, total, stages.at(done, total, stage)[1])

            self._value.append(work(progress))

        def ended(piece: Piece[None]) -> None:
            end()
            self._over.set()

        self.piece = Piece(None, one, ended)

    def steps(self) -> Generator[Working | Done[T], None, None]:
        told: Working | None = None
        while not self._over.wait(_GLANCE):
            if self._latest is not None and self._latest != told:
                told = self._latest
                yield told
        if self.piece.error is not None:
            raise self.piece.error
        yield Done(self._value[0])


def seconds_of(footage: Footage) -> float:
    """How long a video is."""
    return float(footage.times[-1] - footage.times[0] + 1 / footage.fps)
