"""The results of single clips, in one file per clip, so that an evaluation that was interrupted can go on."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mtanimate.errors import InputError, MTAnimateError
from mtanimate.files import NOT_TEXT, CameMeanwhile, Overwrite, replacing, to_json
from mtanimate.metrics.gestures import Following
from mtanimate.metrics.measures import Metric, Sum
from mtanimate.outputs import refuse_foreign
from mtanimate.reading import read_json

# Names of series in results. ENLARGED is the network's own picture, enlarged to the size of the generated one.
# FIRST_FRAME, the baseline, shows the clip's first frame in place of every frame.
GENERATED, ENLARGED, FIRST_FRAME = "generated", "enlarged", "repeating"


@dataclass(frozen=True)
class ClipResult:
    """Each metric's sum over the frames of one clip, or of one pair.

    Attributes:
        name: The clip's name below the data set, or the pair's.
        identity: The person in the clip.
        digest: The SHA-256 of the files that were measured.
        frames: How many frames were used.
        series: For each series of frames (`GENERATED`, `FIRST_FRAME`...) the sums by metric.
        without_subject: For each series, in how many frames no subject was found.
        seconds: The time that generation and metrics took.
        source: In a pair, the person who is driven.
        gestures: In a pair of faces, how the generated face follows the driver in each gesture.
        side: Of the square frames that were measured, in pixels; None where all are of the network's resolution.
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
    side: int | None = None

    def value(self, series: str, metric: Metric) -> float | None:
        """The metric over this clip's frames; None where no frame counts."""
        return metric.value(self.series[series].get(metric.name, (0.0, 0)))

    def figures(self, metrics: Sequence[Metric]) -> dict[str, Any]:
        """The clip's result in tables: a column per series and metric."""
        line: dict[str, Any] = {"video": self.name, "identity": self.identity, "frames": self.frames}
        if self.side is not None:
            line["side"] = self.side
        for series in self.series:
            line |= {f"{series}.{metric.name}": self.value(series, metric) for metric in metrics}
        for name, each in self.gestures.items():
            line |= {f"gestures.{name}.{key}": value for key, value in each.items()}
        return line | {f"without_subject.{series}": count for series, count in self.without_subject.items()}


class ResultsFolder:
    """The folder of an evaluation: `settings.json`, `videos/NAME.json` for each clip, tables and `result.json`.

    Args:
        out: The folder, which need not exist.
        settings: Everything that the results depend on.

    Raises:
        InputError: The folder holds an evaluation with other settings, or files of the same names by others.
        MTAnimateError: The folder cannot be written.
    """

    def __init__(self, out: Path, settings: dict[str, Any]) -> None:
        self.out = out
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))
        self._file = out / "settings.json"
        if self._file.exists():
            self._check_settings()
        for name, ours in _TABLES.items():
            refuse_foreign("--out", [out / name], ours)
        self._claim()

    def holds(self, name: str) -> bool:
        """Whether this clip was measured, as it was then."""
        return self._result_file(name).exists()

    def get(self, name: str, digest: str) -> ClipResult | None:
        """The result of this clip; None where it is not measured yet, or its file has changed since."""
        file = self._result_file(name)
        if not file.exists():
            return None
        result = _read_clip_result(file, Path(f"{name}.json"))
        return result if result.digest == digest else None

    def put(self, result: ClipResult) -> None:
        """Write the result of a clip. Raises InputError where the folder now belongs to another evaluation."""
        self._claim()
        write_json(self._result_file(result.name), asdict(result), _is_clip_result)

    def write_tables(self, results: Sequence[ClipResult], metrics: Sequence[Metric]) -> None:
        """Write `videos.csv` and `videos.jsonl`, which have one line per clip."""
        lines = [result.figures(metrics) for result in results]
        self._write_table("videos.jsonl", "".join(f"{to_json(line)}\n" for line in lines))
        table = io.StringIO()
        writer = csv.DictWriter(table, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
        self._write_table("videos.csv", table.getvalue())

    def write_result(self, result: dict[str, Any]) -> None:
        """Write `result.json`, which is what `--json` prints."""
        write_json(self.out / "result.json", result, _TABLES["result.json"])

    def _write_table(self, name: str, text: str) -> None:
        _write(self.out / name, text, _TABLES[name])

    def _claim(self) -> None:
        """Write the settings into a new folder; check them in one that has some."""
        if not self._file.exists():
            with suppress(CameMeanwhile):  # another run was first: it may measure another part of the same evaluation
                write_json(self._file, self.settings, overwrite=False)
        self._check_settings()

    def _check_settings(self) -> None:
        found = _read(self._file)
        for name in {**self.settings, **found}:
            if found.get(name) != self.settings.get(name):
                raise InputError(
                    f"--out {self.out} holds an evaluation where {name} is {found.get(name)}, not "
                    f"{self.settings.get(name)}: choose another folder, or remove it"
                )

    def _result_file(self, name: str) -> Path:
        return self.out / "videos" / f"{name}.json"


def read_result(folder: Path) -> dict[str, Any]:
    """The content of `result.json`. Raises InputError where the evaluation is not finished."""
    if not (folder / "result.json").is_file():
        raise InputError(f"{folder} holds no finished evaluation: run eval with --out {folder} to its end")
    return _read(folder / "result.json")


def read_clip_results(folder: Path) -> dict[str, ClipResult]:
    """The results of all clips of an evaluation, by name."""
    videos = folder / "videos"
    results = (_read_clip_result(file, file.relative_to(videos)) for file in sorted(videos.rglob("[!.]*.json")))
    return {result.name: result for result in results}


def write_json(file: Path, values: dict[str, Any], overwrite: Overwrite) -> None:
    """Write a JSON file whole or not at all.

    Raises MTAnimateError where it cannot be written, or would replace a file and `overwrite` does not allow it.
    """
    _write(file, to_json(values, indent=1) + "\n", overwrite)


def json_with(*keys: str) -> Callable[[Path], bool]:
    """A function that tells whether a file holds a JSON object with these keys."""

    def ours(file: Path) -> bool:
        try:
            return set(keys) <= _read(file).keys()
        except InputError:
            return False

    return ours


def _begins_with(*columns: str) -> Callable[[Path], bool]:
    """A function that tells whether the first line of a CSV or JSON lines file begins with these columns."""

    def ours(file: Path) -> bool:
        try:
            with file.open(encoding="utf-8") as opened:
                first = opened.readline()
            cells = list(json.loads(first)) if first.startswith("{") else first.rstrip("\n").split(",")
        except (OSError, ValueError):
            return False
        return cells[: len(columns)] == list(columns)

    return ours


def _is_clip_result(file: Path) -> bool:
    try:
        _clip_result(file)
    except InputError:
        return False
    return True


# The files that a repeated evaluation replaces, and how our own are told from those of others.
_TABLES = {
    "result.json": json_with("checkpoint", "kind", "settings", "definitions"),
    "videos.jsonl": _begins_with("video", "identity", "frames"),
    "videos.csv": _begins_with("video", "identity", "frames"),
}


def _clip_result(file: Path) -> ClipResult:
    try:
        result = ClipResult(**_read(file))
        _check(result)
    except (AttributeError, TypeError, ValueError) as error:
        raise _broken(file, error) from error
    return result


def _read_clip_result(file: Path, place: Path) -> ClipResult:
    """place: the file's path below the folder of results, which is its clip's name."""
    result = _clip_result(file)
    if Path(f"{result.name}.json") != place:  # the name leads to its strip
        raise _broken(file, f"it is the result of {result.name}")
    return result


def _check(result: ClipResult) -> None:
    """Raises AttributeError, TypeError or ValueError where a value has the wrong type."""
    texts = (result.name, result.identity, result.digest, result.source)
    sums = [total for metrics in result.series.values() for total in metrics.values()]
    gestures = [value for each in result.gestures.values() for value in each.values()]
    counts = [result.frames, *result.without_subject.values(), *(count for _, count in sums)]
    counts += [] if result.side is None else [result.side]
    numbers = [*result.seconds.values(), *(summed for summed, _ in sums), *(v for v in gestures if v is not None)]
    if not all(isinstance(text, str) for text in texts) or not all(type(count) is int for count in counts):
        raise TypeError("a value has the wrong type")
    if not all(isinstance(number, (int, float)) for number in numbers):
        raise TypeError("a value is not a number")


def _read(file: Path) -> dict[str, Any]:
    try:
        values = read_json(file)
    except (OSError, ValueError) as error:
        raise _broken(file, error) from error
    if not isinstance(values, dict):
        raise _broken(file, "not a JSON object")
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
