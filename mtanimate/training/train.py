"""The command `train`: check everything, then run."""

import math
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mtanimate.checkpoints.file import read_config
from mtanimate.checkpoints.registry import resolve
from mtanimate.config import Config, describe, load_file, load_preset, override, preset_names
from mtanimate.data.clips import Split, left_out, look_through, split_clips
from mtanimate.devices import choose_training_precision, describe_device
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.training.distribution import Workers, join
from mtanimate.training.run import Progress, Run, claim

# The settings of each estimator. The loss on the affine matrices, with FOMM's weight, is for heads that regress them.
ESTIMATORS = {
    "motion-transformer": ["model.estimator.name=motion-transformer"],
    "fomm": ["model.estimator.name=fomm", "loss.equivariance_affine=10"],
    "mraa": ["model.estimator.name=mraa", "loss.equivariance_affine=0"],
    "monkey-net": ["model.estimator.name=monkey-net", "loss.equivariance_affine=0"],
    # Ten splines of five points, left out of the flow as often as in their authors' training.
    "tpsmm": [
        "model.estimator.name=tpsmm",
        "model.num_keypoints=50",
        "loss.equivariance_affine=0",
        "training.dropout.first=0.1",
        "training.dropout.most=0.3",
    ],
}


@dataclass(frozen=True)
class TrainingPlan:
    """What to train, found and checked before any device is used.

    Attributes:
        config: The settings.
        split: The clips.
        left_out: A line for the user about files among the videos that are no videos, if any.
        folder: The run's folder.
        resume: The state to go on from; None for the folder's last one, if any.
        init: The checkpoint to begin with, if any.
    """

    config: Config
    split: Split
    left_out: list[str]
    folder: Path
    resume: Path | None
    init: Path | None


class ConfigChoice(NamedTuple):
    """The settings of a run. name: the run's; videos: the folder that they come from; init: the checkpoint that it
    starts from."""

    name: str
    config: Config
    videos: Path
    init: Path | None


def choose_config(
    dataset: str | Path,
    *,
    data: str | Path | None = None,
    preset: str | None = None,
    estimator: str | None = None,
    settings: Sequence[str | tuple[str, Any]] | None = None,
    init: str | Path | None = None,
) -> ConfigChoice:
    """The settings that `plan` has for these arguments, which it explains. No video is looked for.

    Raises InputError for an unknown preset, estimator or setting, a wrong value, and a missing file.
    """
    name, config, videos = _recipe(dataset, preset, data)
    start = None
    if init is not None:
        start = resolve(str(init))
        carried = read_config(start).model
        if preset is None and not _names_settings(dataset):  # nothing else is said of the network
            if carried.estimator.motion_kind == "face":  # its tokens need the losses that tie them
                config = load_preset("face")
            config = replace(config, model=carried)
            estimator = estimator or carried.estimator.name
    # The first phases bring a fresh network to its feet: one that walks needs them only where it is said.
    walks = ["training.equivariance_steps=0", "training.warmup_steps=0"] if init is not None else []
    if estimator is not None and estimator not in ESTIMATORS:
        raise InputError(f"--estimator {estimator}: there are {', '.join(ESTIMATORS)}")
    chosen = ESTIMATORS[estimator] if estimator is not None else []
    if estimator == config.model.estimator.name:  # its number of keypoints is chosen already
        chosen = [setting for setting in chosen if not setting.startswith("model.num_keypoints=")]
    config = override(config, [*chosen, *walks, *(settings or [])])
    return ConfigChoice(name, config, videos, start)


def plan(
    dataset: str | Path,
    *,
    data: str | Path | None = None,
    preset: str | None = None,
    out: str | Path | None = None,
    estimator: str | None = None,
    settings: Sequence[str | tuple[str, Any]] | None = None,
    resume: str | Path = "auto",
    init: str | Path | None = None,
) -> TrainingPlan:
    """Check everything that a training needs.

    Args:
        dataset: The name of a preset, a folder of videos, or a YAML file.
        data: The folder of the videos, where `dataset` is not one; `data/NAME` by default.
        preset: The preset to use with a folder of videos; "small" by default.
        out: The run's folder; `runs/NAME-DATE` by default.
        estimator: One of `ESTIMATORS`, in place of the preset's.
        settings: "key=value" or (key, value); they override everything else.
        resume: "auto", "none", or the file of a state.
        init: The name or file of a checkpoint to begin with. Its network is used unless `preset`, or a YAML file, names
            another. The phases for fresh networks are left out.

    Raises:
        InputError: Something is wrong or missing.
    """
    name, config, videos, start = choose_config(
        dataset, data=data, preset=preset, estimator=estimator, settings=settings, init=init
    )
    split = split_clips(videos, config.data.test_share, config.training.seed)
    if not split.train:
        raise InputError(f"'{videos}' has no clips to train on besides those that are held out")
    folder = Path(out).expanduser() if out else Path("runs") / f"{name}-{date.today().isoformat()}"
    if resume == "none" and (folder / "state" / "last.pt").exists():
        raise InputError(f"--out {folder} holds a run already: choose another folder, or --resume auto")
    state = None if resume in ("auto", "none") else Path(resume).expanduser()
    if state is not None and not state.is_file():
        raise InputError(f"--resume {state}: no such file; give auto, none, or a run's state/last.pt")
    return TrainingPlan(config, split, left_out(videos, look_through(videos)[1]), folder, state, start)


def _names_settings(dataset: str | Path) -> bool:
    """Whether this is a preset or a YAML file, not a folder of videos."""
    return str(dataset) in preset_names() or Path(dataset).suffix.lower() in (".yaml", ".yml")


def _recipe(dataset: str | Path, preset: str | None, data: str | Path | None) -> tuple[str, Config, Path]:
    """The run's name, its settings, and the folder of the videos."""
    path = Path(dataset).expanduser()
    videos = Path(data).expanduser() if data else None
    if str(dataset) in preset_names():
        name = str(dataset)
        return preset or name, load_preset(preset or name), videos or Path("data") / name
    if path.suffix.lower() in (".yaml", ".yml"):
        if preset:
            raise InputError(
                f"--preset {preset}: '{path}' names the preset that it builds on itself, by 'preset: NAME'"
            )
        return path.stem, load_file(path), videos or Path("data") / path.stem
    if not path.is_dir() and videos is None:
        raise InputError(
            f"--dataset {dataset}: no such folder, no YAML file, and none of the presets {', '.join(preset_names())}"
        )
    return preset or "small", load_preset(preset or "small"), videos or path


def train(
    dataset: str | Path,
    *,
    device: str = "auto",
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    report: Callable[[Progress], None] = lambda report: None,
    log: Callable[[str], None] = lambda line: None,
    **options: Any,
) -> dict[str, Any]:
    """Train a network.

    Args:
        dataset: As in `plan`.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        workers: How many processes decode ahead; None for as many as help.
        progress: Called with the number of clips decoded into the run's cache, and of all clips.
        report: Called after each step.
        log: Called with each line for the user.
        options: The other arguments of `plan`.

    Returns:
        The run's folder, its last checkpoint, the steps and samples so far, the lowest validation error, and the clips
        that were skipped.

    Raises:
        InputError: Options, data or files are wrong; nothing was computed then.
        Interrupted: On Ctrl-C, SIGTERM or SIGHUP, after the state was saved.
        MTAnimateError: Training failed.
    """
    planned = plan(dataset, **options)
    with join(device) as here:
        try:
            with claim(planned.folder) if here.first else nullcontext():
                return _train(planned, here, workers, progress, report, log)
        except torch.cuda.OutOfMemoryError as error:
            raise MTAnimateError(
                "the GPU's memory is full: lower --batch-size, or take it in parts with --set training.accumulate=2"
            ) from error


def _train(
    planned: TrainingPlan,
    here: Workers,
    workers: int | None,
    progress: Callable[[int, int], None],
    report: Callable[[Progress], None],
    log: Callable[[str], None],
) -> dict[str, Any]:
    config, split = planned.config, planned.split
    remark = log if here.first else lambda line: None
    precision = choose_training_precision(config.training.precision, here.device)
    processes = default_processes(here) if workers is None else workers
    remark(describe(config))
    remark(
        f"device {describe_device(here.device)} x {here.count}, {precision}; {processes} decoding processes; "
        f"{len(split.train)} clips to train on, {len(split.test)} to test ({split.how}), people known "
        f"{split.known_by}; run in {planned.folder}"
    )
    for line in planned.left_out:
        remark(line)
    run = Run(
        planned.folder,
        config,
        split,
        here,
        precision=precision,
        init=planned.init,
        processes=processes,
        log=log,
    )
    if run.dataset.stills:
        remark(f"{len(run.dataset.stills)} stills for {config.data.stills_share:.0%} of the pairs")
    if run.resume(planned.resume):
        remark(f"resuming at step {run.state.step} of {run.steps}")
    run.cache(progress)
    cached = run.dataset.raw.entries
    if run.dataset.raw.cache is not None:
        of = len(split.train) + len(run.dataset.stills)
        remark(f"{len(cached)} of {of} clips and stills are read from the cache '{run.dataset.raw.cache.folder}'")
    checkpoint = run.train(report)
    skipped = sorted(set(here.gather(list(run.skipped))))
    return {
        "run": str(planned.folder),
        "checkpoint": str(checkpoint),
        "steps": run.state.step,
        "samples": run.state.pairs,
        "best_validation_error": run.state.best if math.isfinite(run.state.best) else None,
        "skipped": skipped,
    }


def default_processes(here: Workers) -> int:
    """How many processes decode ahead. On a GPU, as many as there are cores, up to 12 per worker.

    On a CPU none: training keeps all cores busy, and a process that decodes beside it costs more than it gains.
    """
    if here.device.type != "cuda":
        return 0
    return max(1, min(12, (os.cpu_count() or 1) // here.local_count - 1))
