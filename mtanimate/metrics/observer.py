"""Landmarks and descriptors of pictures, found by several processes; those of true frames are kept for next time."""

import hashlib
import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from mtanimate.errors import InputError, MTAnimateError
from mtanimate.files import cache_folder, replacing
from mtanimate.metrics.detectors import Choice, Detector, Frames, open_detector
from mtanimate.reading import open_regular, read_array, read_json, read_npz
from mtanimate.signals import ENDING, leave_to_parent


@dataclass(frozen=True)
class Seen:
    """What a detector found in B pictures: landmarks (B, N, 2 or 3) in pixels, descriptors (B, D); NaN for nothing.

    descriptors is None where none were asked for, or the detector knows no identity.
    """

    landmarks: np.ndarray
    descriptors: np.ndarray | None

    def __len__(self) -> int:
        return len(self.landmarks)

    def __getitem__(self, part: slice) -> "Seen":
        return Seen(self.landmarks[part], None if self.descriptors is None else self.descriptors[part])

    def repeated(self, times: int) -> "Seen":
        """The first picture's, so many times."""
        rows = np.zeros(times, int)
        return Seen(self.landmarks[rows], None if self.descriptors is None else self.descriptors[rows])

    @property
    def without_subject(self) -> int:
        """In how many pictures nothing was found."""
        return int(np.isnan(self.landmarks).all(axis=(1, 2)).sum())

    @classmethod
    def joined(cls, parts: list["Seen"]) -> "Seen":
        descriptors = [part.descriptors for part in parts if part.descriptors is not None]
        landmarks = np.concatenate([part.landmarks for part in parts])
        return cls(landmarks, np.concatenate(descriptors) if descriptors else None)


class Observer:
    """Looks at pictures in processes of its own, since the detectors compute on one core each. Use it in a `with`.

    identity: whether descriptors are wanted. Raises InputError as `open_detector`.
    """

    def __init__(self, choice: Choice, *, identity: bool, processes: int) -> None:
        self.choice = choice
        self.detector = open_detector(choice)
        self.describes = identity and self.detector.identity is not None
        self._processes = processes
        # spawn: a forked copy of a process with PyTorch's threads may hang.
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(processes, context, _start_worker, (choice,))

    def look(self, frames: Frames) -> Seen:
        """What is found in these pictures. Raises InputError where stored files lack them, MTAnimateError where a
        process was ended."""
        size = math.ceil(len(frames.pictures) / self._processes)
        parts = [frames[start : start + size] for start in range(0, len(frames.pictures), size)]
        try:
            with _terminal_held():  # it starts processes
                found = self._pool.map(_look, parts, [self.describes] * len(parts))
            return Seen.joined(list(found))
        except BrokenProcessPool as error:
            message = "a process that looks for landmarks was ended: is memory short? Then lower --workers"
            raise MTAnimateError(message) from error

    def key(self, digest: str, *framing: object) -> str:
        """A name for what this detector finds in true frames: of a file of that SHA-256, decoded and framed so."""
        made_of = [digest, *framing, self.detector.name, self.detector.identity if self.describes else "", _DECODED]
        return hashlib.sha256("\n".join(map(str, made_of)).encode()).hexdigest()

    def __enter__(self) -> "Observer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)


@contextmanager
def _terminal_held() -> Iterator[None]:
    """Ctrl-C and SIGHUP wait, and never reach processes that are started meanwhile; Windows has no such thing."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_TERMINALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_MOST_BYTES = 4 << 30  # of what is kept of one clip
# SIGTERM is left to end one: so does the pool where another one is lost.
_OF_TERMINALS = set(ENDING) - {signal.SIGTERM}
_DECODED = "2"  # changes with the pixels that a file is decoded to
_detector: Detector  # of this process


def _start_worker(choice: Choice) -> None:
    global _detector
    leave_to_parent(*_OF_TERMINALS)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _detector = open_detector(choice)


def _end_with_parent() -> None:
    """A parent that is killed cannot tell its workers, and they would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _look(frames: Frames, describe: bool) -> Seen:
    landmarks = _detector.landmarks(frames)
    return Seen(landmarks, _detector.descriptors(frames, landmarks) if describe else None)


class TruthCache:
    """What was found in true frames, in `cache_folder()`."""

    def __init__(self) -> None:
        self.folder = cache_folder() / "landmarks"

    def get(self, key: str, frames: int) -> Seen | None:
        """None where it is not there, or broken."""
        try:
            stored = read_npz(self.folder / f"{key}.npz", ("landmarks", "descriptors"), _MOST_BYTES)
            landmarks, descriptors = stored["landmarks"], stored["descriptors"]
            whole = len(landmarks) == len(descriptors) == frames
            return Seen(landmarks, descriptors if descriptors.shape[1] else None) if whole else None
        except Exception:  # a broken archive raises nearly anything
            return None

    def put(self, key: str, seen: Seen) -> None:
        """Raises OSError where it cannot be written."""
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptors = np.empty((len(seen), 0)) if seen.descriptors is None else seen.descriptors
        with replacing(self.folder / f"{key}.npz") as partial:
            np.savez_compressed(partial, landmarks=seen.landmarks, descriptors=descriptors)


class OpenPose:
    """OpenPose's own JSON, a file a frame: FOLDER/truth/CLIP/*_keypoints.json in the order of their names.

    Of several people the one whose keypoints' confidences have the largest sum, as the published figures on
    TaiChiHD and TED-talks need; a keypoint of confidence 0 is not found.
    """

    subject = "bodies"
    identity: str | None = None
    no_identity = "OpenPose finds keypoints and knows nobody; features of a re-identification network: --features"

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise InputError(f"--openpose {folder}: no such folder")
        self.folder = folder
        files = sorted(folder.glob("*/**/*_keypoints.json"))
        if not files:
            raise InputError(f"--openpose {folder}: no *_keypoints.json below its folders truth and generated")
        self.points = _points_in(files)
        self.name = f"OpenPose's JSON files, {self.points} keypoints"

    def landmarks(self, frames: Frames) -> np.ndarray:
        files = sorted(_side(self.folder, frames).glob("*_keypoints.json"))
        last = max(frames.numbers)
        if len(files) <= last:
            folder = _side(self.folder, frames)
            raise InputError(f"{folder} has {len(files)} *_keypoints.json: no file for frame {last}")
        return np.stack([self._read(files[number]) for number in frames.numbers])

    def descriptors(self, frames: Frames, landmarks: np.ndarray) -> np.ndarray:
        raise NotImplementedError(self.no_identity)

    def _read(self, file: Path) -> np.ndarray:
        people = [person.reshape(-1, 3) for person in _people(file)]
        if not people:
            return np.full((self.points, 2), np.nan)
        surest = max(people, key=lambda person: float(person[:, 2].sum()))
        if len(surest) != self.points:
            raise InputError(f"{file} has {len(surest)} keypoints, others have {self.points}")
        return np.where(surest[:, 2:] > 0, surest[:, :2], np.nan)


class StoredFeatures:
    """Features of any identity network from FOLDER/truth/CLIP.npy and FOLDER/generated/CLIP.npy: (T, D), a row a
    frame, NaN where it saw nobody. Landmarks come from `detector`."""

    no_identity = ""

    def __init__(self, folder: Path, detector: Detector) -> None:
        if not folder.is_dir():
            raise InputError(f"--features {folder}: no such folder")
        first = min(folder.glob("truth/**/*.npy"), default=None)
        if first is None:
            raise InputError(f"--features {folder}: no .npy below its folder truth")
        self.folder = folder
        self._width = _features(first).shape[1]
        self.name, self.subject, self.points = detector.name, detector.subject, detector.points
        self.identity: str | None = "features from files"
        self.landmarks = detector.landmarks

    def descriptors(self, frames: Frames, landmarks: np.ndarray) -> np.ndarray:
        file = _side(self.folder, frames).with_name(f"{Path(frames.clip).name}.npy")
        features = _features(file)
        if len(features) <= max(frames.numbers):
            raise InputError(f"{file} has {len(features)} rows: none for frame {max(frames.numbers)}")
        if features.shape[1] != self._width:
            raise InputError(f"{file} has {features.shape[1]} numbers a row, others have {self._width}")
        return features[list(frames.numbers)].astype(np.float64)


def _side(folder: Path, frames: Frames) -> Path:
    return folder / ("generated" if frames.generated else "truth") / frames.clip


def _points_in(files: list[Path]) -> int:
    """Of the first person in these files; 25 where all are empty: OpenPose's own default."""
    for file in files:
        people = _people(file)
        if people:
            return people[0].size // 3
    return 25


def _people(file: Path) -> list[np.ndarray]:
    try:
        people = read_json(file)["people"]
        return [np.array(person["pose_keypoints_2d"], np.float64).reshape(-1, 3).ravel() for person in people]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is not OpenPose's JSON ({type(error).__name__}: {error})") from error


def _features(file: Path) -> np.ndarray:
    """(T, D) of numbers."""
    try:
        with open_regular(file) as opened:
            features = read_array(opened, file.stat().st_size)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{file} cannot be read as features: {error}") from error
    if features.ndim != 2 or features.dtype.kind not in "fiu":
        raise InputError(f"{file} holds {features.dtype} {features.shape}: expected a row of numbers a frame")
    return features
