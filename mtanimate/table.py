"""Tables that people write, or that spreadsheets export."""

import csv
import io
from pathlib import Path

from mtanimate.reading import read_text


def read_table(path: Path) -> "csv.DictReader[str]":
    """The rows of a CSV file by the names in its first line; commas, semicolons or tabs, whichever that line has most
    of, are between the cells. Raises as `read_text`, and csv.Error."""
    file = io.StringIO(read_text(path, encoding="utf-8-sig"), newline="")
    first = file.readline()
    file.seek(0)
    return csv.DictReader(file, delimiter=max(",;\t", key=first.count))
