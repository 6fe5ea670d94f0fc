"""A performance: the motion of every frame of a driving video, which is all that is needed of it."""

import hashlib
import json
from dataclasses import dataclass, field
from fractions import Fraction
from math import lcm
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from mtanimate.config import ModelConfig
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.files import replacing, taken
from mtanimate.models.motion import Motion
from mtanimate.outputs import check_new_file
from mtanimate.reading import check_readable, check_regular, parse_fraction, parse_json, read_npz

FORMATS = ("mtanimate-motion-1", "mtanimate-motion-2")  # the first has no background
SUFFIXES = (".safetensors", ".npz")

_MOST_BYTES = 1 << 30  # of a file's arrays: six hours of a face's 34 points at 60 frames a second
_FARTHEST = 1e6  # of a coordinate or an entry of a matrix; a picture's sides are 2. Far more, and sums are not finite
_MOST_FRAMES = 5_000_000  # a day at 60 a second
_FASTEST = 1000  # frames a second
_MOST_TICKS = 10**12  # a second, of the clock that times are of: a container's has 32 bits
_LATEST = 10**7  # seconds


@dataclass(frozen=True)
class Performance:
    """The motion of T frames, on the CPU in float32.

    times: of the frames, in seconds since the first, where the rate varies. background: (T, 3, 3), where the network
    predicts one: from each frame to one source, whose picture has the SHA-256 `source`. lost: the numbers of frames
    where the subject was not found or its motion is not finite, and what was before is held.
    checkpoint: SHA-256 of the weights that read it; what a keypoint stands for is theirs alone.
    """

    motion: Motion
    fps: Fraction
    checkpoint: str
    times: list[Fraction] | None = None
    background: Tensor | None = None
    lost: list[int] = field(default_factory=list)
    source: str = ""

    def __len__(self) -> int:
        return len(self.motion)

    def background_for(self, picture: Tensor) -> Tensor:
        """(T, 3, 3), for the source's picture (1, 3, R, R). Raises InputError where it is not known for this one."""
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


def check_motion_file(path: Path, overwrite: bool) -> None:
    """Raises InputError unless the name says one of the two formats, and a file can be written there. Of what exists,
    only motion is replaced: a checkpoint's name ends like its."""
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"--save-motion {path}: the name must end in {' or '.join(SUFFIXES)}")
    check_new_file(path, overwrite)
    if taken(path) and not _is_motion(path):
        raise InputError(
            f"--save-motion {path} is another file, no motion, and only that is replaced: choose another name"
        )


def save_performance(path: Path, performance: Performance, overwrite: bool = False) -> None:
    """Motion alone, no picture: safetensors, or NumPy's npz without pickle. Whole or not at all.

    Raises InputError as `check_motion_file`, MTAnimateError where it cannot be written or another file came there.
    """
    check_motion_file(path, overwrite)
    arrays = {
        "keypoints": performance.motion.keypoints.numpy(),
        "affine": performance.motion.affine.numpy(),
        "lost": np.array(performance.lost, np.int64),
    }
    if performance.background is not None:
        arrays["background"] = performance.background.numpy()
    about: dict[str, Any] = {
        "format": FORMATS[-1],
        "fps": str(performance.fps),
        "checkpoint": performance.checkpoint,
        "source": performance.source,
        "times": json.dumps(None if performance.times is None else [str(time) for time in performance.times]),
    }
    try:
        with replacing(path, _is_motion if overwrite else False) as partial:
            if path.suffix.lower() == ".npz":
                np.savez_compressed(partial, allow_pickle=False, **arrays, about=np.array(json.dumps(about)))
            else:
                partial.write_bytes(save(arrays, about))
    except OSError as error:
        raise MTAnimateError(f"{path} could not be written ({error.strerror}): choose another place") from error


def load_performance(path: Path, checkpoint: str, config: ModelConfig) -> Performance:
    """checkpoint: SHA-256 of the weights that will use it, of the network `config`. Raises InputError for a file
    that is damaged, foreign, or was made with other weights."""
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
    return Performance(motion, fps, checkpoint, times, background, lost, about.get("source", ""))


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
    """Frames and parts. Raises ValueError where the arrays do not agree on them, or are none of numbers."""
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
    """Raises ValueError unless they ascend, as many as frames, on a clock of a rate that there can be."""
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
