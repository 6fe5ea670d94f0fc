"""Tables that people write, or that spreadsheets export."""

import csv
from typing import TextIO


def read_table(file: TextIO) -> "csv.DictReader[str]":
    """The rows of a CSV file by the names in its first line; commas, semicolons or tabs, whichever that line has most
    of, are between the cells."""
    first = file.readline()
    file.seek(0)
    return csv.DictReader(file, delimiter=max(",;\t", key=first.count))
