"""Time and memory of `mtanimate checkpoints import`, on checkpoints of published size with random weights.

    python benchmarks/import_speed.py [--runs 3]

Each run is the command itself, from the prompt to the written file; medians. With optimisers, as training saves them, a
file is three times as large; they stay on disk.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import torch
from machine import describe

from mtanimate.checkpoints.layouts import computed, to_layout
from mtanimate.config import load_preset
from mtanimate.models.animator import Animator

FILES = {"vox-cpk.pth.tar": ("fomm", "fomm"), "voxceleb.pth.tar": ("vox-release", "release")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    print(describe())
    with tempfile.TemporaryDirectory() as folder:
        for name, (preset, layout) in FILES.items():
            for optimisers in (False, True):
                path = Path(folder) / name
                write(path, preset, layout, optimisers)
                runs = [measure(path, Path(folder)) for _ in range(options.runs)]
                seconds, peak = (median(values) for values in zip(*runs, strict=True))
                size = path.stat().st_size / 1e6
                print(f"{name}{' with optimisers' * optimisers}, {size:.0f} MB: {seconds:.1f} s, {peak / 1e6:.0f} MB")


def write(path: Path, preset: str, layout: str, optimisers: bool) -> None:
    config = load_preset(preset).model
    state = Animator(config).state_dict()
    parts: dict = {}
    for name, tensor in (to_layout(state, layout) | computed(config, layout)).items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = tensor
    if optimisers:
        for part in list(parts):
            moments = [{"exp_avg": t * 0, "exp_avg_sq": t * 0} for t in parts[part].values() if t.is_floating_point()]
            parts[f"optimizer_{part}"] = {"state": dict(enumerate(moments)), "param_groups": []}
    torch.save(parts, path)


# In a small process of its own: a child's largest resident set counts that of the process it was forked from.
MEASURE = """
import resource, subprocess, sys, time
start = time.perf_counter()
subprocess.run(sys.argv[1:], check=True)
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
"""


def measure(path: Path, folder: Path) -> tuple[float, float]:
    """Seconds, and the largest resident set in bytes (Linux counts it in KiB)."""
    environment = os.environ | {"MTANIMATE_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", "mtanimate", "checkpoints", "import", str(path), "--overwrite", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *command], env=environment, stdout=subprocess.PIPE, check=True
    )
    seconds, peak = map(float, done.stdout.split())
    return seconds, peak


if __name__ == "__main__":
    main()
