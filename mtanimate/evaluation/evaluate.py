"""Use case `eval`: which clips are measured, in what way, and the run over them."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from mtanimate.animation.settings import Mode
from mtanimate.checkpoints.registry import resolve
from mtanimate.cluster.connection import ClusterOptions, Nodes, connect
from mtanimate.config import preset_names
from mtanimate.data.clips import Clip, find_clips, left_out, look_through
from mtanimate.devices import Precision, choose_device, choose_precision
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.evaluation.clip_results import GENERATED, ResultsFolder
from mtanimate.evaluation.run import EvaluationPlan, EvaluationRun
from mtanimate.evaluation.samples import SampleFolders
from mtanimate.evaluation.spreading import on_cluster as measure_on_cluster
from mtanimate.evaluation.summary import summarise
from mtanimate.evaluation.tasks import (
    AT_OWN_SIZE,
    RECONSTRUCTION,
    REENACTMENT,
    REENACTMENT_METRICS,
    Reconstruction,
    reenactments,
)
from mtanimate.faces.framing import parse_resolution
from mtanimate.metrics.detector_pool import DetectorChoice
from mtanimate.metrics.measures import DEFAULT, DEFAULT_AT_OWN_SIZE, METRICS, parse_metrics
from mtanimate.outputs import claim
from mtanimate.signals import child_environment

Progress = Callable[..., None]
Log = Callable[[str], None]
T = TypeVar("T")


def evaluate(
    checkpoint: str,
    dataset: str | Path,
    *,
    data: str | Path | None = None,
    metrics: str | None = None,
    detector: str = "faces",
    openpose: str | Path | None = None,
    features: str | Path | None = None,
    cross: str | int | None = None,
    sources: str | Path | None = None,
    mode: Mode = "relative",
    seed: int = 0,
    every: int = 1,
    resolution: str | int | None = None,
    out: str | Path | None = None,
    videos: str | Path | None = None,
    frames: str | Path | None = None,
    shard: str = "1/1",
    device: str = "auto",
    precision: Precision = "fp32",
    workers: int | None = None,
    on_cluster: ClusterOptions | None = None,
    progress: Progress = lambda done, total, note="": None,
    log: Log = lambda line: None,
) -> dict[str, Any]:
    """Reconstruct the clips of a data set from their first frames and measure how well.

    With `cross`, people are driven by the clips of others instead. The same call goes on where it was ended.

    Args:
        checkpoint: A checkpoint's name or file.
        dataset: A folder of clips (its folder `test` where it has one), or a preset's name.
        data: Where a preset's clips are; None for `data/NAME`.
        metrics: Names of metrics between commas; None for `l1` and AKD, MKR and AED in both ways, and with `resolution`
            also for `psnr`, `ssim` and `sharpness`.
        detector: What detects landmarks: `faces`, `face-alignment`, `bodies`, or `none`.
        openpose: A folder of keypoints that OpenPose found, which take the place of the detector's landmarks.
        features: A folder of identity features of any network, which take the place of the detector's.
        cross: How many random pairs of people, or a CSV file of pairs.
        sources: A folder of photographs, which are the sources of the random pairs.
        mode: How `cross` transfers motion, as `animate` has it.
        seed: Draws the random pairs.
        every: One of this many frames is used.
        resolution: The largest side, in pixels, of results that are rendered and measured at the source's own size, or
            `auto`: 1440; None measures all at the network's resolution.
        out: The evaluation's folder; None for one below `runs`.
        videos: A folder for videos of the results beside the truth.
        frames: A folder for the single frames of both.
        shard: `2/4` measures only the second of four parts.
        device: Where the network runs.
        precision: What the network computes in.
        workers: Processes that detect landmarks; None for one per core. On a cluster: workers, at most; None for as
            many as it has room for. Each has a process that detects landmarks for each of its cores.
        on_cluster: Which Ray cluster measures the clips, and how; None: this process does.
        progress: Is called with how many clips are done, how many there are, and a note.
        log: Gets remarks and warnings.

    Returns:
        The result, as `--json` prints it.

    Raises:
        InputError: An option or a file is wrong, or the cluster cannot be used.
        MTAnimateError: Something cannot be written, another run measures the same part, or no node of the cluster is
            left.
    """
    part = Shard.parse(shard)
    if on_cluster and part.count > 1:
        raise InputError(f"--shard {shard} cuts an evaluation by hand, and --cluster does it by itself: leave out one")
    file = resolve(checkpoint)
    where, clips = find_test_clips(dataset, data)
    for line in left_out(where, look_through(where)[1]):
        log(line)
    choice = DetectorChoice(detector, _folder(openpose), _folder(features))
    if cross is None and sources is not None:
        raise InputError(f"--sources {sources}: photographs are driven between people: add --cross N")
    largest = None if resolution is None else parse_resolution(str(resolution))
    if cross is None:
        plan = _reconstruction_plan(clips, metrics, largest)
    elif metrics is not None:
        raise InputError(f"--metrics {metrics}: motion between people has no truth that these could be measured on")
    else:
        plan = _reenactment_plan(clips, str(cross), _folder(sources), mode, seed, choice, largest)
    folder = _folder(out) or default_folder(checkpoint, where, plan.kind)
    _check_videos(_folder(videos), clips)
    cluster: AbstractContextManager[Nodes | None]
    cluster = connect(on_cluster, device, workers) if on_cluster else nullcontext()
    with claim(folder if part.count == 1 else folder / f"{part.index}-of-{part.count}"), cluster as nodes:
        run = EvaluationRun(file, plan, choice, every, *_computing(nodes, device, precision))
        if run.no_mesh:
            log(f"gestures by the face mesh are left out: {run.no_mesh}")
        own = part.of(plan.tasks)
        samples = SampleFolders(folder / "strips", _folder(videos), _folder(frames))
        samples.check(task.name for task in own)
        results = ResultsFolder(folder, run.settings)
        measuring = partial(run.here, samples, workers or os.cpu_count() or 1, log)
        if nodes:
            measuring = partial(measure_on_cluster, checkpoint, run, samples, folder, nodes, log)
        measured, skipped = run.measure(own, results, measuring, progress, log)
        result: dict[str, Any] = {"checkpoint": checkpoint, "dataset": str(where), "out": str(folder)}
        if part.count > 1:
            return result | {"shard": shard, "videos": len(measured), "skipped": skipped}
        if not measured:
            raise InputError(f"no clip of '{where}' could be measured: {skipped[0]}")
        result |= {"kind": plan.kind} | summarise(measured, plan.metrics, run.reasons)
        if run.no_mesh:
            result["reasons"]["gestures"] = run.no_mesh
        if run.detector and result["without_subject"][GENERATED] == result["frames"]:
            missing = run.detector.subject
            log(f"warning: no {missing} in any frame: for other subjects --detector faces, bodies or none")
        result |= {"skipped": skipped, "definitions": run.definitions(), "settings": results.settings}
        results.write_tables(measured, plan.metrics)
        results.write_result(result)
    return result


def run_shards(devices: Sequence[str], arguments: Sequence[str]) -> None:
    """Run `mtanimate ARGUMENTS` once on each device, each with its part of the clips, and wait for all of them.

    Only the first shows its progress; all of them show their errors. Raises MTAnimateError where one of them failed.
    """
    processes = []
    for index, device in enumerate(devices, 1):
        own = ["--shard", f"{index}/{len(devices)}", "--device", device, *["--quiet"] * (index > 1)]
        command = [sys.executable, "-m", "mtanimate", *arguments, *own]
        processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, env=child_environment()))
    try:
        codes = [process.wait() for process in processes]
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
    killed = [-code for code in codes if code < 0]
    if killed:
        raise MTAnimateError(
            f"a part of the evaluation was ended by signal {killed[0]}: is memory short? What is measured is kept, "
            " and the same command goes on"
        )
    if any(codes):
        raise MTAnimateError("a part of the evaluation failed; what is measured is kept, and the same command goes on")


def find_test_clips(dataset: str | Path, data: str | Path | None) -> tuple[Path, dict[str, Clip]]:
    """The folder of a data set's test clips, and the clips by their names: paths below it, without extension.

    Args:
        dataset: A folder of clips, of which the folder `test` is taken where there is one; or a preset's name.
        data: Where a preset's clips are; None for `data/NAME`.

    Raises:
        InputError: There are no clips, or two have the same name.
    """
    if str(dataset) in preset_names():  # `./NAME` is a folder
        folder = Path(data).expanduser() if data else Path("data") / str(dataset)
    else:
        folder = Path(data or dataset).expanduser()
    if not folder.is_dir():
        raise InputError(f"--dataset {dataset}: no folder '{folder}'; give the clips' folder, or a preset and --data")
    folder = folder / "test" if (folder / "test").is_dir() else folder
    clips: dict[str, Clip] = {}
    for clip in find_clips(folder):
        below = clip.path.relative_to(folder)
        name = (below if clip.path.is_dir() else below.with_suffix("")).as_posix()
        if name in clips:
            raise InputError(f"{clip.path} and {clips[name].path} have the same name: rename one")
        clips[name] = clip
    return folder, clips


def default_folder(checkpoint: str, dataset: Path, kind: str) -> Path:
    """`runs/eval-default-videos`; for runs/mine/checkpoints/best.safetensors `runs/eval-mine-best-videos`."""
    path = Path(checkpoint)
    run = [path.parent.parent.name] if path.parent.name == "checkpoints" else []
    kinds = [] if kind == "reconstruction" else [kind]
    return Path("runs") / "-".join(["eval", *kinds, *run, path.stem, dataset.resolve().name])


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count` parts, counted from 1."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read a text such as `2/4`. Raises InputError for anything else."""
        numbers = re.fullmatch(r"(\d+)/(\d+)", text)
        if not numbers or not 1 <= int(numbers[1]) <= int(numbers[2]):
            raise InputError(f"--shard {text}: expected I/N with I from 1 to N, as 2/4")
        return cls(int(numbers[1]), int(numbers[2]))

    def of(self, items: Sequence[T]) -> list[T]:
        """This part's items: every `count`-th, so that all parts of a sorted data set take about the same time."""
        return list(items[self.index - 1 :: self.count])


def _reconstruction_plan(clips: dict[str, Clip], metrics: str | None, largest: int | None) -> EvaluationPlan:
    default, definition = DEFAULT, RECONSTRUCTION
    if largest is not None:
        default, definition = DEFAULT_AT_OWN_SIZE, f"{RECONSTRUCTION}; {AT_OWN_SIZE}"
    names = parse_metrics(metrics or ",".join(default))
    tasks = [Reconstruction(name, clip, names) for name, clip in clips.items()]
    chosen = [METRICS[name] for name in names]
    return EvaluationPlan("reconstruction", definition, tasks, chosen, "absolute", gestures=False, largest=largest)


def _reenactment_plan(
    clips: dict[str, Clip],
    pairs: str,
    sources: Path | None,
    mode: Mode,
    seed: int,
    choice: DetectorChoice,
    largest: int | None,
) -> EvaluationPlan:
    if choice.detector == "none" or choice.stored:
        raise InputError("--cross needs a detector that looks at pictures: --detector faces or bodies")
    tasks = reenactments(pairs, clips, seed, sources)
    since = ", since the driving frame nearest to the source" if mode == "relative" else ""
    definition = f"{REENACTMENT}. Motion is {mode}{since}" + ("" if largest is None else f"; {AT_OWN_SIZE}")
    kind = f"cross-{mode}" if sources is None else f"cross-{mode}-photographs"
    return EvaluationPlan(kind, definition, tasks, REENACTMENT_METRICS, mode, choice.detector != "bodies", largest)


def _computing(nodes: Nodes | None, device: str, precision: Precision) -> tuple[str, torch.device]:
    """What networks compute in, and where those of this process do so."""
    if nodes is None:
        chosen = choose_device(device)
        return choose_precision(precision, chosen), chosen
    workers_have = torch.device("cuda" if nodes.room().gpus else "cpu")
    return choose_precision(precision, workers_have), torch.device("cpu")


def _check_videos(videos: Path | None, clips: dict[str, Clip]) -> None:
    """Raises InputError where the videos would replace the clips that are measured."""
    for name, clip in clips.items():
        if videos and clip.path.exists() and (path := videos / f"{name}.mp4").exists() and path.samefile(clip.path):
            raise InputError(f"--videos {videos} holds the clips that are measured: choose another folder")


def _folder(path: str | Path | None) -> Path | None:
    return Path(path).expanduser() if path is not None else None
