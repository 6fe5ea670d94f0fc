"""`train`: everything checked, then one run."""

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from mtanimate.checkpoints.file import read_metadata
from mtanimate.config import load_preset, override
from mtanimate.data.clips import find_clips
from mtanimate.data.pairs import PairSampler
from mtanimate.devices import choose_device, describe_device
from mtanimate.errors import InputError
from mtanimate.training.run import Report, Run


def train(
    dataset: str | Path,
    *,
    preset: str = "small",
    out: str | Path | None = None,
    settings: list[str] | None = None,
    resume: bool = True,
    init: str | Path | None = None,
    device: str = "auto",
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Train on the videos in the folder `dataset` and return where the last checkpoint lies.

    settings: `key=value` over the preset's. resume: go on from the state in `out`, where there is one; without
    it a folder with a state is refused. progress(step, steps, note); say(line).
    Raises InputError for wrong options, data or files before anything is computed.
    """
    config = override(load_preset(preset), settings or [])
    clips = find_clips(Path(dataset).expanduser(), "train")
    chosen = choose_device(device)
    folder = Path(out).expanduser() if out else Path("runs") / f"{preset}-{date.today().isoformat()}"
    if not resume and (folder / "state").exists():
        raise InputError(f"--out {folder} holds a run already: choose another folder, or --resume auto")
    start = Path(init).expanduser() if init else None
    if start is not None:
        read_metadata(start)  # a wrong file is said before the clips are decoded

    say(f"device {describe_device(chosen)}; {len(clips)} clips from {dataset}; run in {folder}")
    sampler = PairSampler(clips, config.model.resolution, config.data)
    say(f"{len(sampler.identities)} identities; {sampler.cached_bytes / 2**30:.1f} GiB of frames in memory")
    run = Run(folder, config, sampler, chosen, start)
    if run.resume():
        say(f"resuming at step {run.state.step}")

    def report(at: Report) -> None:
        losses = " ".join(f"{name} {value:.4f}" for name, value in at.losses.items())
        progress(at.step, at.steps, f"{losses}; {at.samples_per_second:.1f} samples/s")

    checkpoint = run.train(report)
    return {
        "run": str(folder),
        "checkpoint": str(checkpoint),
        "steps": run.state.step,
        "samples": run.state.samples,
    }
