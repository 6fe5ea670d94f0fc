"""The clips and stills of a data set: where they are, whom they show, and which are held out."""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtanimate.errors import InputError
from mtanimate.files import sha256
from mtanimate.video.footage import VIDEO_SUFFIXES, Footage, FrameFolder, is_picture, open_footage


@dataclass(frozen=True)
class Clip:
    """A video or a folder of frames, and the person in it, known by its name or its folder."""

    path: Path
    identity: str

    def open(self) -> Footage:
        """Open it to read. Raises InputError where it is damaged, or has a single frame, in which nothing moves."""
        reader = open_footage(self.path)
        if reader.frame_count < 2:
            raise InputError(f"{self.path} has {reader.frame_count} frame: a clip needs two, or nothing moves")
        return reader

    def digest(self) -> str:
        """The SHA-256 of its content, whatever its name. Raises OSError where it cannot be read."""
        return sha256(*sorted(self.path.iterdir()) if self.path.is_dir() else [self.path])


class Still(Clip):
    """A single picture."""

    def open(self) -> Footage:
        """Open it to read; of an animation, the first frame. Raises InputError where it is damaged."""
        return FrameFolder(self.path)


def identity_of(name: str) -> str:
    """The person in a clip of this name: the part before the first `#`; without one, before the first `__`.

    Published data sets join person, video and frames by `#`, and their video codes may contain `__`.
    """
    return name.partition("#" if "#" in name else "__")[0]


@dataclass(frozen=True)
class Split:
    """A data set, divided.

    Attributes:
        train: The clips to train on.
        test: The clips of other people, held out.
        how: For the user, how they were divided.
        known_by: For the user, how people are told apart.
    """

    train: list[Clip]
    test: list[Clip]
    how: str
    known_by: str


def find_clips(folder: Path) -> list[Clip]:
    """The videos and the folders of frames at any depth below `folder`, sorted by path.

    A folder that holds pictures and nothing else to look at, no video and no folder, is one clip. Raises
    InputError where the folder or any clip in it is missing.
    """
    if not folder.is_dir():
        raise InputError(f"no data folder '{folder}': say where the videos are with --data")
    paths, _ = look_through(folder)
    if not paths:
        suffixes = " ".join(sorted(VIDEO_SUFFIXES))
        raise InputError(f"no videos and no folders of frames in '{folder}' (videos end in {suffixes})")
    return _identified({path: path.relative_to(folder) for path in paths})[0]


def find_stills(folder: Path) -> list[Still]:
    """The pictures in a folder, sorted by name. Raises InputError where it is missing or has none."""
    if not folder.is_dir():
        raise InputError(f"no folder of stills '{folder}': give a folder of pictures")
    files = sorted(file for file in folder.iterdir() if is_picture(file))
    if not files:
        raise InputError(f"no pictures in the folder of stills '{folder}'")
    return [Still(file, identity_of(file.stem)) for file in files]


def look_through(folder: Path) -> tuple[list[Path], list[Path]]:
    """The videos and folders of frames at any depth below a folder, and the files that are neither; both sorted."""
    clips: list[Path] = []
    others: list[Path] = []
    for here, subfolders, files in folders_below(folder):
        videos = [file for file in files if is_video(file)]
        frames = [] if videos or subfolders else [file for file in files if is_picture(file)]
        clips += [here] if frames else videos
        others += set(files).difference(videos, frames)
    return sorted(clips), sorted(others)


def folders_below(top: Path) -> Iterator[tuple[Path, list[Path], list[Path]]]:
    """Walk through a folder and all below it: each, with the folders and files in it, without hidden ones.

    Links are followed, but each folder comes only once, as a link may lead to a folder that contains it. A folder that
    can be reached without links comes by that path.
    """
    seen: set[Path] = set()
    starts = [top]
    for start in starts:
        for name, folders, files in os.walk(start):
            here = Path(name)
            if here.resolve() in seen:
                folders.clear()
                continue
            seen.add(here.resolve())
            folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
            starts += [here / folder for folder in folders]  # `walk` goes into all but links
            yield here, [here / folder for folder in folders], [here / file for file in files if file[0] != "."]


def left_out(folder: Path, files: Sequence[Path]) -> list[str]:
    """A line for the user about the files in a folder that are not used, by their endings; none without such files."""
    endings: dict[str, list[Path]] = {}
    for file in files:
        endings.setdefault(file.suffix.lower() or "no ending", []).append(file)
    most_first = sorted(endings.items(), key=lambda item: -len(item[1]))
    kinds = [f"{len(some)} {ending} ({some[0].relative_to(folder)})" for ending, some in most_first]
    return [f"{folder}: left out are files that are no videos by their names: {', '.join(kinds)}"] if files else []


def _identified(places: Mapping[Path, Path]) -> tuple[list[Clip], str]:
    """The clips at these paths, in that order, and how people are told apart, for the user.

    Where the same names without a person (00001.mp4) occur in several folders, they number the clips of a folder: the
    uppermost folder is the person then.

    Args:
        places: Each path, and where it is below the data set, or below its folder train or test.
    """
    unnamed = [path for path, place in places.items() if len(place.parts) > 1 and identity_of(path.stem) == path.stem]
    homes = defaultdict(set)
    for path in unnamed:
        homes[path.stem].add(path.parent)
    if all(len(folders) == 1 for folders in homes.values()):
        return [Clip(path, identity_of(path.stem)) for path in places], "by their names"
    people = {path: places[path].parts[0] for path in unnamed}
    clips = [Clip(path, people.get(path) or identity_of(path.stem)) for path in places]
    return clips, "by the folders that they are in, in several of which the same names occur"


def split_clips(folder: Path, test_share: float, seed: int) -> Split:
    """Divide a data set by its folders `train` and `test`, where there are any; else hold out people at random.

    Args:
        folder: The data set.
        test_share: The share of people to hold out; of fewer than 1 / (2 test_share) people, none are.
        seed: Determines which.

    Raises:
        InputError: There are no clips.
    """
    train, test = folder / "train", folder / "test"
    roots = [train if train.is_dir() else folder, *([test] if test.is_dir() else [])]
    # A clip below both roots belongs to the later one, the folder test.
    places = {clip.path: clip.path.relative_to(root) for root in roots for clip in find_clips(root)}
    clips, known_by = _identified(places)
    if len(roots) > 1 or train.is_dir():
        held_out = {path for path in places if path == test or test in path.parents}
        how = "by the folders train and test" if train.is_dir() else "by the folder test"
        return Split(
            [clip for clip in clips if clip.path not in held_out],
            [clip for clip in clips if clip.path in held_out],
            how,
            known_by,
        )
    names = sorted({clip.identity for clip in clips})
    held = round(len(names) * test_share)
    chosen = set(np.random.default_rng(seed).permutation(names)[:held].tolist())
    return Split(
        [clip for clip in clips if clip.identity not in chosen],
        [clip for clip in clips if clip.identity in chosen],
        f"{held} of {len(names)} identities held out, drawn by seed {seed}",
        known_by,
    )


def is_video(file: Path) -> bool:
    return file.suffix.lower() in VIDEO_SUFFIXES and not file.name.startswith(".")
