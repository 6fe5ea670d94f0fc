"""What was measured of each clip, a file a clip, so that an evaluation that was ended at any moment goes on."""

import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from mtanimate.errors import InputError, MTAnimateError
from mtanimate.files import NOT_TEXT, CameMeanwhile, Overwrite, replacing, to_json
from mtanimate.metrics.gestures import Following
from mtanimate.metrics.measures import Metric, Sum
from mtanimate.outputs import refuse_foreign
from mtanimate.reading import read_json
from mtanimate.signals import child_environment


@dataclass(frozen=True)
class ClipResult:
    """Sums over one clip's frames.

    name: the clip, below the data set. identity: whose it is. digest: of the files that it was measured on.
    series: for what was measured (`generated`, `repeating`...) each metric's sum over its frames.
    without_subject: in how many frames of which series no subject was found. seconds: of generation, of metrics.
    source: of a pair, whose picture is driven. gestures: how the one face follows the other, where that was measured.
    """

    name: str
    identity: str
    digest: str
    frames: int
    series: dict[str, dict[str, Sum]]
    without_subject: dict[str, int]
    seconds: dict[str, float]
    source: str = ""
    gestures: dict[str, Following] = field(default_factory=dict)

    def value(self, series: str, metric: Metric) -> float | None:
        """This clip's figure; None where nothing could be counted."""
        return metric.value(self.series[series].get(metric.name, (0.0, 0)))

    def figures(self, metrics: Sequence[Metric]) -> dict[str, Any]:
        """For a table: a line a clip, a column a series and metric."""
        line: dict[str, Any] = {"video": self.name, "identity": self.identity, "frames": self.frames}
        for series in self.series:
            line |= {f"{series}.{metric.name}": self.value(series, metric) for metric in metrics}
        for name, each in self.gestures.items():
            line |= {f"gestures.{name}.{key}": value for key, value in each.items()}
        return line | {f"without_subject.{series}": count for series, count in self.without_subject.items()}


class ResultsFolder:
    """The folder of an evaluation: `settings.json`, and `videos/NAME.json` for each clip.

    settings: everything that figures depend on. Raises InputError where the folder holds an evaluation with others, or
    other files of our names; MTAnimateError where it cannot be written.
    """

    def __init__(self, out: Path, settings: dict[str, Any]) -> None:
        self.out = out
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))
        for name, ours in _TABLES.items():
            refuse_foreign("--out", [out / name], ours)
        self._claim()

    def _claim(self) -> None:
        """The folder is this evaluation's: it says so, or it is empty and will."""
        file = self.out / "settings.json"
        if not file.exists():
            with suppress(CameMeanwhile):  # another evaluation came first: it may be a part of this one
                write_json(file, self.settings, overwrite=False)
        there = _read(file)
        for name in {**self.settings, **there}:
            if there.get(name) != self.settings.get(name):
                raise InputError(
                    f"--out {self.out} holds an evaluation where {name} is {there.get(name)}, not "
                    f"{self.settings.get(name)}: choose another folder, or remove it"
                )

    def get(self, name: str, digest: str) -> ClipResult | None:
        """The row of this clip, unless it is still to be measured, or its file has changed since."""
        file = self._file(name)
        if not file.exists():
            return None
        row = _read_row(file, Path(f"{name}.json"))
        return row if row.digest == digest else None

    def put(self, row: ClipResult) -> None:
        """Raises InputError where the folder has meanwhile become another evaluation's."""
        self._claim()
        write_json(self._file(row.name), asdict(row), _is_row)

    def write_tables(self, rows: Sequence[ClipResult], metrics: Sequence[Metric]) -> None:
        """`videos.csv` and `videos.jsonl`, a line a clip."""
        lines = [row.figures(metrics) for row in rows]
        self._write_table("videos.jsonl", "".join(f"{to_json(line)}\n" for line in lines))
        table = io.StringIO()
        writer = csv.DictWriter(table, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
        self._write_table("videos.csv", table.getvalue())

    def write_result(self, result: dict[str, Any]) -> None:
        """`result.json`, as `--json` prints it."""
        write_json(self.out / "result.json", result, _TABLES["result.json"])

    def _write_table(self, name: str, text: str) -> None:
        _write(self.out / name, text, _TABLES[name])

    def _file(self, name: str) -> Path:
        return self.out / "videos" / f"{name}.json"


def read_result(folder: Path) -> dict[str, Any]:
    """The result of a finished evaluation. Raises InputError where there is none."""
    if not (folder / "result.json").is_file():
        raise InputError(f"{folder} holds no finished evaluation: run eval with --out {folder} to its end")
    return _read(folder / "result.json")


def read_rows(folder: Path) -> dict[str, ClipResult]:
    """All rows of an evaluation, by name."""
    videos = folder / "videos"
    rows = (_read_row(file, file.relative_to(videos)) for file in sorted(videos.rglob("[!.]*.json")))
    return {row.name: row for row in rows}


def write_json(file: Path, values: dict[str, Any], overwrite: Overwrite) -> None:
    """Whole or not at all. Raises MTAnimateError where it cannot be written, or is there, unless `overwrite`."""
    _write(file, to_json(values, indent=1) + "\n", overwrite)


def json_with(*keys: str) -> Callable[[Path], bool]:
    """What says whether a file holds a JSON object with these keys."""

    def ours(file: Path) -> bool:
        try:
            return set(keys) <= _read(file).keys()
        except InputError:
            return False

    return ours


def _begins_with(*columns: str) -> Callable[[Path], bool]:
    """What says whether a table's first line, of CSV or of JSON, has these columns first."""

    def ours(file: Path) -> bool:
        try:
            with file.open(encoding="utf-8") as opened:
                first = opened.readline()
            cells = list(json.loads(first)) if first.startswith("{") else first.rstrip("\n").split(",")
        except (OSError, ValueError):
            return False
        return cells[: len(columns)] == list(columns)

    return ours


def _is_row(file: Path) -> bool:
    try:
        _row(file)
    except InputError:
        return False
    return True


# What an evaluation writes over when it is finished once more, and what tells them from others' files.
_TABLES = {
    "result.json": json_with("checkpoint", "kind", "settings", "definitions"),
    "videos.jsonl": _begins_with("video", "identity", "frames"),
    "videos.csv": _begins_with("video", "identity", "frames"),
}


def _row(file: Path) -> ClipResult:
    try:
        row = ClipResult(**_read(file))
        _check(row)
    except (AttributeError, TypeError, ValueError) as error:
        raise _broken(file, error) from error
    return row


def _read_row(file: Path, place: Path) -> ClipResult:
    """place: of the file, below the folder of rows: the name of its clip."""
    row = _row(file)
    if Path(f"{row.name}.json") != place:  # pictures are looked for by the name
        raise _broken(file, f"it says that it is of {row.name}")
    return row


def _check(row: ClipResult) -> None:
    """Raises AttributeError, TypeError or ValueError where a value is not of its kind."""
    texts = (row.name, row.identity, row.digest, row.source)
    sums = [total for metrics in row.series.values() for total in metrics.values()]
    gestures = [value for each in row.gestures.values() for value in each.values()]
    counts = [row.frames, *row.without_subject.values(), *(count for _, count in sums)]
    numbers = [*row.seconds.values(), *(summed for summed, _ in sums), *(v for v in gestures if v is not None)]
    if not all(isinstance(text, str) for text in texts) or not all(type(count) is int for count in counts):
        raise TypeError("a value is of another kind")
    if not all(isinstance(number, (int, float)) for number in numbers):
        raise TypeError("a number is none")


def _read(file: Path) -> dict[str, Any]:
    try:
        values = read_json(file)
    except (OSError, ValueError) as error:
        raise _broken(file, error) from error
    if not isinstance(values, dict):
        raise _broken(file, "no JSON object")
    return values


def _broken(file: Path, why: object) -> InputError:
    return InputError(f"{file} is not from 'eval' ({why}): remove it or choose another --out")


def _write(file: Path, text: str, overwrite: Overwrite) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file, overwrite) as partial:
            partial.write_text(text, "utf-8", NOT_TEXT)
    except OSError as error:
        message = f"{file} could not be written ({error.strerror}): free some space or choose another --out"
        raise MTAnimateError(message) from error


T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count`, counted from 1."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """`2/4`. Raises InputError for anything else."""
        numbers = re.fullmatch(r"(\d+)/(\d+)", text)
        if not numbers or not 1 <= int(numbers[1]) <= int(numbers[2]):
            raise InputError(f"--shard {text}: expected I/N with I from 1 to N, as 2/4")
        return cls(int(numbers[1]), int(numbers[2]))

    def of(self, items: Sequence[T]) -> list[T]:
        """This part's items: every `count`-th, so that parts of a sorted data set take alike long."""
        return list(items[self.index - 1 :: self.count])


def run_shards(devices: Sequence[str], arguments: Sequence[str]) -> None:
    """Run `mtanimate ARGUMENTS` once for each device, with its part of the clips, and wait for all of them.

    The first shows its progress, all say what goes wrong. Raises MTAnimateError where one of them failed.
    """
    processes = []
    for index, device in enumerate(devices, 1):
        own = ["--shard", f"{index}/{len(devices)}", "--device", device, *["--quiet"] * (index > 1)]
        command = [sys.executable, "-m", "mtanimate", *arguments, *own]
        processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, env=child_environment()))
    try:
        codes = [process.wait() for process in processes]
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
    killed = [-code for code in codes if code < 0]
    if killed:
        raise MTAnimateError(
            f"a part of the evaluation was ended by signal {killed[0]}: is memory short? What is measured is kept, "
            " and the same command goes on"
        )
    if any(codes):
        raise MTAnimateError("a part of the evaluation failed; what is measured is kept, and the same command goes on")
