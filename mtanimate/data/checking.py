"""The command `data check`: what is damaged or odd in a data set, and how fast it can be read."""

import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from mtanimate.config import Config
from mtanimate.data.clips import Clip, Split, identity_of, left_out, look_through, split_clips
from mtanimate.data.loading import load_batches
from mtanimate.data.pairs import PairDataset
from mtanimate.errors import InputError
from mtanimate.video.footage import Footage, FrameFolder

MEASURED_SECONDS = 5.0


@dataclass(frozen=True)
class ClipFindings:
    """What was found in one clip. problem: Why training would skip it, or ""."""

    clip: Clip
    reader: Footage | None = None
    frames: int = 0
    seconds: float = 0.0
    size: tuple[int, int] = (0, 0)
    digest: str = ""
    problem: str = ""


@dataclass
class Findings:
    """What was found in a data set.

    Attributes:
        train: The number of clips to train on.
        test: The number of clips that are held out.
        split: How they were divided.
        identities: The number of people.
        known_by: How people are told apart.
        frames: The number of frames.
        seconds: The length of all videos; folders of frames have no rate and do not count.
        sizes: The number of clips by "WIDTHxHEIGHT".
        problems: A line for each clip that training would skip.
        warnings: Lines about clips that training uses, but perhaps should not.
        samples_per_second: Pairs of frames that were decoded and augmented; None where no clip could be read.
    """

    train: int
    test: int
    split: str
    identities: int
    known_by: str
    frames: int = 0
    seconds: float = 0.0
    sizes: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    samples_per_second: float | None = None


def check_dataset(
    folder: Path,
    config: Config,
    *,
    processes: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Findings:
    """Decode every clip of a data set, and draw pairs for a few seconds, as training would.

    Args:
        folder: The data set.
        config: The settings to draw pairs by.
        processes: How many processes decode while pairs are drawn; 0 for this one alone.
        progress: Called with the number of clips checked, and of all clips.

    Raises:
        InputError: The folder is missing or has no clips.
    """
    split = split_clips(folder, config.data.test_share, config.training.seed)
    clips = split.train + split.test
    examined = _examine_all(clips, progress)
    people = len({clip.identity for clip in clips})
    findings = Findings(len(split.train), len(split.test), split.how, people, split.known_by)
    good = [found for found in examined if not found.problem]
    findings.problems = [found.problem for found in examined if found.problem]
    findings.frames = sum(found.frames for found in good)
    findings.seconds = sum(found.seconds for found in good)
    findings.sizes = {f"{w}x{h}": count for (w, h), count in Counter(found.size for found in good).most_common()}
    findings.warnings = [
        *left_out(folder, look_through(folder)[1]),
        *_doubtful(split),
        *(line for found in good for line in _odd(found, config.model.resolution)),
        *_duplicates(good),
        *_in_both({clip.identity for clip in split.train}, {clip.identity for clip in split.test}),
    ]
    readers = {found.clip: found.reader for found in good if found.reader is not None}
    train = [clip for clip in split.train if clip in readers]
    if train:
        dataset = PairDataset(train, config)
        dataset.raw.readers = readers
        findings.samples_per_second = samples_per_second(dataset, processes)
    return findings


def samples_per_second(dataset: PairDataset, processes: int) -> float:
    """Pairs per second that the loader delivers when nothing else runs, measured over a few seconds."""
    with closing(load_batches(dataset, start=0, processes=processes, pinned=False)) as batches:
        next(batches)  # processes start
        started, pairs = time.monotonic(), 0
        while time.monotonic() - started < MEASURED_SECONDS:
            pairs += len(next(batches).clips)
        return pairs / (time.monotonic() - started)


def _examine_all(clips: list[Clip], progress: Callable[[int, int], None]) -> list[ClipFindings]:
    examined: dict[Clip, ClipFindings] = {}
    stopped = Event()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        futures = [pool.submit(_examine, clip, stopped) for clip in clips]
        try:
            for future in as_completed(futures):
                found = future.result()
                examined[found.clip] = found
                progress(len(examined), len(clips))
        except BaseException:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [examined[clip] for clip in clips]


def _examine(clip: Clip, stopped: Event) -> ClipFindings:
    """Decode every frame of a clip. stopped: Ends this early."""
    try:
        reader = clip.open()
        for _ in reader.batches(8):
            if stopped.is_set():
                return ClipFindings(clip)
    except InputError as error:
        return ClipFindings(clip, problem=str(error))
    seconds = 0.0 if isinstance(reader, FrameFolder) else float(reader.frame_count / reader.fps)
    return ClipFindings(clip, reader, reader.frame_count, seconds, (reader.width, reader.height), clip.digest())


def _odd(found: ClipFindings, resolution: int) -> list[str]:
    width, height = found.size
    lines = []
    if min(width, height) < resolution:
        lines.append(
            f"{found.clip.path} is {width} x {height}: smaller than the {resolution} it is trained at, blurred"
        )
    if width != height:
        lines.append(f"{found.clip.path} is {width} x {height}: its rims beside the centred square are not used")
    return lines


def _duplicates(examined: list[ClipFindings]) -> list[str]:
    same = defaultdict(list)
    for found in examined:
        same[found.digest].append(str(found.clip.path))
    return [f"{paths[0]} is the same as {', '.join(paths[1:])}" for paths in same.values() if len(paths) > 1]


def _doubtful(split: Split) -> list[str]:
    """Lines about folders that stand for a person, or perhaps should: only the user can tell."""
    homes = defaultdict(list)
    for clip in split.train + split.test:
        if identity_of(clip.path.stem) == clip.path.stem:  # its name says no person
            homes[clip.path.parent].append(clip)
    by_folder = [home for home, clips in homes.items() if any(clip.identity != clip.path.stem for clip in clips)]
    if by_folder:
        return [
            f"names say no person and occur in several folders, as in {by_folder[0]}: each uppermost folder is taken "
            "for one person; if it is not, name the clips PERSON__NUMBER"
        ]
    crowded = [home for home, clips in homes.items() if len(clips) > 1]
    if len(homes) > 1 and crowded:
        return [
            f"names say no person: each clip is taken for another one's, also the {len(homes[crowded[0]])} in "
            f"{crowded[0]}; if that is one person, who may be in train and in test, name the clips PERSON__NUMBER"
        ]
    return []


def _in_both(train: set[str], test: set[str]) -> list[str]:
    return [f"identity '{name}' is in train and in test: scores will flatter" for name in sorted(train & test)]
