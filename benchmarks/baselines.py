"""Whether each estimator learns: trains the Motion Transformer and the paper's baselines for a few steps.

    python benchmarks/baselines.py DATA [--steps 200] [--out runs/baselines] [--only fomm mraa]

Each is trained twice on the folder of videos DATA, with the preset `small` at 128 x 128: all of it from the first step
on, and the estimator alone on equivariance. Prints each loss as the mean of the first and of the last tenth of steps.
It says that they train, not how good they become: for that, `benchmarks/ablations.py` gives equal budgets.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import mean

from machine import describe

from mtanimate.training.train import ESTIMATORS

# The motion half works at the size that it has in the preset at 256 x 256; the heat maps at that of their paper.
REDUCED = {"motion-transformer": 1.0}
PHASES = {"everything": 0, "equivariance alone": 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("runs/baselines"))
    parser.add_argument("--only", nargs="+", choices=list(ESTIMATORS), default=list(ESTIMATORS))
    options = parser.parse_args()
    rows = []
    for estimator in options.only:
        for phase, alone in PHASES.items():
            log = train(estimator, alone * options.steps, options)
            for term in ("loss", "equivariance_keypoints"):
                first, last = first_and_last([entry[term] for entry in log])
                rows.append(f"| {estimator} | {phase} | {term} | {first:.3f} | {last:.3f} | {last / first:.2f} |")
    print(describe())
    print(f"{options.steps} steps of 4 pairs; means of the first and of the last tenth of them\n")
    print("| estimator | trained | term | first | last | ratio |\n| --- | --- | --- | --- | --- | --- |")
    print("\n".join(rows))


def train(estimator: str, equivariance_steps: int, options: argparse.Namespace) -> list[dict[str, float]]:
    """The log of a run, a line a step."""
    run = options.out / f"{estimator}-{equivariance_steps}"
    settings = {
        "model.estimator.scale_factor": REDUCED.get(estimator, 0.5),
        "model.dense_motion.scale_factor": 0.5,
        "training.equivariance_steps": equivariance_steps,
        "training.warmup_steps": 0,
        "training.schedule": "milestones",
        "training.checkpoint_every": options.steps,
        "training.picture_every": options.steps,
        "training.validation_clips": 0,
    }
    command = [sys.executable, "-m", "mtanimate", "train", "--dataset", str(options.data), "--estimator", estimator]
    command += ["--out", str(run), "--steps", str(options.steps), "--resolution", "128"]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    subprocess.run(command, check=True)
    return [json.loads(line) for line in (run / "log.jsonl").read_text("utf-8").splitlines()]


def first_and_last(values: list[float]) -> tuple[float, float]:
    tenth = max(1, len(values) // 10)
    return mean(values[:tenth]), mean(values[-tenth:])


if __name__ == "__main__":
    main()
