"""Pieces of work in threads that are looked after: asked to stop where the whole is, given up where they hang."""

import csv
import hashlib
import queue
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

from mtanimate.animation.animate import run_job
from mtanimate.animation.results import codec_for
from mtanimate.animation.settings import Job, Settings
from mtanimate.checkpoints.registry import file_given
from mtanimate.credentials import Credentials
from mtanimate.devices import Precision
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.files import JsonLines, taken
from mtanimate.inference.loading import load_network
from mtanimate.outputs import check_not_input, claim, place
from mtanimate.reading import MAX_PIXELS, read_table

T = TypeVar("T")

# Seconds without a sign of life. The last is given before a file is finished, which takes minutes for a long GIF.
LONGEST_SILENCE = 1800.0
_LAST_WORDS = 10.0  # seconds that all have to end in where the whole is stopped
_GLANCE = 1.0  # seconds between two looks at who is silent


class Stopped(Exception):
    """The work is not wanted any more."""


class Piece(Generic[T]):
    """What one thread does with one item. No thread can be ended from outside: one that hangs is left behind, and is
    no reason for the process not to end."""

    def __init__(self, item: T, work: "Callable[[Piece[T]], bool]", ended: "Callable[[Piece[T]], None]") -> None:
        self.item, self.good = item, False
        self.error: BaseException | None = None
        self._work, self._ended = work, ended
        self._last = time.monotonic()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="row", daemon=True)
        self._thread.start()

    @property
    def silence(self) -> float:
        return time.monotonic() - self._last

    def progress(self, *counts: object) -> None:
        """A sign of life, to be given often. Raises Stopped where the work is to end."""
        self._last = time.monotonic()
        if self._stopped.is_set():
            raise Stopped

    def stop(self) -> None:
        self._stopped.set()

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)

    def _run(self) -> None:
        try:
            self.good = self._work(self)
        except BaseException as error:  # whatever it is, it is the taker's to see
            self.error = error
        self._ended(self)


def attend(
    work: Callable[[Piece[T]], bool], hung: Callable[[T], None], items: Sequence[T], workers: int
) -> Generator[bool, None, None]:
    """The outcomes as they come; no more items are begun than there are workers.

    One whose work is silent for `LONGEST_SILENCE` is told to `hung`, and counts as False. Raises what the work raises.
    Whoever stops taking them stops the work. Close it.
    """
    waiting, running = iter(items), set[Piece[T]]()
    ended: queue.SimpleQueue[Piece[T]] = queue.SimpleQueue()
    try:
        while True:
            running |= {Piece(item, work, ended.put) for item in islice(waiting, workers - len(running))}
            if not running:
                return
            for piece in _next(ended) & running:
                running.remove(piece)
                if piece.error is not None:
                    raise piece.error
                yield piece.good
            for piece in [piece for piece in running if piece.silence > LONGEST_SILENCE]:
                running.remove(piece)
                piece.stop()
                hung(piece.item)
                yield False
    finally:
        for piece in running:
            piece.stop()
        until = time.monotonic() + _LAST_WORDS
        for piece in running:
            piece.join(max(0.0, until - time.monotonic()))


def _next(ended: "queue.SimpleQueue[Piece[T]]") -> set[Piece[T]]:
    """The next that ends, if one does before long."""
    try:
        return {ended.get(timeout=_GLANCE)}
    except queue.Empty:
        return set()


FILES = ("source", "driving", "out", "motion", "save-motion")


@dataclass(frozen=True)
class JobRow:
    """A row of the jobs file.

    Attributes:
        line: Its line number in the file, from 1.
        job: The files that it reads and writes.
        settings: How it is animated.
        key: A digest of the row, which changes with anything in it.
    """

    line: int
    job: Job
    settings: Settings
    key: str


@dataclass(frozen=True)
class JobsSummary:
    """How many rows are done, were done before, and failed; and the report, which has lines for each row."""

    done: int
    skipped: int
    failed: int
    report: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def read_jobs(file: Path, defaults: Settings) -> list[JobRow]:
    """The rows of a CSV file with the columns source, driving (or motion), out, and any of `Settings`.

    Args:
        file: The CSV file. Paths in it are relative to its folder.
        defaults: Settings for empty cells and missing columns.

    Raises:
        InputError: The file is not such a table, or a row is wrong; the message names its line.
    """
    if not file.is_file():
        raise InputError(f"--jobs {file}: no such file")
    try:
        lines = [(reader.line_num, row) for reader in [read_table(file)] for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"--jobs {file} is not a CSV file ({error})") from error
    if not lines:
        raise InputError(f"--jobs {file} is empty: expected a first line 'source,driving,out' and a row a job")
    rows: list[JobRow] = []
    for line, texts in lines:
        try:
            rows.append(_row(line, texts, file.parent, defaults))
        except InputError as error:
            raise InputError(f"--jobs {file}, line {line}: {error}") from error
    lines_of: dict[str, int] = {}
    for row in rows:
        for path in row.job.outputs:
            line = lines_of.setdefault(place(path), row.line)
            if line != row.line:
                raise InputError(f"--jobs {file}, line {row.line}: line {line} writes {path} too")
    return rows


def _check_inputs(file: Path, left: list[JobRow], rows: list[JobRow]) -> None:
    """Raises InputError where a row that is left to do would write over what another row reads."""
    inputs = {path for row in rows for path in row.job.inputs}
    for row in left:
        for path in row.job.outputs:
            check_not_input(f"--jobs {file}, line {row.line}:", path, inputs)


def _row(line: int, texts: dict[str | None, Any], folder: Path, defaults: Settings) -> JobRow:
    if None in texts or None in texts.values():
        raise InputError("it has more or fewer fields than the first line")
    given = {str(name).strip(): value.strip() for name, value in texts.items()}
    given["codec"] = codec_for(given.get("out", ""), given.get("codec") or defaults.codec) or ""
    paths = {name: folder / Path(given.pop(name)).expanduser() if given.get(name) else None for name in FILES}
    for name in FILES:
        given.pop(name, None)
    settings = defaults.changed(given)
    source, out = paths["source"], paths["out"]
    if source is None or out is None:
        raise InputError("a job needs a source and an out")
    job = Job(source, paths["driving"], out, paths["motion"], paths["save-motion"])
    for path in (job.source, job.driving, job.motion):
        if path is not None and not path.exists():
            raise InputError(f"{path} does not exist")
    key = hashlib.sha256(repr((job, settings)).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return JobRow(line, job, settings, key)


def run_jobs(
    file: str | Path,
    *,
    checkpoint: str = "default",
    device: str = "auto",
    precision: Precision = "auto",
    backend: str | None = None,
    batch_size: int | None = None,
    allow_code: bool = False,
    max_pixels: int = MAX_PIXELS,
    credentials: tuple[str | Path, str | Path] | None = None,
    overwrite: bool = False,
    workers: int | None = None,
    progress: Callable[..., None] = lambda done, total, note="": None,
    log: Callable[[str], None] = lambda line: None,
    **settings: Any,
) -> JobsSummary:
    """Perform every row of a jobs file that is not finished yet; a row that fails does not stop the others, nor one
    that hangs: without a new frame for `LONGEST_SILENCE` it counts as failed.

    A row is finished when its `out` is there and `FILE.report.jsonl`, which gets lines for each, says that this very
    row made it. settings: the fields of `Settings`, for rows that do not say otherwise. allow_code, max_pixels,
    credentials: as `animate` has them.
    workers: rows at a time; None: two on a GPU, one on a CPU, which is busy with one. progress counts rows. Raises
    InputError for a wrong file, MTAnimateError where another run performs the same one.
    """
    path = Path(file).expanduser()
    rows = read_jobs(path, Settings(**settings))
    report = path.with_name(f"{path.name}.report.jsonl")
    with claim(report):
        job_report = JobReport(report)
        finished = [row for row in rows if job_report.finished(row)]
        left = [row for row in rows if row not in finished]
        _check_inputs(path, left, rows)
        signing = Credentials.read(*credentials) if credentials else None
        if signing:
            for row in left:
                signing.check(row.job.out, row.settings.codec)
        options = (checkpoint, device, precision, backend, log, batch_size, allow_code)
        loaded = load_network(*options) if left else None
        done = failed = 0

        def fail(row: JobRow, why: str) -> None:
            text = " ".join(why.split())
            job_report.write(row, {"status": "failed", "error": text})
            log(f"line {row.line}: {text}")

        def hung(row: JobRow) -> None:
            minutes = f"{LONGEST_SILENCE / 60:g} minutes"
            fail(row, f"no new frame for {minutes}: it was given up; does a disk, a network share or a file hang?")

        def one(piece: Piece[JobRow]) -> bool:
            assert loaded is not None
            row = piece.item
            try:
                with claim(*row.job.outputs):
                    replace = overwrite or (job_report.made(row) and row.job.save_motion is not None)
                    row.job.check(row.settings, replace, file_given(checkpoint))
                    job_report.write(row, {"status": "begun", "new": not taken(row.job.out)})
                    given: dict[str, Any] = {"overwrite": replace, "max_pixels": max_pixels, "credentials": signing}
                    given["gpu"] = loaded.device.type == "cuda"
                    result = run_job(row.job, row.settings, lambda: loaded, piece.progress, _nothing, **given)
            except Stopped:
                return False
            except Exception as error:  # whatever it is, it is this row's: the others go on
                fail(row, str(error) if isinstance(error, MTAnimateError) else f"{type(error).__name__}: {error}")
                return False
            job_report.write(row, {"status": "done", **result.as_dict()})
            return True

        count = workers or (2 if loaded and loaded.device.type == "cuda" else 1)
        progress(len(finished), len(rows))
        with closing(attend(one, hung, left, count)) as outcomes:
            for good in outcomes:
                done, failed = done + good, failed + (not good)
                progress(len(finished) + done + failed, len(rows), f"{failed} failed" if failed else "")
        return JobsSummary(done, len(finished), failed, str(report))


def _nothing(*said: object) -> None:
    """Rows run side by side: of their own remarks nothing is shown."""


class JobReport:
    """`FILE.report.jsonl`: one line when a row begins, and one with its outcome.

    Raises InputError for a file that `animate --jobs` did not write.
    """

    def __init__(self, file: Path) -> None:
        self._lines = JsonLines(file, "animate --jobs")
        last = {entry["key"]: entry for entry in self._lines.read(_entry)} if file.exists() else {}
        # Outputs appear whole or not at all: a new file that a killed run began is there only if it was finished.
        self._made = {key for key, entry in last.items() if entry["status"] == "done" or entry.get("new")}

    def made(self, row: JobRow) -> bool:
        """Whether exactly this row made the outputs at its names, if there are any."""
        return row.key in self._made

    def finished(self, row: JobRow) -> bool:
        """Whether exactly this row made its `out`, which still exists."""
        return self.made(row) and row.job.out.exists()

    def write(self, row: JobRow, outcome: dict[str, Any]) -> None:
        """Add a line about a row. Raises MTAnimateError where it cannot be written."""
        job = {"line": row.line, "key": row.key, "source": str(row.job.source), "out": str(row.job.out)}
        try:
            self._lines.append(job | outcome)
        except OSError as error:
            raise MTAnimateError(f"{self._lines.file} could not be written ({error.strerror})") from error


def _entry(line: Any) -> dict[str, Any]:
    if not all(isinstance(line[name], str) for name in ("key", "status")):
        raise ValueError("a key or a status is not text")
    return dict(line)
