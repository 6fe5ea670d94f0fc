"""The tests that need a GPU, and a training of 20 steps: gradients, half precision, a resume, torch.compile."""

import json
import math
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from gpu.phase import Phase, portrait_clip
from mtanimate.video import write_image

TOP = Path(__file__).parents[2]
TESTS = (
    "tests/inference/test_cuda_graphs.py",
    "tests/inference/test_transfers.py",
    "tests/video/test_reader.py::test_the_gpu_is_never_missed_in_silence",
)
STEPS = 20


def run(phase: Phase) -> None:
    phase.attempt(partial(run_tests, phase), "tests")
    clips = draw_clips(phase)
    phase.attempt(partial(train, phase, clips, "plain", STEPS // 2), "training")
    phase.attempt(partial(train, phase, clips, "plain", STEPS), "training resumed")
    if phase.rehearsing:
        phase.cannot("torch.compile is left to a GPU: it takes minutes on a CPU", "training compiled")
    else:
        phase.attempt(partial(train, phase, clips, "compiled", STEPS, "--compile"), "training compiled", seconds=30)


def run_tests(phase: Phase) -> str:
    """pytest's last line. Raises RuntimeError with it where a test fails, or is skipped for want of a GPU."""
    command = [sys.executable, "-m", "pytest", "-q", "-rsf", "-p", "no:cacheprovider", *TESTS]
    command += ["-k", "gpu or cpu"] if phase.rehearsing else []  # those that are another matter on a GPU
    done = subprocess.run(command, cwd=TOP, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(done.stdout, flush=True)
    last = (done.stdout.strip().splitlines() or ["nothing was said"])[-1]
    missed = not phase.rehearsing and "no NVIDIA GPU" in done.stdout
    if done.returncode or missed:
        raise RuntimeError(f"pytest: {last}{'; some found no GPU' * missed}")
    return last


def draw_clips(phase: Phase) -> Path:
    """Two people's clips as folders of frames, which need no decoder."""
    folder = phase.temp / "clips"
    frames = portrait_clip(24, 64 if phase.rehearsing else 256).permute(0, 2, 3, 1).numpy()
    for name, clip in (("one__0", frames), ("two__0", frames[:, :, ::-1])):
        (folder / name).mkdir(parents=True)
        for number, frame in enumerate(clip):
            write_image(folder / name / f"{number:03d}.png", frame.copy())
    return folder


def train(phase: Phase, clips: Path, name: str, steps: int, *options: str) -> dict[str, Any]:
    """What the log says of a training to `steps`, which goes on where the folder has a state. Raises RuntimeError where
    it fails, steps are missing, or a loss or gradient is none."""
    dataset = phase.settings() if phase.rehearsing else "small"
    fresh = ["--set", "training.equivariance_steps=0", "--set", "training.warmup_steps=0"]
    command = phase.train_command(dataset, clips, phase.temp / name, "--steps", str(steps), *fresh, *options)
    started = time.perf_counter()
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    print(done.stderr, flush=True)
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {done.stderr.strip().splitlines()[-1]}")
    log = [json.loads(line) for line in (phase.temp / name / "log.jsonl").read_text("utf-8").splitlines()]
    if [entry["step"] for entry in log] != list(range(1, steps + 1)):
        raise RuntimeError(f"the log has {len(log)} lines for {steps} steps")
    bad = [entry["step"] for entry in log if not (entry["loss"] and math.isfinite(entry["loss"]))]
    bad += [entry["step"] for entry in log if not entry.get("gradient_norm", 0) > 0]
    if bad:
        raise RuntimeError(f"steps {bad}: no finite loss, or no gradient")
    return {
        "steps": steps,
        "losses": [log[0]["loss"], log[-1]["loss"]],
        "samples_per_second": log[-1]["samples_per_second"],
        "seconds": time.perf_counter() - started,
    }
