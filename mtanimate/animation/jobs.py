"""Pieces of work in threads that are looked after: asked to stop where the whole is, given up where they hang."""

import csv
import hashlib
import json
import os
import queue
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any, Generic, TypeVar

from mtanimate.animation import jobs as attending
from mtanimate.animation.animate import run_job
from mtanimate.animation.results import codec_for
from mtanimate.animation.settings import Job, Settings
from mtanimate.checkpoints.registry import file_given
from mtanimate.devices import Precision
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.files import taken
from mtanimate.inference.loading import load_network
from mtanimate.outputs import check_not_input, claim, place
from mtanimate.reading import MAX_PIXELS, parse_json, read_bytes, read_table

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
class Row:
    """A line of the jobs file. key: changes when anything in the row does."""

    line: int
    job: Job
    settings: Settings
    key: str


@dataclass(frozen=True)
class Report:
    """What became of the rows: how many of each, and the file that has a line for each."""

    done: int
    skipped: int
    failed: int
    report: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def read_jobs(file: Path, defaults: Settings) -> list[Row]:
    """The rows of a CSV file with the columns source, driving (or motion), out, and any of `Settings`.

    defaults: what holds where a row has an empty cell, or the file no such column. Paths are relative to the file's
    folder. Raises InputError, naming the line, for what can be seen to be wrong.
    """
    if not file.is_file():
        raise InputError(f"--jobs {file}: no such file")
    try:
        lines = [(reader.line_num, row) for reader in [read_table(file)] for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"--jobs {file} is not a CSV file ({error})") from error
    if not lines:
        raise InputError(f"--jobs {file} is empty: expected a first line 'source,driving,out' and a row a job")
    rows: list[Row] = []
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


def _check_inputs(file: Path, left: list[Row], rows: list[Row]) -> None:
    """Raises InputError where a row that is left to do would write over what another row reads."""
    inputs = {path for row in rows for path in row.job.inputs}
    for row in left:
        for path in row.job.outputs:
            check_not_input(f"--jobs {file}, line {row.line}:", path, inputs)


def _row(line: int, texts: dict[str | None, Any], folder: Path, defaults: Settings) -> Row:
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
    return Row(line, job, settings, key)


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
    overwrite: bool = False,
    workers: int | None = None,
    progress: Callable[..., None] = lambda done, total, note="": None,
    log: Callable[[str], None] = lambda line: None,
    **settings: Any,
) -> Report:
    """Perform every row of a jobs file that is not finished yet; a row that fails does not stop the others, nor one
    that hangs: without a new frame for `attending.LONGEST_SILENCE` it counts as failed.

    A row is finished when its `out` is there and `FILE.report.jsonl`, which gets lines for each, says that this very
    row made it. settings: the fields of `Settings`, for rows that do not say otherwise. allow_code, max_pixels: as
    `animate` has them.
    workers: rows at a time; None: two on a GPU, one on a CPU, which is busy with one. progress counts rows. Raises
    InputError for a wrong file, MTAnimateError where another run performs the same one.
    """
    path = Path(file).expanduser()
    rows = read_jobs(path, Settings(**settings))
    report = path.with_name(f"{path.name}.report.jsonl")
    with claim(report):
        journal = Journal(report)
        finished = [row for row in rows if journal.finished(row)]
        left = [row for row in rows if row not in finished]
        _check_inputs(path, left, rows)
        options = (checkpoint, device, precision, backend, log, batch_size, allow_code)
        loaded = load_network(*options) if left else None
        done = failed = 0

        def fail(row: Row, why: str) -> None:
            text = " ".join(why.split())
            journal.write(row, {"status": "failed", "error": text})
            log(f"line {row.line}: {text}")

        def hung(row: Row) -> None:
            minutes = f"{attending.LONGEST_SILENCE / 60:g} minutes"
            fail(row, f"no new frame for {minutes}: it was given up; does a disk, a network share or a file hang?")

        def one(piece: Piece[Row]) -> bool:
            assert loaded is not None
            row = piece.item
            try:
                with claim(*row.job.outputs):
                    replace = overwrite or (journal.made(row) and row.job.save_motion is not None)
                    row.job.check(row.settings, replace, file_given(checkpoint))
                    journal.write(row, {"status": "begun", "new": not taken(row.job.out)})
                    given: dict[str, Any] = {"overwrite": replace, "max_pixels": max_pixels}
                    given["gpu"] = loaded.device.type == "cuda"
                    result = run_job(row.job, row.settings, lambda: loaded, piece.progress, _nothing, **given)
            except Stopped:
                return False
            except Exception as error:  # whatever it is, it is this row's: the others go on
                fail(row, str(error) if isinstance(error, MTAnimateError) else f"{type(error).__name__}: {error}")
                return False
            journal.write(row, {"status": "done", **result.as_dict()})
            return True

        count = workers or (2 if loaded and loaded.device.type == "cuda" else 1)
        progress(len(finished), len(rows))
        with closing(attend(one, hung, left, count)) as outcomes:
            for good in outcomes:
                done, failed = done + good, failed + (not good)
                progress(len(finished) + done + failed, len(rows), f"{failed} failed" if failed else "")
        return Report(done, len(finished), failed, str(journal.file))


def _nothing(*said: object) -> None:
    """Rows run side by side: of their own remarks nothing is shown."""


class Journal:
    """`FILE.report.jsonl`: a line where a row is begun, and one of what became of it. Raises MTAnimateError where it
    cannot be written."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lock = Lock()
        last = {entry["key"]: entry for entry in self._read()}
        # What a run that was killed had begun is whole or not there: a new file is there only if it was done.
        self._made = {key for key, entry in last.items() if entry["status"] == "done" or entry.get("new")}

    def _read(self) -> list[dict[str, Any]]:
        if not self.file.exists():
            return []
        content = read_bytes(self.file)
        whole, _, torn = content.rpartition(b"\n")
        try:
            if torn and not whole:  # nothing shows that this is ours
                raise ValueError("no whole line")
            entries: list[dict[str, Any]] = [parse_json(line) for line in whole.splitlines()]
            if not all(isinstance(entry[name], str) for entry in entries for name in ("key", "status")):
                raise ValueError("other keys")
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{self.file} is no report of --jobs ({error}): remove it") from error
        if torn:  # the last line of a run that was killed while it wrote
            os.truncate(self.file, len(content) - len(torn))
        return entries

    def made(self, row: Row) -> bool:
        """Whether this very row, and no other, can have made its `out`, and the motion beside it."""
        return row.key in self._made

    def finished(self, row: Row) -> bool:
        return self.made(row) and row.job.out.exists()

    def write(self, row: Row, outcome: dict[str, Any]) -> None:
        job = {"line": row.line, "key": row.key, "source": str(row.job.source), "out": str(row.job.out)}
        text = json.dumps(job | outcome, ensure_ascii=False) + "\n"
        with self._lock:
            whole = self.file.stat().st_size if self.file.exists() else 0
            try:
                with self.file.open("a", encoding="utf-8") as opened:
                    opened.write(text)
            except OSError as error:
                if self.file.exists():
                    os.truncate(self.file, whole)  # no half of a line
                raise MTAnimateError(f"{self.file} could not be written ({error.strerror})") from error
