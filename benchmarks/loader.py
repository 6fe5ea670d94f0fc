"""How many pairs a second the loader reads out of a cache, and what a loader process costs in memory.

    python benchmarks/loader.py DATA CACHE [--preset small] [--seconds 5] [--batch-size 4]

Rates: one process that does nothing else, pairs with landmarks; then with the augmentation of its batches on this CPU.
Memory: what all loader processes take together, pages that several share counted once (PSS), for one and for eight
(Linux). The cache is read once before, so that it lies in memory as it does after a training's first minutes.
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from machine import describe

from mtanimate.config import Config, load_preset, override
from mtanimate.data.clips import split_clips
from mtanimate.data.loading import RawBatch, load_batches
from mtanimate.data.pairs import PairDataset


def rates(batches: Iterator[RawBatch], use: Callable[[RawBatch], object], seconds: float) -> tuple[float, float]:
    """Pairs a second, and a second of processor time, which does not mind what else the machine does."""
    for _ in range(20):
        use(next(batches))
    started, processor, pairs = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - started < seconds:
        batch = next(batches)
        use(batch)
        pairs += len(batch.clips)
    return pairs / (time.perf_counter() - started), pairs / (time.process_time() - processor)


def memory_of_processes(dataset: PairDataset, processes: int, batches: int) -> dict[str, float]:
    """MiB of this process and its loaders after each of them has read some batches."""
    loader = load_batches(dataset, start=0, processes=processes, pinned=False)
    for _ in range(batches * processes):
        next(loader)
    pids = ["self", *(str(child.pid) for child in multiprocessing.active_children())]
    taken = {"all": 0.0, "files": 0.0, "own": 0.0}
    for pid in pids:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
        taken["all"] += kib["Pss"] / 1024
        taken["files"] += kib["Pss_File"] / 1024
        taken["own"] += kib["Pss_Anon"] / 1024
    del loader  # ends its processes
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(describe())
    settings = [f"data.cache={arguments.cache}", "loss.landmarks=1", f"training.batch_size={arguments.batch_size}"]
    config: Config = override(load_preset(arguments.preset), settings)
    split = split_clips(arguments.data, config.data.test_share, config.training.seed)
    dataset = PairDataset(split.train, config)
    cache = dataset.raw.cache
    assert cache is not None
    touched = sum(int(cache.frames(entry, range(entry.count))[:, ::16].sum()) for entry in dataset.raw.entries.values())
    print(f"{len(dataset.raw.entries)} of {len(split.train)} clips from the cache (sum {touched})")
    for use, what in ((lambda batch: None, "raw"), (RawBatch.augmented, "augmented on this CPU")):
        wall, processor = rates(load_batches(dataset, start=0, processes=0, pinned=False), use, arguments.seconds)
        print(
            f"one process, {torch.get_num_threads()} thread, {what}: {wall:.0f} pairs/s; {processor:.0f} a CPU second"
        )
    one, eight = (memory_of_processes(dataset, count, 20) for count in (1, 8))
    for name, what in (("all", "in all"), ("files", "of files, the cache's pages among them"), ("own", "of their own")):
        growth = eight[name] / one[name] - 1
        print(f"PSS {what}: {one[name]:.0f} MiB with one loader process, {eight[name]:.0f} with eight, {growth:+.1%}")


if __name__ == "__main__":
    main()
