"""Which clips a raw video gives: by the lines of a CSV, or by the face in it."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from mtanimate.data.clips import folders_below, identity_of, is_video, left_out
from mtanimate.data.preparation.journal import Cut, Plan
from mtanimate.data.preparation.metadata import Row
from mtanimate.data.preparation.tracking import SHORTEST_FRAMES, Sample, find_pieces, look
from mtanimate.errors import InputError
from mtanimate.video import VideoReader
from mtanimate.video.footage import VIDEO_SUFFIXES


def raw_videos(raw: Path, out: Path, say: Callable[[str], None] = lambda line: None) -> list[str]:
    """The videos below a folder, as paths below it with `/`, sorted; hidden ones and those below `out` are left out.

    say: gets a line about files that are no videos.
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
        say(line)
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


def plan_by_face(raw: Path, source: str, name: str, size: int, check: Callable[[], None]) -> Plan:
    """Follows the largest face. check: called now and then; what it raises ends the work.

    Raises InputError for a damaged video.
    """
    reader = VideoReader(raw / source)

    def samples() -> Iterator[Sample]:
        for sample in look(reader):
            check()
            yield sample

    pieces, too_short = find_pieces(samples(), reader.fps, reader.frame_count, reader.width, reader.height)
    cuts = []
    for number, piece in enumerate(pieces):
        file = f"train/{name}__{number:02}.mp4"
        cuts.append(Cut(file, identity_of(name), source, piece.first, piece.end, piece.square, size, reader.fps))
    skipped = [f"a piece with a face is shorter than {SHORTEST_FRAMES} frames"] * too_short
    return Plan(source, reader.path.stat().st_size, True, cuts, skipped if pieces or skipped else ["no face was found"])


def plan_by_rows(raw: Path, source: str, rows: Sequence[Row], size: int) -> Plan:
    """Takes the clips that a CSV lists for this video. Raises InputError for a damaged video."""
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
    return Plan(source, reader.path.stat().st_size, False, list(cuts.values()), skipped)
