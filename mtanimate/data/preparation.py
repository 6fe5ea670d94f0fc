"""The command `data prepare`: cut square clips to train on out of raw videos, and list them in a manifest."""

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

from mtanimate.cluster.connection import ClusterOptions, Nodes, connect
from mtanimate.cluster.workers import Identity, Workers, given_up, this_node, unseen
from mtanimate.data.planning import ListedClip, clip_names, plan_by_face, plan_by_rows, raw_videos, read_metadata
from mtanimate.data.preparation_journal import Cut, CutPlan, PreparationJournal
from mtanimate.data.raw_videos import Cutter
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.faces import detection as faces
from mtanimate.files import clear_leftovers
from mtanimate.outputs import check_folder, claim
from mtanimate.reading import check_readable

Log = Callable[[str], None]


@dataclass(frozen=True)
class PreparationResult:
    """What was prepared. written, already_there: Clips. skipped: How many clips or videos, by reason."""

    out: str
    manifest: str
    videos: int
    written: int
    already_there: int
    skipped: dict[str, int]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class _Outcome:
    """What became of one raw video, named as the user knows it."""

    video: str
    written: int = 0
    already_there: int = 0
    skipped: list[str] = field(default_factory=list)

    def skip(self, error: InputError, path: Path) -> None:
        """path: Of the raw video, which need not be named again."""
        self.skipped.append(str(error).removeprefix(str(path)).strip())


def prepare(
    raw: str | Path,
    out: str | Path,
    *,
    metadata: str | Path | None = None,
    size: int = 256,
    workers: int | None = None,
    on_cluster: ClusterOptions | None = None,
    progress: Callable[..., None] = lambda done, total, note="": None,
    log: Log = lambda line: None,
) -> PreparationResult:
    """Cut clips out of raw videos. Clips that an earlier run finished are not made again.

    Args:
        raw: The folder of the raw videos.
        out: The folder for the clips.
        metadata: A CSV that lists the clips; without one, the largest face in each video is followed.
        size: The side of the clips, in pixels; even.
        workers: How many raw videos are worked on at a time; by default one per processor. On a cluster: workers, at
            most; by default as many as it has room for.
        on_cluster: Which Ray cluster makes the clips, and how; None: this process does.
        progress: Called with the raw videos done, all raw videos, and a note.
        log: Called with a line for each video or clip that is skipped, with the reason.

    Raises:
        InputError: Folders, options or the CSV are wrong, dlib is needed and missing, or the cluster cannot be used.
        MTAnimateError: The disk is full, another run writes `out`, no clip was made, or no node of the cluster is left.
    """
    started = time.monotonic()
    raw, out = Path(raw).expanduser(), Path(out).expanduser()
    if size < 2 or size % 2:
        raise InputError(f"--size {size}: H.264 needs an even number of pixels")
    jobs = _by_metadata(raw, out, Path(metadata), log) if metadata else _by_face(raw, out, log)
    with claim(out):
        _make_folder(out)
        preparation = _Preparation(raw, out, size)
        if on_cluster:
            with connect(on_cluster, "cpu", workers) as nodes:
                return _prepare(preparation, jobs, preparation.on_cluster(jobs, nodes, log), started, progress, log)
        here = preparation.here(jobs, workers or os.cpu_count() or 1)
        return _prepare(preparation, jobs, here, started, progress, log)


def _prepare(
    preparation: "_Preparation",
    jobs: list["_Job"],
    made: Generator[_Outcome, None, None],
    started: float,
    progress: Callable[..., None],
    log: Log,
) -> PreparationResult:
    total: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    try:
        progress(0, len(jobs))
        with closing(made) as outcomes:
            for done, outcome in enumerate(outcomes, 1):
                total.update(written=outcome.written, already_there=outcome.already_there)
                skipped.update(outcome.skipped)
                for reason, count in Counter(outcome.skipped).items():
                    log(f"skipped {outcome.video}: {reason}" + (f" ({count} times)" if count > 1 else ""))
                progress(done, len(jobs), f"{total.total()} clips")
    except BaseException:
        with suppress(MTAnimateError):  # the first error is the one to report
            preparation.journal.write_manifest()
        raise
    manifest = preparation.journal.write_manifest()
    if not total.total():
        (reason, _), *_ = skipped.most_common(1)
        raise MTAnimateError(f"no clip came of the {len(jobs)} videos of {preparation.raw}: {reason}")
    return PreparationResult(
        out=str(preparation.out),
        manifest=str(manifest),
        videos=len(jobs),
        written=total["written"],
        already_there=total["already_there"],
        skipped=dict(skipped),
        seconds=round(time.monotonic() - started, 1),
    )


@dataclass(frozen=True)
class _Job:
    """One raw video, by its face or by rows of a CSV. name: Of its clips, by face. source: "" where it is missing."""

    video: str
    source: str
    name: str = ""
    rows: tuple[ListedClip, ...] = ()


def _by_face(raw: Path, out: Path, log: Log) -> list[_Job]:
    sources = raw_videos(raw, out, log)
    faces.check_installed()
    return [_Job(source, source, name=name) for source, name in clip_names(sources).items()]


def _by_metadata(raw: Path, out: Path, metadata: Path, log: Log) -> list[_Job]:
    rows: dict[str, list[ListedClip]] = {}
    for row in read_metadata(metadata):
        rows.setdefault(row.video, []).append(row)
    found = {PurePosixPath(source).stem: source for source in reversed(raw_videos(raw, out, log))}
    return [_Job(video, found.get(video, ""), rows=tuple(lines)) for video, lines in rows.items()]


def _make_folder(out: Path) -> None:
    """Make the folder, and remove what a run that was killed left unfinished. No other run is writing there."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        for folder in (out, out / "train", out / "test"):
            clear_leftovers(folder)
    except OSError as error:
        raise InputError(f"{out}: cannot be made a folder of clips ({error.strerror}): choose another --out") from error
    check_folder(out / "manifest.csv")


class _Preparation:
    """What all raw videos have in common."""

    def __init__(self, raw: Path, out: Path, size: int) -> None:
        self.raw = raw
        self.out = out
        self.size = size
        self.journal = PreparationJournal(out)
        self._cutter = Cutter()

    def here(self, jobs: Sequence[_Job], workers: int) -> Generator[_Outcome, None, None]:
        """Make the clips of all raw videos, `workers` at a time, in any order. An exception ends all work at once."""
        with ThreadPoolExecutor(workers) as pool:
            try:
                for future in as_completed([pool.submit(self._video, job) for job in jobs]):
                    yield future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self._cutter.stop()
                raise

    def on_cluster(self, jobs: Sequence[_Job], nodes: Nodes, log: Log) -> Generator[_Outcome, None, None]:
        """The same by the workers of a cluster. They plan and cut; between both, the plan is written down here."""
        steps = _Steps(_Step(job, self._known(job)) for job in jobs)
        planned: dict[str, _Outcome] = {}
        make = partial(_ClusterCutter, self.raw, self.out, self.size, any(not job.rows for job in jobs))
        with closing(Workers(nodes, log).spread(make, _lost, steps)) as said:
            for step, value in said:
                video = step.job.video
                if isinstance(value, CutPlan):
                    outcome = planned[video] = _Outcome(video)
                    if cuts := self._begin(value, outcome):
                        steps.cuttings.append(replace(step, known=None, cuts=cuts))
                    else:
                        yield planned.pop(video)
                elif isinstance(value, _Outcome):
                    outcome = planned.pop(video, _Outcome(video))
                    outcome.written += value.written
                    outcome.skipped += value.skipped
                    yield outcome

    def _video(self, job: _Job) -> _Outcome:
        """Make those clips of one raw video that are not there yet."""
        outcome = _Outcome(job.video)
        path = self.raw / job.source

        def count(_: Cut) -> None:
            outcome.written += 1

        try:
            plan = self._known(job) or _plan(self.raw, job, self.size, self._cutter.check)
            self._cutter.cut(path, self._begin(plan, outcome), self.out, count)
        except InputError as error:
            outcome.skip(error, path)
        return outcome

    def _known(self, job: _Job) -> CutPlan | None:
        """What following the face through this video gave before, unless the file has changed since."""
        if job.rows:
            return None
        try:
            known = self.journal.tracked(job.source, (self.raw / job.source).stat().st_size)
        except OSError:  # whoever plans it says why
            return None
        return known and replace(known, cuts=[replace(cut, size=self.size) for cut in known.cuts])

    def _begin(self, plan: CutPlan, outcome: _Outcome) -> list[Cut]:
        """Write a plan down. Returns the clips to cut: none where a file that was not made here has the name of one."""
        outcome.skipped += plan.skipped
        left = self.journal.left(plan)
        outcome.already_there = len(plan.cuts) - len(left)
        try:
            self.journal.add(plan)
        except InputError as error:
            outcome.skip(error, self.raw)
            return []
        return left


def _plan(raw: Path, job: _Job, size: int, check: Callable[[], None]) -> CutPlan:
    """Raises InputError for a video that is damaged or missing. check: As `plan_by_face` calls it."""
    if not job.source:
        raise InputError("the raw video is missing")
    if job.rows:
        return plan_by_rows(raw, job.source, job.rows, size)
    check_readable(raw / job.source, "video")
    return plan_by_face(raw, job.source, job.name, size, check)


@dataclass(frozen=True)
class _Step:
    """What a worker of a cluster does with a raw video: it plans, or it cuts.

    known: The plan, where it is known already. cuts: What to cut; empty: the video is to be planned.
    """

    job: _Job
    known: CutPlan | None = None
    cuts: Sequence[Cut] = ()


class _Steps:
    """Plans to make, and before these all cuts that are to be made by then. After its end it may have more."""

    def __init__(self, plans: Iterable[_Step]) -> None:
        self._plans = iter(plans)
        self.cuttings: deque[_Step] = deque()

    def __iter__(self) -> Iterator[_Step]:
        return self

    def __next__(self) -> _Step:
        return self.cuttings.popleft() if self.cuttings else next(self._plans)


def _lost(step: _Step) -> _Outcome:
    return _Outcome(step.job.video, skipped=[given_up(f"{'cut' if step.cuts else 'planned'} its clips")])


_BEGUN = "begun"


class _ClusterCutter:
    """Plans and cuts in a worker of a cluster. Raises InputError where it cannot. by_face: Whether faces are needed."""

    def __init__(self, raw: Path, out: Path, size: int, by_face: bool, agreed: Identity | None) -> None:
        if why := unseen([raw, out]):
            raise InputError(why)
        if by_face:
            faces.check_installed()
        self._raw, self._out, self._size = raw, out, size
        self._cutter = Cutter()

    def identity(self) -> Identity:
        return {"the version of imageio-ffmpeg": version("imageio-ffmpeg")}

    def perform(self, step: _Step, before: CutPlan | _Outcome | str | None) -> Iterator[CutPlan | _Outcome | str]:
        """A plan, which has been written down before its cuts come as a step of their own; or `_BEGUN` and what became
        of the cuts. Of a video that fails, the outcome says why."""
        if isinstance(before, (CutPlan, _Outcome)):  # all is said
            return
        path = self._raw / step.job.source
        if why := unseen([path]):
            raise InputError(f"node {this_node()}: {why}")
        outcome = _Outcome(step.job.video)
        try:
            if not step.cuts:
                yield step.known or _plan(self._raw, step.job, self._size, self._cutter.check)
                return
            yield _BEGUN
            self._cut(path, step.cuts, before == _BEGUN, outcome)
        except InputError as error:
            outcome.skip(error, path)
        yield outcome

    def _cut(self, path: Path, cuts: Sequence[Cut], again: bool, outcome: _Outcome) -> None:
        """again: A worker that was lost had begun. What it has finished is not made again."""
        left = [cut for cut in cuts if not (again and (self._out / cut.file).is_file())]
        outcome.written = len(cuts) - len(left)

        def count(_: Cut) -> None:
            outcome.written += 1

        self._cutter.cut(path, left, self._out, count)
