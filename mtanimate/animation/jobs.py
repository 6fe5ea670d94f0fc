"""`animate --jobs`: the rows of a file, performed here by threads or by the workers of a cluster."""

import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from mtanimate import storage
from mtanimate.animation.animate import run_job
from mtanimate.animation.attending import LONGEST_SILENCE, Alive, Stopped, attend
from mtanimate.animation.job_report import JobReport
from mtanimate.animation.job_rows import Counts, JobRow, JobsFile, check_rows
from mtanimate.animation.settings import Job, Settings
from mtanimate.checkpoints.registry import file_given
from mtanimate.cluster.connection import ClusterOptions, connect
from mtanimate.cluster.workers import Identity, Workers, given_up, this_node, unseen
from mtanimate.credentials import Credentials
from mtanimate.devices import Precision
from mtanimate.errors import MTAnimateError
from mtanimate.files import exists_already, taken
from mtanimate.inference.loading import load_network, names_export
from mtanimate.outputs import claim
from mtanimate.reading import MAX_PIXELS

LARGEST_DOWNLOAD = 16 << 30  # bytes of a file at a URL

Log = Callable[[str], None]
Entry = dict[str, Any]  # of the report


@dataclass(frozen=True)
class JobsSummary:
    """How many rows are done, were done before, and failed; and the report, which has lines for each row."""

    done: int
    skipped: int
    failed: int
    report: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def run_jobs(
    file: str | Path,
    *,
    checkpoint: str = "default",
    device: str = "auto",
    precision: Precision = "auto",
    backend: str = "auto",
    batch_size: int | None = None,
    allow_code: bool = False,
    max_pixels: int = MAX_PIXELS,
    credentials: tuple[str | Path, str | Path] | None = None,
    overwrite: bool = False,
    workers: int | None = None,
    on_cluster: ClusterOptions | None = None,
    progress: Callable[..., None] = lambda done, total, note="": None,
    log: Log = lambda line: None,
    **settings: Any,
) -> JobsSummary:
    """Perform every row of a jobs file that is not finished yet; a row that fails does not stop the others, nor one
    that hangs: without a new frame for `LONGEST_SILENCE` it counts as failed.

    A row is finished when its `out` is there and `FILE.report.jsonl`, which gets lines for each, says that this very
    row made it. Rows are read as they are needed, so that there may be millions.

    Args:
        file: The jobs file, as `JobsFile` reads it.
        checkpoint, device, precision, backend, batch_size, allow_code, max_pixels, credentials: As `animate` has them.
        overwrite: Replace what exists at the rows' outputs.
        workers: Rows at a time; None: two on a GPU, one on a CPU, which is busy with one. On a cluster: workers, at
            most; None: as many as it has room for.
        on_cluster: Which Ray cluster performs the rows, and how; None: this process does.
        progress: Called as progress(done, total, note), counting rows.
        log: Gets a line for each row that fails, and remarks.
        **settings: The fields of `Settings`, for rows that do not say otherwise.

    Raises:
        InputError: The file or an option is wrong, or the cluster cannot be used.
        MTAnimateError: Another run performs the same file, or no node of the cluster is left.
    """
    path = Path(file).expanduser()
    jobs = JobsFile(path, Settings(**settings))
    report_file = path.with_name(f"{path.name}.report.jsonl")
    options = RowOptions(
        checkpoint, device, precision, backend, batch_size, allow_code, max_pixels, credentials, overwrite
    )
    with claim(report_file):
        report = JobReport(report_file)
        counts = check_rows(jobs, report.finished)
        if counts.finished == counts.total:
            return JobsSummary(0, counts.total, 0, str(report_file))
        signing = options.signing()
        if signing:
            for row in _left(jobs, report):
                signing.check(Path(row.out), row.settings.codec)
        # Nobody has looked whether a result at a URL is there.
        asked = (Asked(row, (made := report.made(row)), made and row.has_urls) for row in _left(jobs, report))
        if on_cluster:
            said = _on_cluster(options, on_cluster, asked, workers, log)
        else:
            said = _here(options, signing, asked, workers, log)
        tally = _Tally(counts, progress)
        with closing(said) as entries:
            for each, entry, state in entries:
                report.write(each.row, entry)
                if entry["status"] == "failed":
                    log(f"line {each.row.line}: {entry['error']}")
                tally.count(entry, state)
        return JobsSummary(tally.done, counts.finished, tally.failed, str(report_file))


def _left(jobs: JobsFile, report: JobReport) -> Iterator[JobRow]:
    return (row for row in jobs if not report.was_finished(row))


class _Tally:
    """How many rows and frames are made, for the progress."""

    def __init__(self, counts: Counts, progress: Callable[..., None]) -> None:
        self.done = self.failed = 0
        self._counts, self._progress = counts, progress
        self._frames, self._began = 0, time.monotonic()
        progress(counts.finished, counts.total)

    def count(self, entry: Entry, state: str) -> None:
        """An entry of the report. state: of the cluster, in words; empty without one."""
        self.done += entry["status"] == "done"
        self.failed += entry["status"] == "failed"
        self._frames += entry.get("frames", 0)
        seconds = max(time.monotonic() - self._began, 1e-6)
        rows = self.done + self.failed
        notes = [f"{self.failed} failed"] * bool(self.failed)
        notes += [f"{self._frames / seconds:.0f} frames/s"] * bool(rows)
        notes += [state] * bool(state)
        self._progress(self._counts.finished + rows, self._counts.total, ", ".join(notes))


@dataclass(frozen=True)
class RowOptions:
    """What holds for all rows of a run: the options of `animate` that are no `Settings`."""

    checkpoint: str
    device: str
    precision: Precision
    backend: str
    batch_size: int | None
    allow_code: bool
    max_pixels: int
    credentials: tuple[str | Path, str | Path] | None
    overwrite: bool

    def signing(self) -> Credentials | None:
        """What results are signed with. Raises as `Credentials.read`."""
        return Credentials.read(*self.credentials) if self.credentials else None


@dataclass(frozen=True)
class Asked:
    """A row to perform.

    made: Whether exactly this row made its outputs, if there were any when the report was read. perhaps_done: Whether
    its `out`, if there is one, can only be its own, made by a worker that was lost.
    """

    row: JobRow
    made: bool
    perhaps_done: bool = False


def _here(
    options: RowOptions, signing: Credentials | None, asked: Iterator[Asked], workers: int | None, log: Log
) -> Generator[tuple[Asked, Entry, str], None, None]:
    """The rows, performed by threads that share a network: each with the lines of its report."""
    performer = RowPerformer(options, signing, log)
    count = workers or (2 if performer.loaded.device.type == "cuda" else 1)
    with closing(attend(performer.perform, hung, asked, count)) as said:
        for each, entry in said:
            yield each, entry, ""


def _on_cluster(
    options: RowOptions, on_cluster: ClusterOptions, asked: Iterator[Asked], workers: int | None, log: Log
) -> Generator[tuple[Asked, Entry, str], None, None]:
    """The same, performed by the workers of a cluster."""
    with (
        connect(on_cluster, options.device, workers) as nodes,
        closing((crew := Workers(nodes, log)).spread(partial(ClusterRows, options), lost, asked)) as said,
    ):
        for each, entry in said:
            yield each, entry, crew.state


class RowPerformer:
    """Performs rows with one loaded network. Several threads may do so at a time."""

    def __init__(self, options: RowOptions, signing: Credentials | None, log: Log = lambda line: None) -> None:
        self._options, self._signing = options, signing
        self.loaded = load_network(
            options.checkpoint, options.device, options.precision, options.backend, log, options.batch_size,
            options.allow_code,
        )  # fmt: skip

    def perform(self, asked: Asked, alive: Alive) -> Iterator[Entry]:
        """The lines of the report for one row: that it began, and what became of it."""
        row = asked.row
        try:
            replacing = self._options.overwrite or (asked.made and row.files["save_motion"] is not None)
            with claim(*(file for file in row.outputs if isinstance(file, Path))):
                there = storage.exists(row.out) if isinstance(row.out, str) else taken(row.out)
                if asked.perhaps_done and there:
                    yield {"status": "done", "out": storage.shown(str(row.out))}
                    return
                if not row.has_urls:
                    row.job.check(row.settings, replacing, file_given(self._options.checkpoint))
                yield {"status": "begun", "new": asked.made or not there}
                with _local(row, replacing, alive) as job:
                    result = run_job(
                        job, row.settings, lambda: self.loaded, alive, _nothing,
                        gpu=self.loaded.device.type == "cuda", overwrite=replacing,
                        max_pixels=self._options.max_pixels, credentials=self._signing,
                    )  # fmt: skip
            yield {"status": "done", **result.as_dict(), "out": storage.shown(str(row.out))}
        except Stopped:
            return
        except Exception as error:  # whatever it is, it is this row's: the others go on
            yield _failed(str(error) if isinstance(error, MTAnimateError) else f"{type(error).__name__}: {error}")


@contextmanager
def _local(row: JobRow, overwrite: bool, alive: Alive) -> Iterator[Job]:
    """The row's job, with files at URLs in a temporary folder: inputs are fetched, outputs sent when they are made."""
    if not row.has_urls:
        yield row.job
        return
    for target in row.outputs:
        if isinstance(target, str) and not overwrite and storage.exists(target):
            raise exists_already(storage.shown(target))
    with tempfile.TemporaryDirectory(prefix="mtanimate-row-") as scratch:
        files: dict[str, Any] = dict(row.files)
        urls = {name: file for name, file in row.files.items() if isinstance(file, str)}
        sent = {name: url for name, url in urls.items() if name in ("out", "save_motion")}
        for name, url in urls.items():
            made = Path(scratch, storage.local_name(url))
            files[name] = made if name in sent else storage.fetch(url, Path(scratch), LARGEST_DOWNLOAD, alive)
        job = Job(**files)
        job.check(row.settings, overwrite)
        yield job
        for name, url in sent.items():
            storage.upload(files[name], url, overwrite, alive)


def hung(asked: Asked) -> Entry:
    """What the report says of a row that hangs."""
    minutes = f"{LONGEST_SILENCE / 60:g} minutes"
    return _failed(f"no new frame for {minutes}: it was given up; does a disk, a network share or a file hang?")


def lost(asked: Asked) -> Entry:
    """What the report says of a row on which worker after worker was lost."""
    return _failed(given_up("performed it"))


def _failed(why: str) -> Entry:
    return {"status": "failed", "error": " ".join(why.split())}


def _nothing(*said: object) -> None:
    """Rows run side by side: of their own remarks nothing is shown."""


class ClusterRows:
    """Performs rows in a worker of a cluster."""

    def __init__(self, options: RowOptions, agreed: Identity | None) -> None:
        if options.backend == "auto" and not names_export(options.checkpoint):
            options = replace(options, backend="torch")  # not every node may have an installed export
        if agreed:  # --precision auto is measured, and may come out otherwise
            options = replace(options, precision=cast(Precision, agreed["precision"]))
        self._performer = RowPerformer(options, options.signing())

    def identity(self) -> Identity:
        loaded = self._performer.loaded
        return {"the checkpoint's SHA-256": loaded.sha256, "precision": loaded.precision, "backend": loaded.backend}

    def perform(self, asked: Asked, before: Entry | None) -> Iterator[Entry]:
        """As `RowPerformer.perform`. before: the last that a lost worker said of this row."""
        here = this_node()
        if before is not None and before.get("new"):
            asked = replace(asked, made=True, perhaps_done=True)
        if why := unseen(file for file in asked.row.inputs if isinstance(file, Path)):
            yield _failed(f"node {here}: {why}, or a URL")
            return
        with closing(attend(self._performer.perform, hung, [asked], 1)) as said:
            for _, entry in said:
                yield entry | {"node": here}
