"""The network that a run begins with."""

import hashlib
import math
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
import yaml
from filelock import FileLock, Timeout

from mtanimate.checkpoints.file import mismatches, read_checkpoint
from mtanimate.config import Config, TrainingConfig, to_mapping
from mtanimate.data.cache import Cache, is_cache
from mtanimate.data.caching import cache_frames
from mtanimate.data.clips import Split
from mtanimate.data.loading import RawBatch, load_batches
from mtanimate.data.pairs import PairDataset
from mtanimate.errors import InputError, Interrupted, MTAnimateError
from mtanimate.files import clear_leftovers, replacing
from mtanimate.models.animator import Animator, outline
from mtanimate.models.hrnet import HRNet, load_imagenet_weights
from mtanimate.outputs import refuse_foreign
from mtanimate.signals import listened_to
from mtanimate.tensors import read_weights
from mtanimate.training.checkpointing import Checkpointer, RunState, is_state
from mtanimate.training.distribution import Workers
from mtanimate.training.metrics import LogEntry, RunLog, Score, Throughput
from mtanimate.training.step import Step, Trainer, TrainingModule, check_phases, schedule


def make_animator(config: Config, init: Path | None) -> Animator:
    """A new network, or one that begins with another run's weights, whose settings may differ in what does not
    show in weights. Raises InputError where they do not fit."""
    outline(config.model)  # it says so where there would be too many weights to make
    animator = Animator(config.model)
    if config.training.backbone_file:
        file = Path(config.training.backbone_file).expanduser()
        weights = read_weights(file, "ImageNet weights of HRNet", "check --backbone-weights")
        backbone = animator.motion_estimator.backbone
        assert isinstance(backbone, HRNet)  # other estimators have none, and their configuration says so
        load_imagenet_weights(backbone, weights)
    if init is not None:
        weights = read_checkpoint(init).animator.state_dict()
        if config.model.dense_motion.residual:  # a network without one begins with none: it is zero at first
            fresh = animator.dense_motion.state_dict(prefix="dense_motion.")
            weights = {name: value for name, value in fresh.items() if ".residual." in name} | weights
        mismatched = mismatches(animator.state_dict(), weights)
        if mismatched:
            raise InputError(f"--init {init} has another network: {mismatched}")
        animator.load_state_dict(weights)
    return animator


# Seconds. Decoding processes, which notice after some that theirs was killed, hold on to its claim as long.
_PATIENCE = 10


def unwritable(folder: Path, error: OSError) -> InputError:
    return InputError(f"--out: cannot write in '{folder}' ({error.strerror}): make room, or choose another folder")


# The first line of a run's config.yaml, by which the folder is known for a run's before it holds a state.
MARK = "# Written by mtanimate train: the settings of this run.\n"
_WRITTEN = ("config.yaml", "log.jsonl", "pictures", "state", "checkpoints", "tensorboard")


def _refuse_foreign(folder: Path) -> None:
    """Raises InputError where this is no run's folder, and has something in it that a run would write over."""
    config = folder / "config.yaml"
    known = config.is_file() and config.read_bytes().startswith(MARK.encode())
    if not known and not is_state(folder / "state" / "last.pt"):
        refuse_foreign("--out", [folder / name for name in _WRITTEN])


@contextmanager
def claim(folder: Path) -> Iterator[None]:
    """The folder, made if need be, is this process's. However that ends, the system takes the claim back.

    Raises MTAnimateError where another process has it, InputError where the folder cannot be written in or holds files
    of others by names of ours.
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
        raise unwritable(folder, error) from error
    try:
        yield
    finally:
        lock.release()


class StopRequest:
    """While it is entered, remembers the first signal that asks for the end; a Ctrl-C after it ends the process as
    usual.

    Another SIGTERM does not: launchers and batch systems send it to a worker that has had its own.
    signal: its number, 0 while there is none. Outside the main thread signals are left alone.
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


BAD_STEPS = 10  # in a row, and the run ends


@dataclass(frozen=True)
class Progress:
    """Of one step, to whoever shows progress.

    losses: weighted, of this step. samples_per_second (pairs of frames) and data_wait (the share of the time in
    which the device waited for data): of the last steps. score: of the latest validation.
    """

    step: int
    steps: int
    losses: dict[str, float]
    samples_per_second: float
    data_wait: float
    seconds_left: float
    score: Score | None


class Run:
    """A run's folder and everything that trains in it.

    The folder has `config.yaml`, `log.jsonl`, `pictures/`, `state/last.pt`, `checkpoints/*.safetensors` and perhaps
    `cache/`; the first worker writes them. processes: that decode ahead. log(line): what a user should know.
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
        clips = f"{len(split.train)} ({fingerprint(self.dataset.names)})"
        trainer = self.trainer
        self.state = RunState(config, clips, animator, trainer.ema, trainer.optimizer, trainer.scaler)
        self.checkpointer = Checkpointer(folder, config, split, self.state, log)
        self.skipped: Counter[str] = Counter()
        self.bad_in_a_row = 0

    def resume(self, file: Path | None = None) -> bool:
        """Go on from `file`, settings changed or not; or from the folder's last state; False where it has none.

        Raises InputError where the folder's last state is of other settings or other clips.
        """
        if file is None and not self.checkpointer.state_file.exists():
            return False
        for line in self.state.load(file or self.checkpointer.state_file, changed=file is not None):
            self.log(f"changed: {line}")
        self._say_of_other_steps(self._steps_of(self.state.saved_with.training))
        return True

    def _steps_of(self, training: TrainingConfig) -> int:
        return training.steps or math.ceil(len(self.dataset) * training.epochs / training.batch_size)

    def _say_of_other_steps(self, before: int) -> None:
        """More or fewer steps than the run had before may be taken, but its learning rate falls over all of them."""
        at, training = self.state.step, self.config.training
        old, new = (training.learning_rate * schedule(training, min(at, of), of) for of in (before, self.steps))
        if old != new and at < self.steps:
            self.log(
                f"changed: training.steps: {before} -> {self.steps}: the learning rate, which falls over all of them, "
                f"goes on at {new:.2g}, not {old:.2g}"
            )

    def cache(self, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Decode the first clips, as many as fit into `data.cache_gib`, into the folder's `cache`, and read them from
        there; not where there is a `data.cache`.

        progress(clips looked at, clips in all). Raises MTAnimateError where there is no room.
        """
        data, folder = self.config.data, self.folder / "cache"
        if data.cache or not data.cache_gib:
            return
        if self.workers.first:
            cache_frames(self.dataset.clips, folder, self.config.model.resolution, data.cache_gib * 2**30, progress)
        self.workers.wait()
        if is_cache(folder):  # not on another machine that does not share the folder
            self.dataset.use(Cache(folder))

    def train(self, report: Callable[[Progress], None] = lambda report: None) -> Path:
        """Take the steps that are left; returns the last checkpoint.

        Raises Interrupted on Ctrl-C, SIGTERM or SIGHUP, the state saved; MTAnimateError where losses stay not finite.
        """
        run_log = self._open_folder() if self.workers.first else None
        try:
            with StopRequest() as stop:
                self._take_steps(run_log, report, stop)
        finally:
            if run_log is not None:
                run_log.close()
        return self.checkpointer.path

    def _take_steps(self, run_log: RunLog | None, report: Callable[[Progress], None], stop: StopRequest) -> None:
        throughput, log, batches = Throughput(), LogEntry(self.config.loss), self._load()
        self.trainer.module.train()
        while self.state.step < self.steps:
            step = self._step(batches, throughput, stop.signal > 0)
            if run_log is not None:
                self._record(step, throughput, run_log, log)
                report(self._report(step, throughput, log))
            if step.stop:
                if run_log is not None:
                    self.checkpointer.keep(self.checkpointer.score())
                self.workers.wait()  # a launcher ends all as soon as one has ended
                said = f"stopped at step {self.state.step}, saved: the same command goes on"
                raise Interrupted(said if self.workers.first else "", stop.signal or signal.SIGTERM)

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
            raise unwritable(self.folder, error) from error
        self.skipped.update(self.checkpointer.prepare())  # said once, whoever draws them again
        return run_log

    def _load(self) -> Iterator[RawBatch]:
        return load_batches(
            self.dataset,
            start=self.state.pairs,
            processes=self.processes,
            pinned=self.workers.device.type == "cuda",
            rank=self.workers.rank,
            count=self.workers.count,
        )

    def _step(self, batches: Iterator[RawBatch], throughput: Throughput, stop: bool) -> Step:
        with throughput.waiting():
            parts = [next(batches) for _ in range(self.config.training.accumulate)]
        for line in (line for part in parts for line in part.skipped):
            if not self.skipped[line]:
                self.log(f"skipped: {line}")
            self.skipped[line] += 1
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

    def _record(self, step: Step, throughput: Throughput, run_log: RunLog, log: "LogEntry") -> None:
        """LogEntry, picture and checkpoint of a step, each where it is due. A full disk does not end the run.

        The state comes last: a run that is killed before goes on from an earlier one, and logs this step again.
        """
        training, number = self.config.training, self.state.step
        log.add(step)
        last = number == self.steps
        due = (number % training.checkpoint_every == 0 and not step.bad) or last
        if due:
            log.score = self.checkpointer.score()
        try:
            if number % training.log_every == 0 or due:
                run_log.write(log.entry(number, self.state.pairs, throughput, with_score=due))
            if step.scene is not None and number % training.picture_every == 0 and not step.bad:
                run_log.draw(step.scene, number)
        except (OSError, MTAnimateError) as error:
            self.log(f"not written at step {number}: {error}")
        if due:
            (self.checkpointer.keep if last else self.checkpointer.try_to_keep)(log.score)
        elif not step.bad:
            self.checkpointer.save_in_between()

    def _report(self, step: Step, throughput: Throughput, log: "LogEntry") -> Progress:
        left = (self.steps - self.state.step) * throughput.seconds_per_step
        return Progress(
            self.state.step, self.steps, step.terms, throughput.pairs_per_second, throughput.data_wait, left, log.score
        )


def fingerprint(names: list[str]) -> str:
    """Of the names of clips and stills, so that a run is not resumed on other data unawares."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:12]
