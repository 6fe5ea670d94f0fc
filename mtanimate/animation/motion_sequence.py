"""The motion of a driving video: read from its frames, or kept in a file."""

import hashlib
import json
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import lcm
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from mtanimate.animation.retargeting import held
from mtanimate.animation.source import SourceRenderer
from mtanimate.config import ModelConfig
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.faces.framing import Framing
from mtanimate.files import replacing, taken
from mtanimate.inference.predictor import Predictor
from mtanimate.inference.prefetch import prefetch, upload
from mtanimate.models.motion import Motion
from mtanimate.outputs import check_new_file
from mtanimate.reading import check_readable, check_regular, parse_fraction, parse_json, read_npz
from mtanimate.video.footage import Footage

FORMATS = ("mtanimate-motion-1", "mtanimate-motion-2")  # the first has no background
SUFFIXES = (".safetensors", ".npz")

_MOST_BYTES = 1 << 30  # of a file's arrays: six hours of a face's 34 points at 60 frames a second
_FARTHEST = 1e6  # of a coordinate or an entry of a matrix. A picture's sides are 2; beyond, sums are not finite
_MOST_FRAMES = 5_000_000  # a day at 60 a second
_FASTEST = 1000  # frames a second
_MOST_TICKS = 10**12  # a second, of the clock of the frames' times; a container's clock has 32 bits
_LATEST = 10**7  # seconds


@dataclass(frozen=True)
class MotionSequence:
    """The motion of T frames, on the CPU in float32.

    Attributes:
        motion: Batch T.
        fps: Frames a second.
        checkpoint: SHA-256 of the weights that read it. Keypoints mean the same to these weights alone.
        times: Of the frames, in seconds since the first; None where the rate is constant.
        background: (T, 3, 3), from each frame to one source; None where it was not read or the network predicts none.
        lost: The frames, from 0 on, without the subject or a finite motion. They hold the motion before.
        source: SHA-256 of the source's picture that `background` belongs to.
        start: The number of the first frame in the driving video.
    """

    motion: Motion
    fps: Fraction
    checkpoint: str
    times: list[Fraction] | None = None
    background: Tensor | None = None
    lost: list[int] = field(default_factory=list)
    source: str = ""
    start: int = 0

    def __len__(self) -> int:
        return len(self.motion)

    def background_for(self, picture: Tensor) -> Tensor:
        """The background's motion, (T, 3, 3), for the source's picture, uint8 (1, 3, R, R).

        Raises InputError where it is not known for this picture.
        """
        if self.background is None or self.source != picture_digest(picture):
            has = "none" if self.background is None else "that for another source or crop"
            raise InputError(
                "--mode absolute also moves the background, by source and driving video together, and the file of "
                f"--motion has {has}: give --driving, or --mode relative"
            )
        return self.background


def picture_digest(picture: Tensor) -> str:
    """The SHA-256 of a picture's pixels, uint8 (1, 3, R, R)."""
    return hashlib.sha256(picture.cpu().contiguous().numpy().tobytes()).hexdigest()


@dataclass(frozen=True)
class DrivingVideo:
    """A driving video, the numbers of the frames that are used, and where the subject is in them."""

    footage: Footage
    numbers: range
    framing: Framing

    def squares(self, predictor: Predictor, side: int) -> Iterator[Tensor]:
        """The squares of all frames: uint8 (B, 3, side, side) on the network's device, in prefetched batches."""
        return prefetch(self._squares(predictor, side))

    def _squares(self, predictor: Predictor, side: int) -> Generator[Tensor, None, None]:
        done = self.numbers.start
        for batch in self.footage.batches(predictor.batch_size, self.numbers.start, self.numbers.stop):
            numbers = range(done, done + len(batch))
            yield upload(self.framing.squares(batch, numbers, side), predictor.network.device)
            done = numbers.stop

    def read_motion(
        self,
        predictor: Predictor,
        checkpoint: str,
        backgrounds_of: SourceRenderer | None,
        progress: Callable[[int, int], None],
    ) -> MotionSequence:
        """The motion of every frame.

        Args:
            checkpoint: SHA-256 of the predictor's weights.
            backgrounds_of: The source to which the background's motion is read; None where it is not needed.
            progress: Called with the number of frames that are read, and of all.

        Raises:
            InputError: The video is damaged, or the motion of no frame is finite.
        """
        count = len(self.numbers)
        keypoints, affine, backgrounds = _Rows(count), _Rows(count), _Rows(count)
        progress(0, count)
        for squares in self.squares(predictor, predictor.resolution):
            motion = predictor.estimate(squares)
            keypoints.add(motion.keypoints)
            affine.add(motion.affine)
            background = backgrounds_of.backgrounds(squares) if backgrounds_of else None
            if background is not None:
                backgrounds.add(background)
            progress(keypoints.done, count)
        motion = replace(motion, keypoints=keypoints.all(), affine=affine.all())
        background = backgrounds.all() if backgrounds.done else None
        lost = self._lost(motion, background)
        rows = held(count, lost)
        source = ""
        if backgrounds_of and backgrounds_of.predicts is not None and background is not None:
            background, source = background[rows], picture_digest(backgrounds_of.predicts)
        times, start = self._times(), self.numbers.start
        return MotionSequence(motion[rows], self.footage.fps, checkpoint, times, background, lost, source, start)

    def _times(self) -> list[Fraction] | None:
        """Seconds since the first of the frames; None where the rate is constant."""
        if not self.footage.variable:
            return None
        first = self.footage.times[self.numbers.start]
        return [self.footage.times[number] - first for number in self.numbers]

    def _lost(self, motion: Motion, background: Tensor | None) -> list[int]:
        """The frames, from 0 on, without the subject or a finite motion."""
        finite = motion.is_finite()
        if background is not None:
            finite &= background.isfinite().flatten(1).all(dim=1)
        if not finite.any():
            raise InputError(f"{self.footage.path}: the motion of no frame is finite: is the checkpoint damaged?")
        broken = set((~finite).nonzero().flatten().tolist())
        lost = broken | {number - self.numbers.start for number in self.framing.lost_frames(self.numbers)}
        return sorted(lost if len(lost) < len(motion) else broken)


class _Rows:
    """Collects up to `most` rows, batch by batch, in one tensor on the CPU that is allocated at once.

    Small tensors that are kept one by one end up between the large ones of each batch and fragment the memory: the
    process would grow with the video.
    """

    def __init__(self, most: int) -> None:
        self.most, self.done = most, 0
        self._rows: Tensor | None = None

    def add(self, batch: Tensor) -> None:
        if self._rows is None:
            self._rows = torch.empty(self.most, *batch.shape[1:], dtype=batch.dtype)
        self._rows[self.done : self.done + len(batch)] = batch
        self.done += len(batch)

    def all(self) -> Tensor:
        assert self._rows is not None
        return self._rows[: self.done]


def check_motion_file(path: Path, overwrite: bool) -> None:
    """Check that motion can be written to `path`.

    Raises InputError unless the name ends like one of the two formats and a file can be written there. Only a motion
    file is ever replaced, since the name of a checkpoint ends like one.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"--save-motion {path}: the name must end in {' or '.join(SUFFIXES)}")
    check_new_file(path, overwrite)
    if taken(path) and not _is_motion(path):
        raise InputError(
            f"--save-motion {path} is another file, no motion, and only that is replaced: choose another name"
        )


def save_motion(path: Path, sequence: MotionSequence, overwrite: bool = False) -> None:
    """Write the motion, without any picture, as safetensors or as NumPy's npz without pickle. Whole or not at all.

    Raises:
        InputError: As `check_motion_file`.
        MTAnimateError: The file cannot be written, or another file came there meanwhile.
    """
    check_motion_file(path, overwrite)
    arrays = {
        "keypoints": sequence.motion.keypoints.numpy(),
        "affine": sequence.motion.affine.numpy(),
        "lost": np.array(sequence.lost, np.int64),
    }
    if sequence.background is not None:
        arrays["background"] = sequence.background.numpy()
    about: dict[str, Any] = {
        "format": FORMATS[-1],
        "fps": str(sequence.fps),
        "checkpoint": sequence.checkpoint,
        "source": sequence.source,
        "times": json.dumps(None if sequence.times is None else [str(time) for time in sequence.times]),
    }
    try:
        with replacing(path, _is_motion if overwrite else False) as partial:
            if path.suffix.lower() == ".npz":
                np.savez_compressed(partial, allow_pickle=False, **arrays, about=np.array(json.dumps(about)))
            else:
                partial.write_bytes(save(arrays, about))
    except OSError as error:
        raise MTAnimateError(f"{path} could not be written ({error.strerror}): choose another place") from error


def load_motion(path: Path, checkpoint: str, config: ModelConfig) -> MotionSequence:
    """Read what `save_motion` wrote.

    Args:
        checkpoint: SHA-256 of the weights that will use it.
        config: Of the network with these weights.

    Raises:
        InputError: The file is damaged, foreign, or was made with other weights.
    """
    check_readable(path, "motion file")
    try:
        arrays, about = _read(path)
        if about.get("format") not in FORMATS:
            raise ValueError(f"its format is {about.get('format')}, not {' or '.join(FORMATS)}")
        frames, parts = _counts(arrays)
        if about["checkpoint"] != checkpoint or parts != config.num_keypoints:
            raise InputError(f"{path} was made with another checkpoint: its keypoints mean nothing to this one")
        keypoints, affine = (torch.from_numpy(arrays[name]).float() for name in ("keypoints", "affine"))
        motion = Motion(keypoints, affine, config.estimator.motion_kind)
        fps = parse_fraction(about["fps"])
        times = _times(about["times"], frames)
        lost: list[int] = arrays["lost"].tolist()
        background = torch.from_numpy(arrays["background"]).float() if "background" in arrays else None
        _check(motion, fps, background)
    except _UNFIT as error:
        raise InputError(f"{path} is not a motion file of mtanimate ({' '.join(str(error).split())})") from error
    return MotionSequence(motion, fps, checkpoint, times, background, lost, about.get("source", ""))


_UNFIT = (
    ArithmeticError,
    AttributeError,
    EOFError,
    KeyError,
    OSError,
    RecursionError,
    SafetensorError,
    TypeError,
    ValueError,
)


def _is_motion(path: Path) -> bool:
    try:
        _, about = _read(path)
    except (*_UNFIT, InputError):
        return False
    return about.get("format") in FORMATS


def _counts(arrays: dict[str, np.ndarray]) -> tuple[int, int]:
    """The numbers of frames and keypoints. Raises ValueError where the arrays disagree, or do not hold numbers."""
    keypoints, lost = arrays["keypoints"], arrays["lost"]
    frames, parts = keypoints.shape[:2]
    shapes = {"keypoints": (frames, parts, 2), "affine": (frames, parts, 2, 2), "background": (frames, 3, 3)}
    for name, shape in shapes.items():
        if name in arrays and (arrays[name].shape != shape or arrays[name].dtype.kind != "f" or not frames * parts):
            raise ValueError(f"{frames} frames, {name} {arrays[name].dtype} {arrays[name].shape}")
    if frames > _MOST_FRAMES:
        raise ValueError(f"{frames} frames, more than {_MOST_FRAMES}")
    known = lost.ndim == 1 and lost.dtype.kind in "iu" and len(lost) <= frames
    if not known or (len(lost) and not 0 <= lost.min() <= lost.max() < frames):
        raise ValueError(f"lost {lost.dtype} {lost.shape} of {frames} frames")
    return frames, parts


def _times(text: str, frames: int) -> list[Fraction] | None:
    """Raises ValueError unless there is a time for each frame, and they ascend on a clock with a plausible rate."""
    given = parse_json(text)
    if given is None:
        return None
    if not isinstance(given, list) or len(given) != frames:
        raise ValueError(f"{frames} frames, times of others")
    times: list[Fraction] = []
    ticks = 1
    for item in given:
        time = parse_fraction(item)
        ticks = lcm(ticks, time.denominator)
        if ticks > _MOST_TICKS or not (times[-1] <= time < _LATEST if times else time == 0):
            raise ValueError(f"time {item}")
        times.append(time)
    return times


def _check(motion: Motion, fps: Fraction, background: Tensor | None) -> None:
    if not motion.is_finite().all() or not (background is None or background.isfinite().all()):
        raise ValueError("values that are not finite")
    largest = max(values.abs().max() for values in (motion.keypoints, motion.affine, background) if values is not None)
    if largest > _FARTHEST:
        raise ValueError(f"values beyond {_FARTHEST:g}")
    if not 0 < fps <= _FASTEST:
        raise ValueError(f"{fps} frames a second")


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays by name, and text. Raises what is in `_UNFIT`."""
    if path.suffix.lower() == ".npz":
        stored = read_npz(path, ("keypoints", "affine", "lost", "about"), _MOST_BYTES, optional=("background",))
        about = parse_json(str(stored.pop("about")))
        if not isinstance(about, dict) or not all(isinstance(text, str) for text in about.values()):
            raise ValueError("what it says of itself is no text")
        return stored, about
    check_regular(path)
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"it has more than {_MOST_BYTES} bytes")
    with safe_open(path, framework="np") as file:
        names = [name for name in file.keys() if name in ("keypoints", "affine", "lost", "background")]  # noqa: SIM118
        return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
