"""Which videos a data set has, and whose they are."""

from dataclasses import dataclass
from pathlib import Path

from mtanimate.errors import InputError

VIDEO_SUFFIXES = {".mp4", ".mov", ".mkv", ".m4v", ".webm", ".avi", ".gif"}


@dataclass(frozen=True)
class Clip:
    """One video and its subject: the file's name before `__` or `#`, as the field's data sets have it."""

    path: Path
    identity: str


def identity_of(name: str) -> str:
    """Whose clip of this name it is: what stands before the first `#`, or without one before the first `__`.

    The field joins person, video and frames by `#`, and its video codes may have `__` in them.
    """
    return name.partition("#" if "#" in name else "__")[0]


def find_clips(folder: Path, split: str) -> list[Clip]:
    """The videos below `folder`, or below `folder/split` where that exists, sorted by name.

    Raises InputError where the folder or any video in it is missing.
    """
    if not folder.is_dir():
        raise InputError(f"no data folder '{folder}': --data takes a folder of videos")
    root = folder / split if (folder / split).is_dir() else folder
    paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file())
    if not paths:
        raise InputError(f"no videos in '{root}' (looked for {' '.join(sorted(VIDEO_SUFFIXES))})")
    return [Clip(path, identity_of(path.stem)) for path in paths]
