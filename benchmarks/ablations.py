"""The paper's Tables 2, 4, 5 and 6 at equal budgets: trains each variant, evaluates all of them, prints one table.

    python benchmarks/ablations.py DATA [--out runs/ablations] [--preset small] [--only base layers-4] [--every 8]
        [--half] [-- TRAINING OPTIONS...]

The variants are the files in `benchmarks/ablations/`, for TaiChiHD at the paper's size; each also trains by itself:
`mtanimate train --dataset benchmarks/ablations/layers-4.yaml --data taichi/`. --preset puts another preset under all of
them; --half trains at half its resolution, estimator and masks working at the sizes that they have at the whole. What
follows `--` goes to every training, so that a small budget is one line:

    python benchmarks/ablations.py clips/ --preset small --every 8 --half -- --steps 2000

DATA has the folders `train` and `test`. What was stopped goes on with the same command.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from machine import describe

from mtanimate.checkpoints.file import read_checkpoint
from mtanimate.config import ModelConfig, load_file
from mtanimate.metrics.measures import DEFAULT, METRICS

VARIANTS = Path(__file__).with_name("ablations")
BASE = "base"
# Tables 2, 4, 5 and 6 on TaiChiHD: L1; AKD, MKR and AED, taken for the field's.
QUOTED = {
    BASE: (0.045, 4.670, 0.021, 0.148),
    "position-none": (0.047, 5.482, 0.028, 0.158),
    "backbone-stem": (0.048, 6.056, 0.030, 0.161),
    "backbone-hrnet_w48": (0.045, 4.829, 0.020, 0.149),
    "layers-4": (0.046, 5.320, 0.027, 0.155),
    "layers-8": (0.046, 5.226, 0.025, 0.154),
    "estimator-fomm": (0.057, 6.649, 0.036, 0.172),
    "estimator-mraa": (0.048, 5.246, 0.024, 0.150),
    "estimator-monkey-net": (),
    "estimator-tpsmm": (),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--preset", default="taichi")
    parser.add_argument("--only", nargs="+", choices=QUOTED, default=list(QUOTED))
    parser.add_argument("--half", action="store_true", help="train at half the preset's resolution")
    parser.add_argument("--every", type=int, default=1, help="evaluate every N-th frame")
    parser.add_argument("--detector", default="faces", help="as mtanimate eval has it")
    given = sys.argv[1:]
    own, training = (given[: given.index("--")], given[given.index("--") + 1 :]) if "--" in given else (given, [])
    options = parser.parse_args(own)
    names = [BASE] + [name for name in options.only if name != BASE]
    sizes = {name: train_and_evaluate(name, options, training) for name in names}
    print(describe())
    size = " at half its resolution" * options.half
    print(f"preset {options.preset}{size} {' '.join(training)}; every N-th frame measured, N = {options.every}")
    print_table(compare(names, options.out), sizes)


def train_and_evaluate(name: str, options: argparse.Namespace, training: list[str]) -> float:
    """Returns the motion estimator's parameters, in millions."""
    settings = yaml.safe_load((VARIANTS / f"{name}.yaml").read_text("utf-8")) | {"preset": options.preset}
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / f"{name}.yaml"
    file.write_text(yaml.safe_dump(settings), "utf-8")
    if options.half:
        training = [*at_half(load_file(file).model), *training]
    run = mtanimate("train", "--dataset", file, "--data", options.data, "--out", options.out / name, *training)
    mtanimate(
        *("eval", "--checkpoint", run["checkpoint"], "--dataset", options.data, "--every", options.every),
        *("--detector", options.detector, "--out", options.out / "evaluations" / name),
    )
    animator = read_checkpoint(Path(run["checkpoint"])).animator
    return sum(parameter.numel() for parameter in animator.motion_estimator.parameters()) / 1e6


def at_half(model: ModelConfig) -> list[str]:
    """Options of a training at half the model's resolution whose motion half works at the sizes that it has now."""
    options = ["--resolution", str(model.resolution // 2)]
    for part, config in (("estimator", model.estimator), ("dense_motion", model.dense_motion)):
        options += ["--set", f"model.{part}.scale_factor={min(1.0, 2 * config.scale_factor)}"]
    return options


def compare(names: list[str], out: Path) -> dict[str, Any]:
    if len(names) == 1:
        sys.exit("one variant alone: there is nothing to compare it with")
    return mtanimate("eval", "--compare", *(out / "evaluations" / name for name in names), "--out", out / "comparison")


def mtanimate(*arguments: object) -> dict[str, Any]:
    """What the command prints with --json; its progress goes to the terminal."""
    command = [sys.executable, "-m", "mtanimate", *map(str, arguments), "--json"]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def print_table(comparison: dict[str, Any], sizes: dict[str, float]) -> None:
    """Markdown: each figure, its difference from the base with the 95 % interval, and the paper's own."""
    titles = " | ".join(METRICS[name].title for name in DEFAULT)
    print(f"\n| variant | param. | {titles} | the paper, on TaiChiHD: L1; AKD, MKR, AED, field's |")
    print("| --- " * (len(DEFAULT) + 3) + "|")
    for variant, figures in comparison["figures"].items():
        cells = [cell(figures[name], comparison["differences"].get(variant, {}).get(name)) for name in DEFAULT]
        size = f"{sizes[variant]:.2f} M" if variant in sizes else ""
        quoted = ", ".join(map(str, QUOTED.get(variant, ())))
        print(f"| {variant} | {size} | {' | '.join(cells)} | {quoted} |")


def cell(figure: dict[str, Any], difference: dict[str, Any] | None) -> str:
    if figure["mean"] is None:
        return "-"
    text = f"{figure['mean']:#.3g}"
    if difference and difference["interval"]:
        low, high = difference["interval"]
        text += f" ({low:+.2g} to {high:+.2g})"
    return text


if __name__ == "__main__":
    main()
