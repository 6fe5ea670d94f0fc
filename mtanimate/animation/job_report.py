"""The report of a jobs file: what became of each row, so that the same command goes on where it was ended."""

import os
import sqlite3
from pathlib import Path
from typing import Any

from mtanimate.animation.job_rows import JobRow
from mtanimate.errors import MTAnimateError
from mtanimate.files import JsonLines
from mtanimate.storage import shown


class JobReport:
    """`FILE.report.jsonl`: one line when a row begins, and one with its outcome. Only its maker's thread may use it.

    Raises InputError for a file that `animate --jobs` did not write.
    """

    def __init__(self, file: Path) -> None:
        self._lines = JsonLines(file, "animate --jobs")
        # What the last line of each row says, in a temporary file of SQLite's, since there may be millions.
        self._last = sqlite3.connect("")
        self._last.execute("CREATE TABLE rows (key TEXT PRIMARY KEY, done, new) WITHOUT ROWID")
        self._last.execute("CREATE TABLE remaining (key TEXT PRIMARY KEY) WITHOUT ROWID")
        if file.exists():
            self._last.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?, ?)", self._lines.entries(_entry))

    def made(self, row: JobRow) -> bool:
        """Whether exactly this row made the outputs at its names, if there are any.

        Outputs appear whole or not at all: a new file that a killed run began is there only if it was finished.
        """
        return any(self._of(row))

    def finished(self, row: JobRow) -> bool:
        """Whether exactly this row made its `out`, which still exists; at a URL, nobody looks whether it does.

        One that was finished when its run was killed, before the report told it, is told now.
        """
        done, new = self._of(row)
        finished = done if isinstance(row.out, str) else (done or new) and os.path.exists(row.out)
        if not finished:
            self._last.execute("INSERT OR IGNORE INTO remaining VALUES (?)", (row.key,))
        elif not done:
            self.write(row, {"status": "done"})
        return finished

    def was_finished(self, row: JobRow) -> bool:
        """What `finished` said, whatever has happened since."""
        return self._last.execute("SELECT 1 FROM remaining WHERE key = ?", (row.key,)).fetchone() is None

    def _of(self, row: JobRow) -> tuple[bool, bool]:
        """Whether it was done, and whether it began a new file."""
        done, new = self._last.execute("SELECT done, new FROM rows WHERE key = ?", (row.key,)).fetchone() or (0, 0)
        return bool(done), bool(new)

    def write(self, row: JobRow, outcome: dict[str, Any]) -> None:
        """Add a line about a row. Raises MTAnimateError where it cannot be written."""
        files = {name: shown(str(row.files[name])) for name in ("source", "out")}
        try:
            self._lines.append({"line": row.line, "key": row.key} | files | outcome)
        except OSError as error:
            raise MTAnimateError(f"{self._lines.file} could not be written ({error.strerror})") from error


def _entry(line: Any) -> tuple[str, bool, bool]:
    if not all(isinstance(line[name], str) for name in ("key", "status")):
        raise ValueError("a key or a status is not text")
    return line["key"], line["status"] == "done", bool(line.get("new"))
