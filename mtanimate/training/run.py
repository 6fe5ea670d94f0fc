"""A training run: draw, step, log, validate, checkpoint; its folder; and how it is stopped."""

import hashlib
import math
import signal
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn

import torch
import yaml
from filelock import FileLock, Timeout

from mtanimate.config import Config, TrainingConfig, to_mapping
from mtanimate.data.cache import Cache, is_cache
from mtanimate.data.caching import cache_frames
from mtanimate.data.clips import Split
from mtanimate.data.loading import RawBatch, load_batches
from mtanimate.data.pairs import PairDataset
from mtanimate.errors import InputError, Interrupted, MTAnimateError
from mtanimate.files import NOT_TEXT, clear_leftovers, replacing
from mtanimate.outputs import refuse_foreign
from mtanimate.signals import listened_to
from mtanimate.training.checkpointing import Checkpointer, RunState, is_state, make_animator
from mtanimate.training.distribution import Workers
from mtanimate.training.metrics import LogEntry, RunLog, Score, Throughput
from mtanimate.training.step import Step, Trainer, TrainingModule, check_phases, schedule

# The first line of a run's config.yaml. It shows that a folder is a run's before it holds a state.
MARK = "# Written by mtanimate train: the settings of this run.\n"
BAD_STEPS = 10  # in a row, after which the run ends
_PATIENCE = 10  # seconds to wait for a folder's lock: decoding processes notice late that their run was killed
_WRITTEN = ("config.yaml", "log.jsonl", "pictures", "state", "checkpoints", "tensorboard")


@dataclass(frozen=True)
class Progress:
    """What is shown of a run after each step.

    Attributes:
        step: The number of steps taken.
        steps: The number of steps of the whole run.
        losses: The weighted losses of this step.
        samples_per_second: Pairs of frames per second, over the last steps.
        data_wait: The share of the time that was spent waiting for data, over the last steps.
        seconds_left: The time that the remaining steps will take.
        score: The latest validation, if any.
    """

    step: int
    steps: int
    losses: dict[str, float]
    samples_per_second: float
    data_wait: float
    seconds_left: float
    score: Score | None


class Run:
    """A training run and its folder.

    The folder has `config.yaml`, `log.jsonl`, `pictures/`, `state/last.pt`, `checkpoints/*.safetensors` and perhaps
    `cache/`. The first worker writes them.
    """

    def __init__(
        self,
        folder: Path,
        config: Config,
        split: Split,
        workers: Workers,
        *,
        precision: str = "fp32",
        init: Path | None = None,
        processes: int = 0,
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Make the network, the optimiser and the data set. Nothing is written yet.

        Args:
            folder: The run's folder.
            config: The settings.
            split: The clips to train on, and those to validate on.
            workers: The processes of the run.
            precision: "fp32", "bf16" or "fp16".
            init: A checkpoint to begin with.
            processes: How many processes decode ahead; 0 decodes in this one.
            log: Called with each line that a user should read.

        Raises:
            InputError: The settings contradict each other, do not fit the data or `init`, or name missing files.
        """
        self.folder, self.config, self.workers, self.processes, self.log = folder, config, workers, processes, log
        training = config.training
        if training.batch_size % (workers.count * training.accumulate):
            raise InputError(
                f"a batch of {training.batch_size} pairs cannot be shared evenly by {workers.count} workers in "
                f"{training.accumulate} parts each: change --batch-size"
            )
        check_phases(config)
        torch.manual_seed(training.seed)
        animator = make_animator(config, init).to(workers.device).channels_last()
        self.trainer = Trainer(TrainingModule(animator, config, precision, workers), training, workers)
        self.dataset = PairDataset(split.train, config)
        self.steps = self._steps_of(training)
        clips = f"{len(split.train)} ({_fingerprint(self.dataset.names)})"
        trainer = self.trainer
        self.state = RunState(config, clips, animator, trainer.ema, trainer.optimizer, trainer.scaler)
        self.checkpointer = Checkpointer(folder, config, split, self.state, log)
        self.skipped: Counter[str] = Counter()
        self.bad_in_a_row = 0

    def resume(self, file: Path | None = None) -> bool:
        """Go on from a saved state.

        Args:
            file: The state, whose settings may differ; None for the last state in the run's folder.

        Returns:
            Whether there was a state.

        Raises:
            InputError: The file is no state or of another network, or the folder's last state has other settings or
                other clips.
        """
        if file is None and not self.checkpointer.state_file.exists():
            return False
        for line in self.state.load(file or self.checkpointer.state_file, changed=file is not None):
            self.log(f"changed: {line}")
        self._say_of_other_steps(self._steps_of(self.state.saved_with.training))
        return True

    def cache(self, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Decode the first clips into the folder's `cache`, as many as fit into `data.cache_gib`, and read them there.

        With `data.cache`, nothing is done.

        Args:
            progress: Called with the number of clips looked at, and of all clips.

        Raises:
            MTAnimateError: The disk is full.
        """
        data, folder = self.config.data, self.folder / "cache"
        if data.cache or not data.cache_gib:
            return
        if self.workers.first:
            cache_frames(self.dataset.clips, folder, self.dataset.raw.resolution, data.cache_gib * 2**30, progress)
        self.workers.wait()
        if is_cache(folder):  # not on another machine that does not share the folder
            self.dataset.use(Cache(folder))

    def train(self, report: Callable[[Progress], None] = lambda progress: None) -> Path:
        """Take the steps that are left.

        Args:
            report: Called after each step, by the first worker.

        Returns:
            The last checkpoint.

        Raises:
            Interrupted: On Ctrl-C, SIGTERM or SIGHUP, after the state was saved.
            MTAnimateError: Losses stay not finite, or the disk is full at the end.
        """
        run_log = self._open_folder() if self.workers.first else None
        try:
            with StopRequest() as stop:
                self._loop(run_log, report, stop)
        finally:
            if run_log is not None:
                run_log.close()
        return self.checkpointer.path

    def _loop(self, run_log: RunLog | None, report: Callable[[Progress], None], stop: "StopRequest") -> None:
        """Draw, step, then log, validate and checkpoint, where each is due."""
        throughput, entry = Throughput(), LogEntry(self.config.loss)
        self.trainer.module.train()
        with closing(self._load()) as batches:  # its processes end now, not with this process
            while self.state.step < self.steps:
                parts = self._draw(batches, throughput)
                step = self._step(parts, throughput, stop.signal > 0)
                if run_log is not None:
                    self._record(step, throughput, run_log, entry)
                    report(self._progress(step, throughput, entry.score))
                if step.stop:
                    self._stop(stop.signal or signal.SIGTERM)

    def _load(self) -> Generator[RawBatch, None, None]:
        return load_batches(
            self.dataset,
            start=self.state.pairs,
            processes=self.processes,
            pinned=self.workers.device.type == "cuda",
            rank=self.workers.rank,
            count=self.workers.count,
        )

    def _draw(self, batches: Iterator[RawBatch], throughput: Throughput) -> list[RawBatch]:
        """The parts of this worker's share of the next batch. Clips that could not be read are named once."""
        with throughput.waiting():
            parts = [next(batches) for _ in range(self.config.training.accumulate)]
        for line in (line for part in parts for line in part.skipped):
            if not self.skipped[line]:
                self.log(f"skipped: {line}")
            self.skipped[line] += 1
        return parts

    def _step(self, parts: list[RawBatch], throughput: Throughput, stop: bool) -> Step:
        """Raises MTAnimateError after `BAD_STEPS` bad steps in a row."""
        step = self.trainer.train_step(parts, self.state.step, self.steps, stop)
        self.state.step += 1
        self.state.pairs += self.config.training.batch_size
        throughput.step(self.config.training.batch_size)
        self.bad_in_a_row = self.bad_in_a_row + 1 if step.bad else 0
        if step.bad and self.workers.first:
            self.log(f"step {self.state.step} skipped: {step.bad}")
        if self.bad_in_a_row == BAD_STEPS:
            raise MTAnimateError(
                f"the last {BAD_STEPS} steps, to step {self.state.step}, were not finite ({step.bad}): lower "
                f"training.learning_rate, or give --precision fp32; '{self.checkpointer.state_file}' is as it was"
            )
        return step

    def _record(self, step: Step, throughput: Throughput, run_log: RunLog, entry: LogEntry) -> None:
        """Validate, log, draw and checkpoint, each where it is due. A full disk does not end the run.

        The state comes last: a run that is killed before it goes on from an earlier one, and logs this step again.
        """
        training, number = self.config.training, self.state.step
        entry.add(step)
        last = number == self.steps
        due = (number % training.checkpoint_every == 0 and not step.bad) or last
        if due:
            entry.score = self.checkpointer.score()
        try:
            if number % training.log_every == 0 or due:
                run_log.write(entry.take(number, self.state.pairs, throughput, with_score=due))
            if step.scene is not None and number % training.picture_every == 0 and not step.bad:
                run_log.draw(step.scene, number)
        except (OSError, MTAnimateError) as error:
            self.log(f"not written at step {number}: {error}")
        if due:
            (self.checkpointer.keep if last else self.checkpointer.try_to_keep)(entry.score)
        elif not step.bad:
            self.checkpointer.save_in_between()

    def _progress(self, step: Step, throughput: Throughput, score: Score | None) -> Progress:
        left = (self.steps - self.state.step) * throughput.seconds_per_step
        speed, wait = throughput.pairs_per_second, throughput.data_wait
        return Progress(self.state.step, self.steps, step.terms, speed, wait, left, score)

    def _stop(self, number: int) -> NoReturn:
        """Save and end, as the signal of this number asked for."""
        if self.workers.first:
            self.checkpointer.keep(self.checkpointer.score())
        self.workers.wait()  # a launcher ends all workers as soon as one has ended
        said = f"stopped at step {self.state.step}, saved: the same command goes on"
        raise Interrupted(said if self.workers.first else "", number)

    def _open_folder(self) -> RunLog:
        try:
            for name in (".", "pictures", "state", "checkpoints"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
                clear_leftovers(self.folder / name)
            with replacing(self.folder / "config.yaml") as partial:
                partial.write_text(
                    MARK + yaml.safe_dump(to_mapping(self.config), sort_keys=False), "utf-8", newline="\n"
                )
            run_log = RunLog(self.folder, self.state.step, self.config.training.tensorboard)
        except OSError as error:
            raise _unwritable(self.folder, error) from error
        self.skipped.update(self.checkpointer.prepare())  # named already: not again when they are drawn
        return run_log

    def _steps_of(self, training: TrainingConfig) -> int:
        return training.steps or math.ceil(len(self.dataset) * training.epochs / training.batch_size)

    def _say_of_other_steps(self, before: int) -> None:
        """The number of steps may change when a run goes on, but its learning rate falls over all of them."""
        at, training = self.state.step, self.config.training
        old, new = (training.learning_rate * schedule(training, min(at, of), of) for of in (before, self.steps))
        if old != new and at < self.steps:
            self.log(
                f"changed: training.steps: {before} -> {self.steps}: the learning rate, which falls over all of them, "
                f"goes on at {new:.2g}, not {old:.2g}"
            )


def _fingerprint(names: list[str]) -> str:
    """A digest of the names of clips and stills, by which a run is not resumed on other data unnoticed."""
    return hashlib.sha256("\n".join(names).encode("utf-8", NOT_TEXT)).hexdigest()[:12]


@contextmanager
def claim(folder: Path) -> Iterator[None]:
    """Keep other runs out of a run's folder while the block runs. However it ends, the system releases the lock.

    Args:
        folder: The run's folder; made where it is missing.

    Raises:
        MTAnimateError: Another process trains in it.
        InputError: It cannot be written in, or has files of these names that are not a run's.
    """
    lock = FileLock(folder / "lock")
    _refuse_foreign(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=_PATIENCE)
    except Timeout as error:
        raise MTAnimateError(
            f"--out: another training is at work in '{folder}': wait for its end, or choose another folder"
        ) from error
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        yield
    finally:
        lock.release()


def _refuse_foreign(folder: Path) -> None:
    """Raises InputError where the folder is not a run's, and has something in it that a run would write over."""
    config = folder / "config.yaml"
    known = config.is_file() and config.read_bytes().startswith(MARK.encode())
    if not known and not is_state(folder / "state" / "last.pt"):
        refuse_foreign("--out", [folder / name for name in _WRITTEN])


def _unwritable(folder: Path, error: OSError) -> InputError:
    return InputError(f"--out: cannot write in '{folder}' ({error.strerror}): make room, or choose another folder")


class StopRequest:
    """Remembers, while it is entered, the first signal that asks the process to end.

    A Ctrl-C after that ends the process as usual. Another SIGTERM does not: launchers and batch systems send it to
    workers that have had one. Outside the main thread signals are left alone.

    Attributes:
        signal: The number of the signal; 0 while there was none.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in listened_to():
                self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.signal = self.signal or number
        if signal.SIGINT in self._before:
            signal.signal(signal.SIGINT, self._before[signal.SIGINT])
