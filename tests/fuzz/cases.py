"""The cases: a seed and a number decide the kind, the files and the command."""

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import good_files
from bench import Bench
from media_cases import lists, metadata, pictures, videos
from network_cases import checkpoints, manifests, motion, pickles
from text_cases import command_lines, jobs, left_behind, settings, tables

# How often each comes.
KINDS: dict[Callable[[Bench], list[str]], int] = {
    videos: 20,
    pictures: 12,
    lists: 7,
    metadata: 4,
    checkpoints: 12,
    pickles: 12,
    manifests: 8,
    motion: 8,
    settings: 8,
    jobs: 8,
    tables: 6,
    left_behind: 12,
    command_lines: 24,
}


def make_case(seed: int, number: int, folder: Path, good: Path, address: str) -> tuple[str, list[str]]:
    """Writes the files of a case into a new `folder`; its kind and the command's arguments."""
    random = Random(f"{seed} {number}")
    bench = Bench(random, folder, good, address)
    bench.work.mkdir(parents=True)
    bench.outside.mkdir()
    (bench.outside / "kept.txt").write_text("kept", "utf-8")
    shutil.copy(good_files.good(good, "clip.mp4"), bench.outside / "kept.mp4")
    kind = random.choices(list(KINDS), list(KINDS.values()))[0]
    return kind.__name__, [*kind(bench), "--quiet"]
