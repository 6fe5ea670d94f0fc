"""Many animations by one network: a CSV file with a row for each."""

import csv
import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any

from mtanimate.animation.animate import Job, perform
from mtanimate.animation.cast import Cast
from mtanimate.animation.output import codec_for
from mtanimate.animation.settings import Settings
from mtanimate.devices import Precision
from mtanimate.errors import InputError, MTAnimateError

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


def read_jobs(file: Path) -> list[Row]:
    """The rows of a CSV file with the columns source, driving (or motion), out, and any of `Settings`.

    Paths are relative to the file's folder. Raises InputError, naming the line, for what can be seen to be wrong.
    """
    if not file.is_file():
        raise InputError(f"--jobs {file}: no such file")
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            lines = [(reader.line_num, row) for reader in [csv.DictReader(opened)] for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"--jobs {file} is not a CSV file ({error})") from error
    if not lines:
        raise InputError(f"--jobs {file} is empty: expected a first line 'source,driving,out' and a row a job")
    rows: list[Row] = []
    for line, texts in lines:
        try:
            rows.append(_row(line, texts, file.parent))
        except InputError as error:
            raise InputError(f"--jobs {file}, line {line}: {error}") from error
    names: dict[Path, int] = {}
    for row in rows:
        if row.job.out in names:
            raise InputError(f"--jobs {file}, line {row.line}: line {names[row.job.out]} writes {row.job.out} too")
        names[row.job.out] = row.line
    return rows


def _row(line: int, texts: dict[str | None, Any], folder: Path) -> Row:
    if None in texts or None in texts.values():
        raise InputError("it has more or fewer fields than the first line")
    given = {str(name).strip(): value.strip() for name, value in texts.items()}
    given["codec"] = codec_for(given.get("out", ""), given.get("codec") or None) or ""
    paths = {name: folder / Path(given.pop(name)).expanduser() if given.get(name) else None for name in FILES}
    for name in FILES:
        given.pop(name, None)
    source, out = paths["source"], paths["out"]
    if source is None or out is None:
        raise InputError("a job needs a source and an out")
    job = Job(source, paths["driving"], out, paths["motion"], paths["save-motion"])
    settings = Settings.from_texts(given)
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
    overwrite: bool = False,
    workers: int | None = None,
    progress: Callable[..., None] = lambda done, total, note="": None,
    say: Callable[[str], None] = lambda line: None,
) -> Report:
    """Perform every row of a jobs file that is not finished yet; a row that fails does not stop the others.

    A row is finished when its `out` is there and `FILE.report.jsonl`, which gets a line for each, says that this very
    row made it. workers: rows at a time; None: two on a GPU, one on a CPU, which is busy with one. progress counts
    rows. Raises InputError for a wrong file.
    """
    path = Path(file).expanduser()
    rows = read_jobs(path)
    journal = Journal(path.with_name(f"{path.name}.report.jsonl"))
    finished = [row for row in rows if journal.finished(row)]
    left = [row for row in rows if row not in finished]
    cast = Cast(checkpoint, device, precision, backend, say, batch_size) if left else None
    done = failed = 0

    def one(row: Row) -> bool:
        assert cast is not None
        try:
            replace = overwrite or journal.made(row)
            row.job.check(row.settings, replace)
            options = {"gpu": cast.device.type == "cuda", "overwrite": replace}
            result = perform(row.job, row.settings, lambda: cast, lambda *counts: None, lambda line: None, **options)
        except Exception as error:  # whatever it is, it is this row's: the others go on
            text = str(error) if isinstance(error, MTAnimateError) else f"{type(error).__name__}: {error}"
            text = " ".join(text.split())
            journal.write(row, {"status": "failed", "error": text})
            say(f"line {row.line}: {text}")
            return False
        journal.write(row, {"status": "done", **result.as_dict()})
        return True

    count = workers or (2 if cast and cast.device.type == "cuda" else 1)
    progress(len(finished), len(rows))
    for good in _each(one, left, count):
        done, failed = done + good, failed + (not good)
        progress(len(finished) + done + failed, len(rows), f"{failed} failed" if failed else "")
    return Report(done, len(finished), failed, str(journal.file))


def _each(work: Callable[[Row], bool], rows: list[Row], workers: int) -> Iterator[bool]:
    """The outcomes as they come; no more rows are begun than there are workers."""
    waiting = iter(rows)
    with ThreadPoolExecutor(workers) as pool:
        running: set[Future[bool]] = {pool.submit(work, row) for row in islice(waiting, workers)}
        while running:
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            for future in ended:
                yield future.result()
                running |= {pool.submit(work, row) for row in islice(waiting, 1)}


class Journal:
    """`FILE.report.jsonl`: a line for each attempt at a row. Raises MTAnimateError where it cannot be written."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lock = Lock()
        self._last: dict[str, str] = {}
        if file.exists():
            for line in file.read_text("utf-8").splitlines():
                try:
                    entry = json.loads(line)
                    self._last[entry["key"]] = entry["status"]
                except (ValueError, KeyError, TypeError):
                    continue  # the line that a killed run was writing
        self._made = {key for key, status in self._last.items() if status == "done"}

    def made(self, row: Row) -> bool:
        """Whether this very row was done once."""
        return row.key in self._made

    def finished(self, row: Row) -> bool:
        return self.made(row) and row.job.out.exists()

    def write(self, row: Row, outcome: dict[str, Any]) -> None:
        job = {"line": row.line, "key": row.key, "source": str(row.job.source), "out": str(row.job.out)}
        text = json.dumps(job | outcome, ensure_ascii=False) + "\n"
        try:
            with self._lock, self.file.open("a", encoding="utf-8") as opened:
                opened.write(text)
        except OSError as error:
            raise MTAnimateError(f"{self.file} could not be written ({error.strerror})") from error
