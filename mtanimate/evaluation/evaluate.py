"""Which clips are measured."""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from mtanimate.checkpoints.file import read_checkpoint, read_config
from mtanimate.checkpoints.registry import resolve
from mtanimate.config import preset_names
from mtanimate.data.clips import Clip, find_clips, left_out, look_through
from mtanimate.devices import Precision, choose_device, choose_precision, describe_device
from mtanimate.errors import InputError
from mtanimate.evaluation import cross as cross_identity
from mtanimate.evaluation import evaluator as reconstruction
from mtanimate.evaluation.evaluator import Bench
from mtanimate.evaluation.rows import Row, Rows, Shard
from mtanimate.evaluation.samples import Keeping
from mtanimate.evaluation.summary import METHOD, PAIRS_METHOD, summarise
from mtanimate.files import sha256
from mtanimate.inference.predictor import Predictor
from mtanimate.metrics.detectors import Choice, Detector, MeshChoice, open_detector
from mtanimate.metrics.gestures import DEFINITION, GESTURES
from mtanimate.metrics.measures import DEFAULT, METRICS, Lpips, Metric, parse_metrics
from mtanimate.metrics.observer import Observer
from mtanimate.outputs import claim


def find_test_clips(dataset: str | Path, data: str | Path | None) -> tuple[Path, dict[str, Clip]]:
    """The folder, and its clips by their names: paths below it, without extension.

    dataset: a folder of clips, of which its folder `test` is taken where there is one; or a preset's name, whose
    clips are in `data` (default `data/NAME`). Raises InputError where there are none, or two have one name.
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


Mode = Literal["relative", "absolute"]
Progress = Callable[..., None]
Log = Callable[[str], None]


class Task(Protocol):
    """One clip, or pair of clips, to be measured."""

    @property
    def name(self) -> str: ...

    def digest(self) -> str:
        """The SHA-256 of the files' content."""

    def measure(self, bench: Bench, digest: str) -> Row:
        """Raises InputError for a broken clip."""


@dataclass(frozen=True)
class Plan:
    """What is measured: tasks, the metrics of each, how, in words, and whether motion is transferred relatively.

    gestures: whether those of faces are measured too, by the face mesh.
    """

    kind: str
    definition: str
    tasks: Sequence[Task]
    metrics: list[Metric]
    relative: bool
    gestures: bool


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
    out: str | Path | None = None,
    videos: str | Path | None = None,
    frames: str | Path | None = None,
    shard: str = "1/1",
    device: str = "auto",
    precision: Precision = "fp32",
    workers: int | None = None,
    progress: Progress = lambda done, total, note="": None,
    log: Log = lambda line: None,
) -> dict[str, Any]:
    """Reconstruct the clips of a data set and measure how well: the figures, as `--json` prints them.

    dataset: a folder of clips (its folder `test` where it has one), or a preset's name with the clips in `data`.
    metrics: `l1`, and AKD, MKR and AED both ways, unless given. cross: instead of reconstructing, drive people by
    others' clips: so many random pairs, drawn by `seed`, or a CSV of pairs; by `mode`, as `animate` has it. sources: a
    folder of photographs, which the random pairs have for sources.
    detector: `faces`, `face-alignment`, `bodies`, or `none`; openpose, features: folders of what other programs found.
    every: use one of so many frames. out: where the figures go, and a row a clip, so that the same call goes on where
    it was ended. videos, frames: folders for the reconstructions beside the truth. shard: `2/4` measures the second
    of four parts only. workers: processes that look for landmarks. progress(done, total, note) counts clips.
    Raises InputError for a wrong option or file, MTAnimateError where something cannot be written or another run
    measures the same part.
    """
    part = Shard.parse(shard)
    file = resolve(checkpoint)
    where, clips = find_test_clips(dataset, data)
    for line in left_out(where, look_through(where)[1]):
        log(line)
    choice = Choice(detector, _folder(openpose), _folder(features))
    if cross is None and sources is not None:
        raise InputError(f"--sources {sources}: photographs are driven between people: add --cross N")
    if cross is None:
        plan = _reconstruction(clips, metrics or ",".join(DEFAULT))
    elif metrics is not None:
        raise InputError(f"--metrics {metrics}: motion between people has no truth that these could be measured on")
    else:
        plan = _between_people(clips, str(cross), _folder(sources), mode, seed, choice)
    measuring = Measuring(file, plan, choice, every, precision, device)
    if measuring.no_mesh:
        log(f"gestures by the face mesh are left out: {measuring.no_mesh}")
    folder = _folder(out) or default_folder(checkpoint, where, plan.kind)
    _check_videos(_folder(videos), clips)
    with claim(folder if part.count == 1 else folder / f"{part.index}-of-{part.count}"):
        own = part.of(plan.tasks)
        keeping = Keeping(folder / "strips", _folder(videos), _folder(frames))
        keeping.check(task.name for task in own)
        rows = Rows(folder, measuring.settings)
        measured, skipped = measuring.run(own, rows, keeping, workers or os.cpu_count() or 1, progress, log)
        result: dict[str, Any] = {"checkpoint": checkpoint, "dataset": str(where), "out": str(folder)}
        if part.count > 1:
            return result | {"shard": shard, "videos": len(measured), "skipped": skipped}
        if not measured:
            raise InputError(f"no clip of '{where}' could be measured: {skipped[0]}")
        result |= {"kind": plan.kind} | summarise(measured, plan.metrics, measuring.reasons)
        if measuring.no_mesh:
            result["reasons"]["gestures"] = measuring.no_mesh
        if measuring.detector and result["without_subject"]["generated"] == result["frames"]:
            missing = measuring.detector.subject
            log(f"warning: no {missing} in any frame: for other subjects --detector faces, bodies or none")
        result |= {"skipped": skipped, "definitions": measuring.definitions(), "settings": rows.settings}
        rows.write_tables(measured, plan.metrics)
        rows.write_result(result)
    return result


def default_folder(checkpoint: str, dataset: Path, kind: str) -> Path:
    """`runs/eval-default-videos`, or `runs/eval-mine-best-videos` for runs/mine/checkpoints/best.safetensors."""
    path = Path(checkpoint)
    run = [path.parent.parent.name] if path.parent.name == "checkpoints" else []
    kinds = [] if kind == "reconstruction" else [kind]
    return Path("runs") / "-".join(["eval", *kinds, *run, path.stem, dataset.resolve().name])


def _check_videos(videos: Path | None, clips: dict[str, Clip]) -> None:
    """Raises InputError where the videos to be written would take the clips' places."""
    for name, clip in clips.items():
        if videos and clip.path.exists() and (path := videos / f"{name}.mp4").exists() and path.samefile(clip.path):
            raise InputError(f"--videos {videos} holds the clips that are measured: choose another folder")


def _reconstruction(clips: dict[str, Clip], metrics: str) -> Plan:
    names = parse_metrics(metrics)
    tasks = [reconstruction.Reconstruction(name, clip, names) for name, clip in clips.items()]
    chosen = [METRICS[name] for name in names]
    return Plan("reconstruction", reconstruction.DEFINITION, tasks, chosen, relative=False, gestures=False)


def _between_people(
    clips: dict[str, Clip], pairs: str, sources: Path | None, mode: Mode, seed: int, choice: Choice
) -> Plan:
    if choice.detector == "none" or choice.stored:
        raise InputError("--cross needs a detector that looks at pictures: --detector faces or bodies")
    tasks = cross_identity.transfers(pairs, clips, seed, sources)
    since = ", since the driving frame nearest to the source" if mode == "relative" else ""
    definition = f"{cross_identity.DEFINITION}. Motion is {mode}{since}"
    kind = f"cross-{mode}" if sources is None else f"cross-{mode}-photographs"
    relative, faces = mode == "relative", choice.detector != "bodies"
    return Plan(kind, definition, tasks, cross_identity.METRICS, relative, gestures=faces)


class Measuring:
    """A checkpoint and what it is measured with; nothing is loaded until there is something to measure.

    settings: all that figures depend on. reasons: why a metric cannot be measured, by its name. no_mesh: why gestures
    cannot be, though they are to be.
    Raises InputError where a detector or a package is missing, or the options do not fit each other.
    """

    def __init__(
        self, checkpoint: Path, plan: Plan, choice: Choice, every: int, precision: Precision, device: str
    ) -> None:
        self.checkpoint, self.plan, self.choice, self.every = checkpoint, plan, choice, every
        if every < 1:
            raise InputError(f"--every {every}: one of so many frames, at least 1")
        self.device = choose_device(device)
        self.precision = choose_precision(precision, self.device)
        needs = {metric.needs for metric in plan.metrics}
        observes = bool(needs & {"landmarks", "descriptors"}) and (choice.detector != "none" or bool(choice.openpose))
        self.detector: Detector | None = open_detector(choice) if observes else None
        self.mesh, self.no_mesh = _open_mesh() if plan.gestures else (None, "")
        self.describes = "descriptors" in needs
        self.lpips = Lpips(self.device) if "lpips" in needs else None
        self.resolution = read_config(checkpoint).model.resolution

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "kind": self.plan.kind,
            "checkpoint": sha256(self.checkpoint),
            "resolution": self.resolution,
            "every": self.every,
            "metrics": [metric.name for metric in self.plan.metrics],
            "precision": self.precision,
            "subject": self.detector and self.detector.subject,
            "detector": self.detector and self.detector.name,
            "identity": self.detector and self.describes and self.detector.identity,
            "lpips": self.lpips and self.lpips.name,
            "mesh": self.mesh and self.mesh.name,
            "reference": "best" if self.plan.relative else None,
        }

    @property
    def reasons(self) -> dict[str, str]:
        if self.detector is None:
            seen = [metric.name for metric in self.plan.metrics if metric.needs in ("landmarks", "descriptors")]
            return dict.fromkeys(seen, "no detector: --detector none")
        if self.detector.identity is None:
            unknown = [metric.name for metric in self.plan.metrics if metric.needs == "descriptors"]
            return dict.fromkeys(unknown, self.detector.no_identity)
        return {}

    def definitions(self) -> dict[str, str]:
        """What the figures are, in words."""
        side = self.resolution
        words = {
            "kind": self.plan.definition,
            "frames": "every frame" if self.every == 1 else f"one of {self.every} frames, from the first on",
            "values": "RGB in [0, 1]; generated frames as the network gives them, not rounded, not encoded; detectors "
            "see them rounded to 8 bits",
            "size": f"the centred square of the true frame, {side} x {side} by anti-aliased bicubic resizing where it "
            "is another size, rounded to 8 bits; pixels are of this size",
            "mean": "a video's figure is over its frames, `metrics` the mean over videos, `over_frames` over all "
            "frames of all videos together",
            "interval": METHOD,
            "precision": self.precision,
        }
        if self.detector is not None:
            words["detector"] = self.detector.name
            words["missing"] = (
                "a landmark missing in either frame does not count for AKD; one missing in the generated frame alone "
                "counts for MKR; a frame without a subject, true or generated, does not count for AED; a video where "
                "nothing is left has no figure and does not count in the mean (`without_subject` counts frames)"
            )
            if self.describes and self.detector.identity:
                words["identity"] = self.detector.identity
        if self.lpips is not None:
            words["lpips network"] = self.lpips.name
        if self.mesh is not None:
            words |= {"mesh": self.mesh.name, "gestures": DEFINITION, "gestures.interval": PAIRS_METHOD}
            words |= {f"gestures.{name}": gesture.definition for name, gesture in GESTURES.items()}
        return words | {metric.name: metric.definition for metric in self.plan.metrics}

    def run(
        self, tasks: Sequence[Task], rows: Rows, keeping: Keeping, workers: int, progress: Progress, log: Log
    ) -> tuple[list[Row], list[str]]:
        """The rows of all tasks, measured before or now, and for each that could not be why."""
        found: list[Row] = []
        skipped: list[str] = []
        digests = {task.name: task.digest() for task in tasks}
        left = [task for task in tasks if rows.get(task.name, digests[task.name]) is None]
        if len(left) < len(tasks):
            log(f"{len(tasks) - len(left)} of {len(tasks)} videos were measured before")
        with ExitStack() as stack:
            bench = self._bench(stack, keeping, workers, log) if left else None
            frames, seconds = 0, 0.0
            for done, task in enumerate(tasks, 1):
                row = rows.get(task.name, digests[task.name])
                if row is None:
                    assert bench is not None
                    try:
                        row = task.measure(bench, digests[task.name])
                    except InputError as error:
                        skipped.append(str(error))
                        log(f"skipped: {error}")
                        continue
                    rows.put(row)
                    frames, seconds = frames + row.frames, seconds + sum(row.seconds.values())
                found.append(row)
                progress(done, len(tasks), f"{frames / seconds:.1f} frames/s" if seconds else "")
        return found, skipped

    def _bench(self, stack: ExitStack, keeping: Keeping, workers: int, log: Log) -> Bench:
        animator = read_checkpoint(self.checkpoint, self.device).animator
        predictor = Predictor(animator, self.precision, log)
        observer = mesh = None
        if self.detector is not None:
            observer = stack.enter_context(Observer(self.choice, identity=self.describes, processes=workers))
        if self.mesh is not None:
            mesh = stack.enter_context(Observer(MeshChoice(), identity=False, processes=workers))
        log(f"device {describe_device(self.device)}, {self.precision}; {self.resolution} x {self.resolution}")
        return Bench(predictor, self.plan.relative, observer, mesh, self.lpips, keeping, self.every, log)


def _open_mesh() -> tuple[Detector | None, str]:
    """The face mesh, or why there is none: other figures do not need it."""
    try:
        return open_detector(MeshChoice()), ""
    except InputError as error:
        return None, str(error)


def _folder(path: str | Path | None) -> Path | None:
    return Path(path).expanduser() if path is not None else None
