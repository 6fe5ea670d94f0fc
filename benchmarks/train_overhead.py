"""What a step of `mtanimate train` costs beside the bare network, and how much faster the loader is than both.

    python benchmarks/train_overhead.py DATA [--preset small] [--rounds 10] [--device auto]

Bare: forward, losses, backward and fused Adam on a batch that is there already, the same network and precision.
Whole: `Run`'s own step: drawing and augmenting the batch, moving it, gradient norm and clipping, the check for what
is not finite, the running mean of the weights, the log. Rounds of both alternate; the ratio is the median of the
rounds' ratios. The loader is measured alone, from files and from a cache of frames, with 0 and 2 processes that decode.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from machine import describe

from mtanimate.config import Config, load_preset, override
from mtanimate.data.cache import Cache
from mtanimate.data.caching import cache_frames
from mtanimate.data.checking import samples_per_second
from mtanimate.data.clips import Split, split_clips
from mtanimate.data.pairs import PairDataset
from mtanimate.devices import choose_device, choose_training_precision
from mtanimate.training.distribution import Workers
from mtanimate.training.metrics import LogEntry, Throughput
from mtanimate.training.objective import Phase
from mtanimate.training.run import Run
from mtanimate.training.step import make_optimizer
from mtanimate.training.train import default_processes


def bare_step(run: Run) -> Callable[[], None]:
    module, device = run.trainer.module, run.workers.device
    optimizer = make_optimizer(module.animator, run.config.training, device)
    batch = next(run._load()).to(device).augmented()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        terms = module(batch, Phase.FULL).terms
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()

    return step


def whole_step(run: Run) -> Callable[[], None]:
    run_log, throughput, entry, batches = run._open_folder(), Throughput(), LogEntry(run.config.loss), run._load()

    def step() -> None:
        step = run._step(run._draw(batches, throughput), throughput, stop=False)
        run._record(step, throughput, run_log, entry)

    return step


def seconds(step: Callable[[], None], count: int, device: torch.device) -> float:
    started = time.perf_counter()
    for _ in range(count):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / count


def loader_table(config: Config, split: Split) -> dict[str, float]:
    from_files = PairDataset(split.train, override(config, ["data.cache_gib=0"]))
    for clip in split.train:
        from_files.raw.readers[clip] = clip.open()
    cached = PairDataset(split.train, config)
    with tempfile.TemporaryDirectory() as folder:
        cache_frames(split.train, Path(folder), config.model.resolution, config.data.cache_gib * 2**30)
        cached.use(Cache(Path(folder)))
        return {
            "from files, no process": samples_per_second(from_files, 0),
            "from files, 2 processes": samples_per_second(from_files, 2),
            "from a cache, no process": samples_per_second(cached, 0),
            "from a cache, 2 processes": samples_per_second(cached, 2),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=2, help="of each kind in a round")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    options = parser.parse_args()
    phases = ["training.equivariance_steps=0", "training.warmup_steps=0", "training.steps=1000000"]
    config = override(load_preset(options.preset), [*phases, *options.settings])
    split = split_clips(options.data, config.data.test_share, 0)
    here = Workers(choose_device(options.device))
    precision = choose_training_precision(config.training.precision, here.device)
    print(describe())
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), config, split, here, precision=precision, processes=default_processes(here))
        run.cache()
        run.trainer.module.train()
        bare, whole = bare_step(run), whole_step(run)
        seconds(bare, 2, here.device), seconds(whole, 2, here.device)
        pairs = []
        for _ in range(options.rounds):
            pairs.append((seconds(bare, options.steps, here.device), seconds(whole, options.steps, here.device)))
            print(f"bare {pairs[-1][0]:.3f} s, whole {pairs[-1][1]:.3f} s", flush=True)
    ratio = statistics.median(whole / bare for bare, whole in pairs)
    used = config.training.batch_size / statistics.median(whole for _, whole in pairs)
    print(f"{options.preset}, {here.device.type}, {precision}: a step is {ratio:.3f} times the bare one")
    print(f"training uses {used:.2f} samples/s; the loader alone delivers")
    for how, rate in loader_table(config, split).items():
        print(f"  {how}: {rate:.1f} samples/s, {rate / used:.0f} times as many")


if __name__ == "__main__":
    main()
