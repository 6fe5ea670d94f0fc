"""A performance: the motion of every frame of a driving video, which is all that is needed of it."""

import hashlib
import json
import re
import zlib
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from mtanimate.config import ModelConfig
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.files import replacing, taken
from mtanimate.models.motion import Motion
from mtanimate.video.files import check_new_file, check_readable

FORMATS = ("mtanimate-motion-1", "mtanimate-motion-2")  # the first has no background
SUFFIXES = (".safetensors", ".npz")

_MOST_BYTES = 1 << 30  # of a file's arrays: six hours of a face's 34 points at 60 frames a second
_FARTHEST = 1e6  # of a coordinate or an entry of a matrix; a picture's sides are 2. Far more, and sums are not finite
_FASTEST = 1000  # frames a second
_FRACTION = re.compile(r"-?[0-9]{1,40}(/[0-9]{1,40})?")  # no exponent: 1e999999999 would be written out


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
        arrays, about = _read_npz(path) if path.suffix.lower() == ".npz" else _read_safetensors(path)
        if about.get("format") not in FORMATS:
            raise ValueError(f"its format is {about.get('format')}, not {' or '.join(FORMATS)}")
        keypoints, affine = (torch.from_numpy(arrays[name]).float() for name in ("keypoints", "affine"))
        motion = Motion(keypoints, affine, config.estimator.motion_kind)
        fps = _fraction(about["fps"])
        given = json.loads(about["times"])
        times = None if given is None else [_fraction(time) for time in given]
        lost = [int(number) for number in arrays["lost"]]
        background = torch.from_numpy(arrays["background"]).float() if "background" in arrays else None
        made_with = about["checkpoint"]
        _check(motion, fps, times, background)
    except _UNFIT as error:
        raise InputError(f"{path} is not a motion file of mtanimate ({' '.join(str(error).split())})") from error
    if made_with != checkpoint or motion.keypoints.shape[1] != config.num_keypoints:
        raise InputError(f"{path} was made with another checkpoint: its keypoints mean nothing to this one")
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


def _fraction(text: str) -> Fraction:
    if not _FRACTION.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is no fraction")
    return Fraction(text)


def _is_motion(path: Path) -> bool:
    try:
        _, about = _read_npz(path) if path.suffix.lower() == ".npz" else _read_safetensors(path)
    except _UNFIT:
        return False
    return about.get("format") in FORMATS


def _check(motion: Motion, fps: Fraction, times: list[Fraction] | None, background: Tensor | None) -> None:
    frames, parts = motion.keypoints.shape[:2]
    if motion.keypoints.shape[2:] != (2,) or motion.affine.shape != (frames, parts, 2, 2) or not frames * parts:
        raise ValueError(f"keypoints {tuple(motion.keypoints.shape)} and affine {tuple(motion.affine.shape)}")
    if background is not None and background.shape != (frames, 3, 3):
        raise ValueError(f"{frames} frames, background {tuple(background.shape)}")
    if not motion.finite().all() or not (background is None or background.isfinite().all()):
        raise ValueError("values that are not finite")
    largest = max(values.abs().max() for values in (motion.keypoints, motion.affine, background) if values is not None)
    if largest > _FARTHEST:
        raise ValueError(f"values beyond {_FARTHEST:g}")
    if not 0 < fps <= _FASTEST or (times is not None and len(times) != frames):
        raise ValueError(f"{fps} frames a second, {frames} frames")


def _read_npz(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            if sum(member.file_size for member in stored.zip.infolist()) > _MOST_BYTES:
                raise ValueError("it unpacks to more than 1 GiB")
            arrays = {name: stored[name] for name in ("keypoints", "affine", "lost")}
            arrays |= {name: stored[name] for name in ("background",) if name in stored}
            return arrays, json.loads(str(stored["about"]))
    except (BadZipFile, NotImplementedError, zlib.error) as error:
        raise ValueError(str(error)) from error


def _read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    with safe_open(path, framework="np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
