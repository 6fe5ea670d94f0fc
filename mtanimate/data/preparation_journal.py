"""What `data prepare` has planned and made so far, so that a run that was ended at any moment can go on."""

import csv
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from threading import Lock
from typing import Any

from mtanimate.errors import MTAnimateError
from mtanimate.faces.detection import Square
from mtanimate.files import JsonLines, replacing, taken
from mtanimate.outputs import refuse_foreign
from mtanimate.reading import parse_fraction

_COLUMNS = ["file", "identity", "partition", "source", "first_frame", "end_frame"]
_COLUMNS += ["x", "y", "side", "size", "fps", "frames"]


@dataclass(frozen=True)
class Cut:
    """A clip to cut: frames first to end - 1, and a square, of a raw video.

    file: the clip, below the output folder, "train/ann__00.mp4". source: the raw video, below the raw folder.
    size: the clip's side in pixels. fps: frames a second, of the raw video and of the clip.
    """

    file: str
    identity: str
    source: str
    first: int
    end: int
    square: Square
    size: int
    fps: Fraction

    @property
    def frames(self) -> int:
        return self.end - self.first

    def as_row(self) -> list[str | int]:
        """In the order of the manifest's columns."""
        square = self.square
        numbers = (self.first, self.end, square.x, square.y, square.side, self.size)
        return [
            self.file,
            self.identity,
            self.file.partition("/")[0],
            self.source,
            *numbers,
            str(self.fps),
            self.frames,
        ]

    @classmethod
    def from_row(cls, row: list[Any]) -> "Cut":
        file, identity, _, source, first, end, x, y, side, size, fps, _ = row
        if not isinstance(file, str):
            raise ValueError("a clip's name is no text")
        return cls(file, identity, source, first, end, Square(x, y, side), size, parse_fraction(fps))


@dataclass(frozen=True)
class CutPlan:
    """The clips to cut from one raw video of that many bytes.

    tracked: Whether by its face, not by a CSV. skipped: The reason for each piece that does not become a clip.
    """

    source: str
    source_bytes: int
    tracked: bool
    cuts: list[Cut]
    skipped: list[str]


class PreparationJournal:
    """`OUT/journal.jsonl`: a line for each raw video, added before its first clip is made. It is thread-safe.

    A clip is finished when its file exists and was last planned as the same cut of the same video.
    Raises InputError for a file that is no journal, and for a manifest that none belongs to.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self._lines, self._manifest = JsonLines(out / "journal.jsonl", "data prepare"), out / "manifest.csv"
        self._tracked: dict[str, CutPlan] = {}
        self._cuts: dict[str, tuple[Cut, int]] = {}
        self._lock = Lock()
        for plan in self._read():
            self._remember(plan)

    def tracked(self, source: str, source_bytes: int) -> CutPlan | None:
        """What following the face through this raw video gave, unless the file has changed since."""
        plan = self._tracked.get(source)
        return plan if plan and plan.source_bytes == source_bytes else None

    def left(self, plan: CutPlan) -> list[Cut]:
        """The clips of a plan that are not finished."""
        return [cut for cut in plan.cuts if not self._finished(cut, plan.source_bytes)]

    def _finished(self, cut: Cut, source_bytes: int) -> bool:
        return self._cuts.get(cut.file) == (cut, source_bytes) and (self.out / cut.file).is_file()

    def add(self, plan: CutPlan) -> None:
        """Writes a plan down, unless it is known and done. Clips of its names that were cut otherwise go first.

        Raises InputError where a file that was not made here has the name of a clip, MTAnimateError when it cannot be
        written (a full disk).
        """
        left = self.left(plan)
        refuse_foreign("--out", [self.out / cut.file for cut in left if cut.file not in self._cuts])
        if not left and (not plan.tracked or self._tracked.get(plan.source) == plan):
            return
        try:
            for cut in left:
                (self.out / cut.file).unlink(missing_ok=True)
            rows = [cut.as_row() for cut in plan.cuts]
            with self._lock:
                self._lines.append([plan.source, plan.source_bytes, plan.tracked, rows, plan.skipped])
                self._remember(plan)
        except OSError as error:
            raise _unwritable(self._lines.file, error) from error

    def write_manifest(self) -> Path:
        """`OUT/manifest.csv`: every finished clip, sorted by name; whole or not at all."""
        path = self._manifest
        rows = [
            cut.as_row() for _, (cut, source_bytes) in sorted(self._cuts.items()) if self._finished(cut, source_bytes)
        ]
        try:
            with replacing(path, _is_manifest) as partial, partial.open("w", encoding="utf-8", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows([_COLUMNS, *rows])
        except OSError as error:
            raise _unwritable(path, error) from error
        return path

    def _remember(self, plan: CutPlan) -> None:
        if plan.tracked:
            self._tracked[plan.source] = plan
        self._cuts |= {cut.file: (cut, plan.source_bytes) for cut in plan.cuts}

    def _read(self) -> list[CutPlan]:
        if not taken(self._lines.file):
            refuse_foreign("--out", [self._manifest])
            return []
        return self._lines.read(_plan)  # a video whose line is unfinished is planned anew


def _plan(line: Any) -> CutPlan:
    source, source_bytes, tracked, rows, skipped = line
    return CutPlan(source, source_bytes, tracked, [Cut.from_row(row) for row in rows], skipped)


def _is_manifest(file: Path) -> bool:
    try:
        with file.open(encoding="utf-8", newline="") as opened:
            return next(csv.reader(opened), None) == _COLUMNS
    except (OSError, UnicodeDecodeError, csv.Error):
        return False


def _unwritable(path: Path, error: OSError) -> MTAnimateError:
    return MTAnimateError(f"{path} could not be written ({error.strerror}): free some space or choose another --out")
