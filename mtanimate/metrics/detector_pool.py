"""Detectors in several processes, and the cache of what they found in true frames."""

import hashlib
import math
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from mtanimate.errors import InputError, MTAnimateError
from mtanimate.files import cache_folder, replacing
from mtanimate.metrics.detectors import (
    Detections,
    Detector,
    DlibFaces,
    FaceAlignmentFaces,
    FaceMesh,
    Frames,
    MediaPipeBodies,
    OpenPose,
    StoredFeatures,
)
from mtanimate.reading import read_npz
from mtanimate.signals import ENDING, end_with_maker, leave_to_parent


@dataclass(frozen=True)
class DetectorChoice:
    """Which detector to use.

    Attributes:
        detector: Its name, a key of `DETECTORS`.
        openpose: A folder of OpenPose's files, which take the place of its landmarks.
        features: A folder of features, which take the place of its descriptors.
    """

    detector: str
    openpose: Path | None = None
    features: Path | None = None

    @property
    def stored(self) -> bool:
        """Whether anything comes from files, which may change, and not from the pictures themselves."""
        return self.openpose is not None or self.features is not None


@dataclass(frozen=True)
class MeshDetectorChoice(DetectorChoice):
    """The face mesh, by which gestures are measured whatever --detector names."""

    detector: str = "mesh"


DETECTORS: dict[str, Callable[[], Detector]] = {
    "faces": DlibFaces,
    "face-alignment": FaceAlignmentFaces,
    "bodies": MediaPipeBodies,
}


def open_detector(choice: DetectorChoice) -> Detector:
    """The chosen detector, with its networks loaded.

    Raises:
        InputError: The name is unknown, or the detector's package is missing; the message names the extra to install.
    """
    if isinstance(choice, MeshDetectorChoice):
        return FaceMesh()
    if choice.detector not in DETECTORS and not choice.openpose:
        raise InputError(f"--detector {choice.detector}: not one of {', '.join(DETECTORS)}, none")
    detector: Detector = OpenPose(choice.openpose) if choice.openpose else DETECTORS[choice.detector]()
    return StoredFeatures(choice.features, detector) if choice.features else detector


class DetectorPool:
    """A detector in several processes, since each detector computes on one core. To be used in a `with` block.

    Args:
        choice: The detector.
        identity: Whether descriptors are wanted, too.
        processes: How many processes.

    Raises:
        InputError: As `open_detector`.
    """

    def __init__(self, choice: DetectorChoice, *, identity: bool, processes: int) -> None:
        self.choice = choice
        self.detector = open_detector(choice)
        self.describes = identity and self.detector.identity is not None
        self._processes = processes
        # Not fork: a forked copy of a process with PyTorch's threads may hang.
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(processes, context, _start_worker, (choice,))

    def detect(self, frames: Frames) -> Detections:
        """The detections in these frames.

        Raises:
            InputError: Stored files lack some of the frames.
            MTAnimateError: A process was killed.
        """
        size = math.ceil(len(frames.pictures) / self._processes)
        parts = [frames[start : start + size] for start in range(0, len(frames.pictures), size)]
        try:
            with _terminal_held():  # map starts processes
                found = self._pool.map(_detect, parts, [self.describes] * len(parts))
            return Detections.joined(list(found))
        except BrokenProcessPool as error:
            message = "a process that looks for landmarks was ended: is memory short? Then lower --workers"
            raise MTAnimateError(message) from error

    def key(self, digest: str, *framing: object) -> str:
        """The name in the cache of the detections in a file's true frames.

        Args:
            digest: The file's SHA-256.
            framing: How frames are chosen, cropped and resized.
        """
        made_of = [digest, *framing, self.detector.name, self.detector.identity if self.describes else "", _DECODED]
        return hashlib.sha256("\n".join(map(str, made_of)).encode()).hexdigest()

    def __enter__(self) -> "DetectorPool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)


@contextmanager
def _terminal_held() -> Iterator[None]:
    """Hold back Ctrl-C and SIGHUP, also from processes that are started in the block. Windows has no such masks."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_TERMINALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_MOST_BYTES = 4 << 30  # of the detections in one clip
# Not SIGTERM: the pool ends its workers by it where one of them is lost.
_OF_TERMINALS = set(ENDING) - {signal.SIGTERM}
_DECODED = "2"  # to be raised when decoding gives other pixels for the same file
_detector: Detector  # of this worker process


def _start_worker(choice: DetectorChoice) -> None:
    global _detector
    leave_to_parent(*_OF_TERMINALS)
    end_with_maker()  # it would wait for work for ever
    _detector = open_detector(choice)


def _detect(frames: Frames, describe: bool) -> Detections:
    landmarks = _detector.landmarks(frames)
    return Detections(landmarks, _detector.descriptors(frames, landmarks) if describe else None)


class TruthCache:
    """Detections in true frames, kept in `cache_folder()` between evaluations."""

    def __init__(self) -> None:
        self.folder = cache_folder() / "landmarks"

    def get(self, key: str, frames: int) -> Detections | None:
        """The detections under this key in so many frames; None where they are missing or broken."""
        try:
            stored = read_npz(self.folder / f"{key}.npz", ("landmarks", "descriptors"), _MOST_BYTES)
            landmarks, descriptors = stored["landmarks"], stored["descriptors"]
            whole = len(landmarks) == len(descriptors) == frames
            return Detections(landmarks, descriptors if descriptors.shape[1] else None) if whole else None
        except Exception:  # a broken archive raises nearly anything
            return None

    def put(self, key: str, detections: Detections) -> None:
        """Keep detections under this key. Raises OSError where they cannot be written."""
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptors = np.empty((len(detections), 0)) if detections.descriptors is None else detections.descriptors
        with replacing(self.folder / f"{key}.npz") as partial:
            np.savez_compressed(partial, landmarks=detections.landmarks, descriptors=descriptors)
