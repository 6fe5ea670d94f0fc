"""What is left of the minutes: a training on the recipe, whose weights come back as they are saved."""

import json
import math
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import torch

from gpu.phase import Phase
from gpu.test_phase import draw_clips
from mtanimate.checkpoints.file import write_checkpoint
from mtanimate.config import Config, from_mapping, load_file
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.models.animator import Animator

CLOSING = 25  # seconds for the last step, validation, saving and cutting into parts
SAVE_EVERY = 60  # seconds
PACE = 40  # steps that tell how many there is time for


def run(phase: Phase) -> None:
    settings = phase.settings()
    config = load_file(settings)
    check_room(phase, config)
    if phase.data is None and not phase.rehearsing:
        raise InputError("there is nothing to train on: give --data, a folder that mtanimate data pack made")
    clips = phase.data or draw_clips(phase)
    options = [*data_options(phase), "--set", f"training.save_every_seconds={save_every(config)}"]
    if phase.recipe.get("init"):
        options += ["--init", phase.recipe["init"]]
    command = partial(phase.train_command, settings, clips)
    steps = config.training.steps
    if not phase.recipe["settings"].get("training", {}).get("steps"):  # the preset's is not for these minutes
        steps = steps_in_time(phase, command(phase.temp / "pace", *options, "--steps", str(PACE)), config)
    phase.put(steps, "steps planned")
    folder = phase.temp / "run"
    code = watch(phase, subprocess.Popen(command(folder, *options, "--steps", str(steps))), folder)
    if code not in (0, 128 + signal.SIGINT):
        raise MTAnimateError(f"mtanimate train ended with exit code {code}: log.txt has its last words")
    send_state(phase, folder / "state" / "last.pt")


def save_every(config: Config) -> float:
    return config.training.save_every_seconds or SAVE_EVERY


def check_room(phase: Phase, config: Config) -> None:
    """Raises InputError, before a second is spent, where the weights could not come back."""
    with torch.device("meta"):
        size = 2 * sum(tensor.numel() for tensor in Animator(config.model).state_dict().values())
    if not phase.results.fits(size, replaced=True):
        raise InputError(f"the network's weights, {size >> 20} MiB, cannot come back: train a smaller one")


def data_options(phase: Phase) -> list[str]:
    """The pack's cache, made anew here; its stills."""
    if phase.data is None:
        return []
    cache, stills = phase.temp / "cache", phase.data / "stills"
    options = ["--stills", str(stills)] if stills.is_dir() else []
    made = [sys.executable, "-m", "mtanimate", "data", "cache", str(phase.data), "--out", str(cache), *options]
    started = time.perf_counter()
    if code := subprocess.run(made).returncode:
        raise MTAnimateError(f"mtanimate data cache ended with exit code {code}: log.txt has its last words")
    phase.put(round(time.perf_counter() - started, 1), "seconds for the cache")
    return ["--set", f"data.cache={cache}", *(["--set", f"data.stills={stills}"] if options else [])]


def steps_in_time(phase: Phase, command: list[str], config: Config) -> int:
    """As many as the minutes allow, by the pace of the first ones: the learning rate falls to zero at the last."""
    started = time.monotonic()
    if code := subprocess.run(command).returncode:
        raise MTAnimateError(f"the first {PACE} steps ended with exit code {code}: log.txt has their last words")
    out = Path(command[command.index("--out") + 1])
    log = [json.loads(line) for line in (out / "log.jsonl").read_text("utf-8").splitlines()]
    pace = log[-1]["samples_per_second"] / config.training.batch_size
    start = time.monotonic() - started - PACE / pace  # and validation: the same again
    phase.put({"steps_a_second": round(pace, 2), "start_seconds": round(start, 1)}, "pace")
    return max(1, math.floor(0.97 * pace * (phase.seconds_left - CLOSING - start)))


def watch(phase: Phase, trainer: subprocess.Popen, folder: Path) -> int:
    """Send weights whenever the state was saved; end the training, by Ctrl-C, in time. Returns its exit code."""
    state, sent, asked = folder / "state" / "last.pt", 0, False
    while True:
        ended = trainer.poll() is not None
        if state.exists() and state.stat().st_mtime_ns != sent:
            sent = state.stat().st_mtime_ns
            phase.attempt(partial(send_weights, phase, state), "weights", seconds=0)
        if ended:
            return trainer.returncode
        if not asked and phase.seconds_left < CLOSING:
            trainer.send_signal(signal.SIGINT)
            asked = True
        time.sleep(0.2)


def send_weights(phase: Phase, state: Path) -> dict[str, int]:
    """Of a run's state, as a checkpoint in float16: the running mean, where there is one."""
    content = torch.load(state, map_location="cpu", weights_only=True)
    config = from_mapping(Config, content["config"])
    animator = Animator(config.model)
    weights = {name.removeprefix("module."): tensor for name, tensor in (content["ema"] or content["model"]).items()}
    weights.pop("n_averaged", None)
    animator.load_state_dict(weights)
    about = {"steps": content["step"], "samples": content["pairs"]}
    file = phase.temp / "weights.safetensors"
    write_checkpoint(file, animator, config, about, half=True)
    phase.results.send(file, "weights", about | {"saved": state.stat().st_mtime})
    return about


def send_state(phase: Phase, state: Path) -> None:
    """What `--resume` takes, too, where there is room for it."""
    size = state.stat().st_size
    if phase.results.fits(size, replaced=False):
        phase.results.send(state, "state", {})
        phase.put("sent", "state")
    else:
        phase.put(f"not sent: {size >> 20} MiB are too many; training goes on from the weights, by --init", "state")
