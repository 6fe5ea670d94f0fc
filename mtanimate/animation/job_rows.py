"""The rows of a jobs file. They are read as often as they are needed and never held, so that millions are possible."""

import csv
import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from mtanimate.animation.results import codec_for
from mtanimate.animation.settings import Job, Settings
from mtanimate.errors import InputError
from mtanimate.outputs import Places, also_input
from mtanimate.reading import open_regular, read_table
from mtanimate.storage import check_url, is_url

# The columns of files, by `Job`'s names.
_FILES = {"source": "source", "driving": "driving", "out": "out", "motion": "motion", "save_motion": "save-motion"}


@dataclass(frozen=True)
class JobRow:
    """A row of a jobs file.

    Attributes:
        line: Its line number in the file, from 1; in a Parquet file, its number.
        files: The files that it reads and writes, by `Job`'s names: paths, and texts that are URLs.
        settings: How it is animated.
        key: A digest of the row, which changes with anything in it.
    """

    line: int
    files: dict[str, Path | str | None]
    settings: Settings
    key: str

    @property
    def out(self) -> Path | str:
        out = self.files["out"]
        assert out is not None
        return out

    @property
    def inputs(self) -> list[Path | str]:
        return [file for name in ("source", "driving", "motion") if (file := self.files[name]) is not None]

    @property
    def outputs(self) -> list[Path | str]:
        return [file for name in ("out", "save_motion") if (file := self.files[name]) is not None]

    @property
    def has_urls(self) -> bool:
        return any(isinstance(file, str) for file in self.files.values())

    @property
    def job(self) -> Job:
        """Its files, where none is a URL."""
        files: dict[str, Any] = self.files
        return Job(**files)


class JobsFile:
    """A CSV or Parquet file with the columns source, driving (or motion), out, and any of `Settings`.

    Iterating over it reads it anew, and raises InputError for a file that is no such table and for a row that is wrong;
    the message names its line.

    Args:
        file: Paths in it are relative to its folder.
        defaults: Settings for empty cells and missing columns.

    Raises:
        InputError: There is no such file.
    """

    def __init__(self, file: Path, defaults: Settings) -> None:
        if not file.is_file():
            raise InputError(f"--jobs {file}: no such file")
        self.file = file
        self._changed = lru_cache(maxsize=1024)(lambda texts: _settings(defaults, dict(texts)))
        self._default_codec = defaults.codec
        self._named = lru_cache(maxsize=1024)(self._file)
        self._exists = lru_cache(maxsize=1024)(os.path.exists)

    def __iter__(self) -> Iterator[JobRow]:
        rows = _parquet_rows(self.file) if self.file.suffix.lower() == ".parquet" else _csv_rows(self.file)
        line = 0
        for line, texts in rows:
            try:
                row = self._row(line, texts)
            except InputError as error:
                raise self.wrong(line, error) from error
            yield row
        if not line:
            raise InputError(f"--jobs {self.file} is empty: expected the columns source, driving, out and a row a job")

    def wrong(self, line: int, why: object) -> InputError:
        return InputError(f"--jobs {self.file}, line {line}: {why}")

    def _row(self, line: int, texts: dict[str | None, Any]) -> JobRow:
        if None in texts or None in texts.values():
            raise InputError("it has more or fewer fields than the first line")
        given = {str(name).strip(): value.strip() for name, value in texts.items()}
        given["codec"] = codec_for(given.get("out", ""), given.get("codec") or self._default_codec) or ""
        named = {field: self._named(given.pop(name, "")) for field, name in _FILES.items()}
        files = {field: file for field, (file, _) in named.items()}
        settings, shown_settings = self._changed(tuple(given.items()))
        if files["source"] is None or files["out"] is None:
            raise InputError("a job needs a source and an out")
        for name, file in files.items():
            reading = name in ("source", "driving", "motion")
            if isinstance(file, str):
                check_url(file, writing=not reading)
            elif reading and file is not None and not self._exists(file):
                raise InputError(f"{file} does not exist")
        job = ", ".join(f"{field}={shown}" for field, (_, shown) in named.items())
        row = f"(Job({job}), {shown_settings})"
        return JobRow(line, files, settings, hashlib.sha256(row.encode("utf-8", "surrogateescape")).hexdigest()[:16])

    def _file(self, text: str) -> tuple[Path | str | None, str]:
        """What a cell names, and as Python shows that."""
        file: Path | str | None = text or None
        if text and not is_url(text):
            file = self.file.parent / (Path(text).expanduser() if text.startswith("~") else text)
        return file, repr(file)


def _settings(defaults: Settings, texts: dict[str, str]) -> tuple[Settings, str]:
    settings = defaults.changed(texts)
    return settings, repr(settings)


def _csv_rows(file: Path) -> Iterator[tuple[int, dict[str | None, Any]]]:
    try:
        with read_table(file) as table:
            for texts in table:
                yield table.line_num, dict(texts)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"--jobs {file} is not a CSV file ({error})") from error


def _parquet_rows(file: Path) -> Iterator[tuple[int, dict[str | None, Any]]]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise InputError(f"--jobs {file}: Parquet needs pyarrow: pip install 'mtanimate[cluster]'") from error
    line = 0
    try:
        with open_regular(file) as opened:
            for batch in ParquetFile(opened).iter_batches(batch_size=1000):
                for line, values in enumerate(batch.to_pylist(), line + 1):  # noqa: B020 (goes on from the batch before)
                    yield line, {name: "" if value is None else str(value) for name, value in values.items()}
    except (OSError, ArrowException) as error:
        raise InputError(f"--jobs {file} is not a Parquet file ({error})") from error


@dataclass(frozen=True)
class Counts:
    """Of rows: all, and those that are finished."""

    total: int
    finished: int


def check_rows(jobs: JobsFile, finished: Callable[[JobRow], bool]) -> Counts:
    """Read all rows before any is performed, and count those that are finished.

    Raises InputError, with the line, for a row that is wrong, for two that write the same file, and for one that is
    left to do and would write over what another reads.
    """
    total = done_before = 0
    place = Places()
    # A temporary file of SQLite's, so that memory does not grow with the rows.
    with closing(sqlite3.connect("")) as ledger:
        ledger.execute("CREATE TABLE outputs (place BLOB PRIMARY KEY, line INTEGER) WITHOUT ROWID")
        ledger.execute("CREATE TABLE standing (place BLOB PRIMARY KEY, line INTEGER, path BLOB) WITHOUT ROWID")
        for row in jobs:
            done = finished(row)
            total, done_before = total + 1, done_before + done
            for file in row.outputs:
                _note_output(jobs, ledger, row.line, file, _place(place, file))
                if not done and isinstance(file, Path) and file.exists():
                    real = _place(place, Path(os.path.realpath(file)))
                    ledger.execute(
                        "INSERT OR IGNORE INTO standing VALUES (?, ?, ?)", (real, row.line, os.fsencode(file))
                    )
        if ledger.execute("SELECT 1 FROM standing LIMIT 1").fetchone():
            inputs = (file for row in jobs for file in row.inputs if isinstance(file, Path))
            _check_inputs(jobs, ledger, inputs, lambda path: _place(place, Path(os.path.realpath(path))))
    return Counts(total, done_before)


def _place(place: Places, file: Path | str) -> bytes:
    return file.encode("utf-8", "surrogateescape") if isinstance(file, str) else os.fsencode(place(file))


def _note_output(jobs: JobsFile, ledger: sqlite3.Connection, line: int, file: Path | str, place: bytes) -> None:
    try:
        ledger.execute("INSERT INTO outputs VALUES (?, ?)", (place, line))
    except sqlite3.IntegrityError as error:
        (other,) = ledger.execute("SELECT line FROM outputs WHERE place = ?", (place,)).fetchone()
        if other != line:  # of one row, `Job.check` tells
            raise jobs.wrong(line, f"line {other} writes {file} too") from error


def _check_inputs(
    jobs: JobsFile, ledger: sqlite3.Connection, inputs: Iterator[Path], place: Callable[[Path], bytes]
) -> None:
    """Raises InputError where an output that exists is an input, holds one, or lies in one."""
    separator = os.fsencode(os.sep)
    after = bytes([separator[0] + 1])  # sorts behind all that begins with the separator
    placed = lru_cache(maxsize=4096)(place)
    for path in inputs:
        real = placed(path)
        above = [real[:end] for end in range(1, len(real)) if real[end : end + 1] == separator]
        marks = ",".join("?" * (1 + len(above)))
        found = ledger.execute(
            f"SELECT line, path FROM standing WHERE place IN ({marks}) OR (place > ? AND place < ?) LIMIT 1",
            (real, *above, real + separator, real + after),
        ).fetchone()
        if found:
            line, out = found[0], os.fsdecode(found[1])
            raise also_input(f"--jobs {jobs.file}, line {line}:", out)
