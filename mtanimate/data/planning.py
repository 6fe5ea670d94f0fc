"""Plans which clips are cut from raw videos: by a CSV of a published data set, or by the face in each video."""

import csv
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path, PurePosixPath

from mtanimate.data.clips import folders_below, identity_of, is_video, left_out
from mtanimate.data.preparation_journal import Cut, CutPlan
from mtanimate.data.raw_videos import SHORTEST_FRAMES, FaceSample, find_pieces, sample_faces
from mtanimate.errors import InputError
from mtanimate.faces.detection import Box, Square, square_around
from mtanimate.reading import check_readable, read_table
from mtanimate.video import VideoReader
from mtanimate.video.footage import VIDEO_SUFFIXES

_COLUMNS = ("video_id", "start", "end", "bbox", "fps", "width", "height")


@dataclass(frozen=True)
class ListedClip:
    """A clip that a CSV lists. video: The raw file's name without its ending. name: The clip's.

    start, end: frames at `fps` frames a second, end excluded. box: in pixels of a `width` x `height` picture.
    partition: "train" or "test".
    """

    video: str
    name: str
    start: int
    end: int
    box: Box
    fps: Fraction
    width: int
    height: int
    partition: str

    def span(self, fps: Fraction) -> tuple[int, int]:
        """The first frame and the end (excluded) in a video of `fps` frames a second: the same time."""
        # Rates are written with two decimals: 29.97 is 30000/1001, and no frame is to be lost by that.
        if abs(fps - self.fps) < Fraction(1, 100):
            return self.start, self.end
        first, end = (math.ceil(number * fps / self.fps - Fraction(1, 10)) for number in (self.start, self.end))
        return first, max(end, first)

    def square(self, width: int, height: int) -> Square | None:
        """The square of a `width` x `height` picture; None where the box lies outside of it.

        The box's part within the picture, its shorter side enlarged about the same centre.
        """
        across, down = width / self.width, height / self.height
        box = Box(self.box.left * across, self.box.top * down, self.box.right * across, self.box.bottom * down)
        inside = box.common(Box(0, 0, width, height))
        if not inside.area:
            return None
        return square_around(*inside.centre, max(inside.width, inside.height), width, height)


def read_metadata(path: Path) -> list[ListedClip]:
    """The clips that a CSV lists, in its order. Columns: video_id, start, end, bbox, fps, width, height.

    `partition` may be missing (train), `person_id` names the person; others are not looked at.
    Raises InputError, with the line, for a missing column or a cell that cannot be read.
    """
    check_readable(path, "CSV file")
    try:
        with read_table(path) as table:
            rows = list(_rows(path, table))
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a CSV file ({error}): give one with {','.join(_COLUMNS)}") from error
    if not rows:
        raise InputError(f"{path} lists no clips: there is nothing below its first line")
    return rows


def _rows(path: Path, table: "csv.DictReader[str]") -> Iterator[ListedClip]:
    missing = [name for name in _COLUMNS if name not in (table.fieldnames or ())]
    if missing:
        raise InputError(f"{path} has no column {', '.join(missing)}: its first line must name {','.join(_COLUMNS)}")
    for cells in table:
        try:
            yield _row({name: (cell or "").strip() for name, cell in cells.items() if isinstance(name, str)})
        except ValueError as error:
            raise InputError(f"{path}, line {table.line_num}: {error}: correct or remove the line") from error


def _row(cells: dict[str, str]) -> ListedClip:
    """Raises ValueError that says what is wrong with which cell."""
    video, *rest = cells["video_id"].split("#")
    if not video:
        raise ValueError("video_id is empty")
    start, end, width, height = (_number(cells, name) for name in ("start", "end", "width", "height"))
    if end <= start:
        raise ValueError(f"end {end} does not come after start {start}")
    if not width or not height:
        raise ValueError(f"width x height is {width} x {height}")
    partition = cells.get("partition") or "train"
    if partition not in ("train", "test"):
        raise ValueError(f"partition '{partition}' is neither train nor test")
    # person#video#start#end: a video_id may be video#person, and later lists have the person in a column
    owner = [cells["person_id"]] if cells.get("person_id") else []
    name = "#".join([*owner, *reversed(rest), video, f"{start:06}", f"{end:06}"])
    return ListedClip(video, name, start, end, _box(cells["bbox"]), _rate(cells["fps"]), width, height, partition)


def _number(cells: dict[str, str], name: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", cells[name]):
        raise ValueError(f"{name} '{cells[name]}' is not a whole number")
    return int(cells[name])


def _rate(text: str) -> Fraction:
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]*)?", text) or not Fraction(text):
        raise ValueError(f"fps '{text}' is not a rate above 0")
    return Fraction(text)


def _box(text: str) -> Box:
    sides = re.fullmatch("([0-9]{1,6})-([0-9]{1,6})-([0-9]{1,6})-([0-9]{1,6})", text)
    box = Box(*map(int, sides.groups())) if sides else None
    if box is None or box.width <= 0 or box.height <= 0:
        raise ValueError(f"bbox '{text}' is not left-top-right-bottom in pixels")
    return box


def raw_videos(raw: Path, out: Path, log: Callable[[str], None] = lambda line: None) -> list[str]:
    """The videos below a folder, as paths below it with `/`, sorted; hidden ones and those below `out` are left out.

    log: gets a line about files that are no videos.
    Raises InputError where there is no such folder, no video in it, or `out` would mix with it.
    """
    if not raw.is_dir():
        raise InputError(f"{raw} is not a folder: give the folder of the raw videos")
    if raw.resolve().is_relative_to(out.resolve()):
        raise InputError(f"--out {out} holds the raw videos: choose a folder of its own")
    found = [file for _, _, files in folders_below(raw) for file in files]
    found = sorted(file for file in found if not file.resolve().is_relative_to(out.resolve()))
    sources = [file.relative_to(raw).as_posix() for file in found if is_video(file)]
    for line in left_out(raw, [file for file in found if not is_video(file)]):
        log(line)
    if not sources:
        raise InputError(f"{raw} has no videos in it (looked for {' '.join(sorted(VIDEO_SUFFIXES))})")
    return sources


def safe_name(text: str) -> str:
    """A name for a file on any system: letters, digits and `_.-#` stay, all else becomes `-`; never hidden."""
    return re.sub(r"[^\w.#-]+", "-", text).lstrip(".") or "-"


def clip_names(sources: Sequence[str]) -> dict[str, str]:
    """What the clips' names of each raw video begin with: its own name, after those of its folders and `#`.

    So a folder for each person makes clips of that person. Videos that differ only in their endings get these
    too. Raises InputError where two names are the same all the same.
    """
    plain = {}
    for source in sources:
        path = PurePosixPath(source)
        plain[source] = "#".join(safe_name(part.replace("#", "-")) for part in (*path.parts[:-1], path.stem))
    often = Counter(name.casefold() for name in plain.values())
    names: dict[str, str] = {}
    taken: dict[str, str] = {}
    for source, name in plain.items():
        unique = name if often[name.casefold()] == 1 else f"{name}-{PurePosixPath(source).suffix[1:]}"
        other = taken.setdefault(unique.casefold(), source)
        if other != source:
            raise InputError(f"{other} and {source} would give clips of the same name: rename one of them")
        names[source] = unique
    return names


def plan_by_face(raw: Path, source: str, name: str, size: int, check: Callable[[], None]) -> CutPlan:
    """Plan clips of the largest face. check: Called now and then; an exception from it ends the work.

    Raises InputError for a damaged video.
    """
    reader = VideoReader(raw / source)

    def samples() -> Iterator[FaceSample]:
        for sample in sample_faces(reader):
            check()
            yield sample

    pieces, too_short = find_pieces(samples(), reader.fps, reader.frame_count, reader.width, reader.height)
    cuts = []
    for number, piece in enumerate(pieces):
        file = f"train/{name}__{number:02}.mp4"
        cuts.append(Cut(file, identity_of(name), source, piece.first, piece.end, piece.square, size, reader.fps))
    skipped = [f"a piece with a face is shorter than {SHORTEST_FRAMES} frames"] * too_short
    return CutPlan(
        source, reader.path.stat().st_size, True, cuts, skipped if pieces or skipped else ["no face was found"]
    )


def plan_by_rows(raw: Path, source: str, rows: Sequence[ListedClip], size: int) -> CutPlan:
    """Plan the clips that a CSV lists for this video. Raises InputError for a damaged video."""
    reader = VideoReader(raw / source)
    cuts: dict[str, Cut] = {}
    skipped = []
    for row in rows:
        name = safe_name(row.name)
        file = f"{row.partition}/{name}.mp4"
        first, end = row.span(reader.fps)
        end = min(end, reader.frame_count)
        square = row.square(reader.width, reader.height)
        if end - first < 2:
            skipped.append("fewer than two frames of the video lie between start and end")
        elif square is None:
            skipped.append("the box lies outside of the picture")
        elif file in cuts:
            skipped.append("a clip is listed twice")
        else:
            cuts[file] = Cut(file, identity_of(name), source, first, end, square, size, reader.fps)
    return CutPlan(source, reader.path.stat().st_size, False, list(cuts.values()), skipped)
