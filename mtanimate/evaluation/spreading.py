"""The clips of an evaluation, measured by the workers of a cluster."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from mtanimate.checkpoints.registry import resolve
from mtanimate.cluster.connection import Nodes
from mtanimate.cluster.workers import Identity, Workers, given_up, this_node, unseen
from mtanimate.devices import choose_device
from mtanimate.errors import InputError
from mtanimate.evaluation.clip_results import ClipResult
from mtanimate.evaluation.run import EvaluationPlan, EvaluationRun, Outcome, Task, measured
from mtanimate.evaluation.samples import SampleFolders
from mtanimate.metrics.detector_pool import DetectorChoice

Said = tuple[ClipResult | str, list[str]]  # by a worker: the result, or why the clip is skipped; and remarks


@dataclass(frozen=True)
class ClipOptions:
    """How every worker measures.

    Attributes:
        checkpoint: A name or a file, as it was given.
        plan, choice, every, precision, device: As `EvaluationRun` takes them; the plan without its tasks.
        settings: Of the run, with which every worker's must agree.
        samples: Where samples are written.
        folders: They exist, and every node must see them.
        processes: That detect landmarks, in each worker.
    """

    checkpoint: str
    plan: EvaluationPlan
    choice: DetectorChoice
    every: int
    precision: str
    device: str
    settings: dict[str, Any]
    samples: SampleFolders
    folders: list[Path]
    processes: int


def on_cluster(
    checkpoint: str,
    run: EvaluationRun,
    samples: SampleFolders,
    out: Path,
    nodes: Nodes,
    log: Callable[[str], None],
    tasks: Sequence[Task],
) -> Generator[Outcome, None, None]:
    """Measure tasks on a cluster, in any order.

    Args:
        checkpoint: The run's, as it was given.
        run: What is measured. Workers have runs of their own, with the same settings.
        samples: Where workers write samples.
        out: The evaluation's folder, with its settings.
        nodes: The cluster.
        log: Gets remarks and warnings.
        tasks: What is measured.

    Raises:
        InputError: A node does not see a file, or its checkpoint or a detector is another.
        MTAnimateError: Something cannot be written, or no worker is left.
    """
    if not tasks:
        return
    folders = [*filter(None, (samples.videos, samples.frames))]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    room = nodes.room()
    options = ClipOptions(
        checkpoint, replace(run.plan, tasks=()), run.choice, run.every, run.precision, "cuda" if room.gpus else "cpu",
        run.settings, samples, [out / "settings.json", *folders], max(1, int(room.cores)),
    )  # fmt: skip
    crew = Workers(nodes, log)
    with closing(crew.spread(partial(ClusterClips, options), _lost, tasks)) as said:
        for task, (outcome, remarks) in said:
            for line in remarks:
                log(line)
            yield task, outcome, crew.state


def _lost(task: Task) -> Said:
    return f"{task.name}: {given_up('measured it')}", []


class ClusterClips:
    """Measures clips in a worker of a cluster. Raises InputError where it would not measure as the run does."""

    def __init__(self, options: ClipOptions, agreed: Identity | None) -> None:
        if why := unseen(options.folders):
            raise InputError(why)
        run = EvaluationRun(
            resolve(options.checkpoint), options.plan, options.choice, options.every, options.precision,
            choose_device(options.device),
        )  # fmt: skip
        for name, here in run.settings.items():
            if here != options.settings[name]:
                raise InputError(
                    f"{name} is {here}, and {options.settings[name]} for this run: give all nodes the same"
                )
        self._remarks: list[str] = []
        self._evaluator = run.evaluator(ExitStack(), options.samples, options.processes, self._remarks.append)
        self._remarks.clear()  # of its device, as every worker would make it
        self._one_at_a_time = Lock()  # on a GPU, a worker is given two

    def identity(self) -> Identity:
        """Nothing more: each has compared its settings with the run's."""
        return {}

    def perform(self, task: Task, before: Said | None) -> Iterator[Said]:
        """What becomes of a task. before: It was said already."""
        if before is not None:
            return
        if why := unseen(task.files):
            raise InputError(f"node {this_node()}: {why}")
        with self._one_at_a_time:
            outcome = measured(task, self._evaluator)
            remarks, self._remarks[:] = [*self._remarks], []
        yield outcome, remarks
