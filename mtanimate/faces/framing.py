"""Framing: which square the network sees of the source, and of every driving frame."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mtanimate.errors import InputError
from mtanimate.faces.detection import (
    FACE_DOWN,
    FACE_SHARE,
    LOST_SECONDS,
    SAME_FACE,
    SAMPLES_A_SECOND,
    Box,
    Square,
    centred_square,
    check_installed,
    face_square,
    find_faces,
    resize_frames,
    resize_part,
    sample_step,
    square_around,
)
from mtanimate.video.footage import Footage

Crop = Literal["auto", "none"] | Square
Face = Literal["largest", "all"] | int
Log = Callable[[str], None]

LARGEST_SIDE = 1440  # pixels, of an animated square, unless more is asked for

# A source is searched only once, so at a higher resolution: in a group, a face measures a twentieth of the photo.
_SOURCE_PIXELS = 1600

# The standard deviations of the smoothing with which a square follows the face. Its size follows more slowly: the
# detector's sizes are coarse, and a wrong change shows at once as pulsing.
_PLACE_SECONDS, _SIDE_SECONDS = 0.5, 2.0


def parse_crop(text: str, option: str = "--crop") -> Crop:
    """Parse `auto`, `none` or `X,Y,W,H` in pixels, as the command line takes them. option: The option's name.

    Raises InputError for anything else, and where W and H differ, since nothing is stretched.
    """
    if text in ("auto", "none"):
        return text  # type: ignore[return-value]
    try:
        x, y, width, height = map(int, text.split(","))
    except ValueError:
        raise InputError(f"{option} {text}: give auto, none, or X,Y,W,H in whole pixels") from None
    if width != height:
        raise InputError(f"{option} {text}: {width} x {height} is no square, and nothing is stretched: make W = H")
    if x < 0 or y < 0 or width < 1:
        raise InputError(f"{option} {text}: X and Y must be 0 or more, W and H 1 or more")
    return Square(x, y, width)


def parse_face(text: str) -> Face:
    """Parse `largest`, `all`, or a number from 1 on. Raises InputError for anything else."""
    if text in ("largest", "all"):
        return text  # type: ignore[return-value]
    if not re.fullmatch("0*[1-9][0-9]{0,8}", text):
        raise InputError(f"--face {text}: give largest, all, or a number: 1 is the leftmost face")
    return int(text)


def parse_resolution(text: str) -> int:
    """The largest side of an animated square, in pixels, of `auto` or a number. Raises InputError for anything else."""
    if text == "auto":
        return LARGEST_SIDE
    if not re.fullmatch("[1-9][0-9]{0,4}", text):
        raise InputError(f"--resolution {text}: give auto, or a whole number of pixels")
    return int(text)


def check_inside(square: Square, width: int, height: int, what: str, option: str = "--crop") -> None:
    """Raises InputError where a square reaches out of a picture of this size, in pixels. what: The picture's name."""
    if square.x + square.side > width or square.y + square.side > height:
        asked = f"{square.x},{square.y},{square.side},{square.side}"
        raise InputError(f"{option} {asked} reaches out of the {what}, which is {width} x {height}: move or shrink it")


def frame_source(
    picture: np.ndarray, crop: Crop, face: Face, log: Log, what: str = "source", option: str = "--crop"
) -> list[Square]:
    """The squares of a source that are animated: one, or with face="all" one for each face, from left to right.

    Args:
        picture: uint8 RGB (H, W, 3).
        crop: A square; "auto" for the square around the face; "none" for the centred square.
        face: Which of several faces, for crop="auto". A number counts from left to right, as people do; sizes are often
            too close to count by.
        log: Gets a warning where no face is found or dlib is missing, and the centred square is used.
        what: What messages call the picture.
        option: The option that messages name.

    Raises:
        InputError: The square reaches out of the picture; or `face` is a number, and there are fewer faces or dlib is
            missing.
    """
    height, width = picture.shape[:2]
    centred = centred_square(width, height)
    if isinstance(crop, Square):
        check_inside(crop, width, height, what, option)
        return [crop]
    if crop == "none":
        return [centred]
    if isinstance(face, int):
        check_installed()
    elif reason := _cannot_look():
        log(_fallback(reason, what, centred, option))
        return [centred]
    chosen = _choose(find_faces(picture, largest=_SOURCE_PIXELS), face)
    if not chosen:
        log(_fallback(f"no face found in the {what}", what, centred, option))
        return [centred]
    return [face_square([box], width, height) for box in chosen]


def _choose(found: list[Box], face: Face) -> list[Box]:
    """found: The faces, the largest first. Raises InputError for a number above their count."""
    if face == "largest":
        return found[:1]
    from_left = sorted(found, key=lambda box: box.centre)
    if face == "all":
        return from_left
    if face > len(found):
        has = f"{len(found) or 'no'} face{'s' * (len(found) != 1)}"
        raise InputError(f"--face {face}: {has} found in the source: choose another, or frame one by --crop X,Y,W,H")
    return [from_left[face - 1]]


@dataclass(frozen=True, eq=False)
class Framing:
    """The squares of a driving video: one for all frames, or one that follows the face.

    Attributes:
        square: The one for all frames; None where it follows the face.
        at: Frame numbers (N,), between which the following square moves straight.
        places: Its left, top and side at these frames, (N, 3), in fractions of pixels so that it moves smoothly.
        lost: The numbers of sampled frames in which the face was not found, though it was in others: it was turned
            away, hidden, or gone.
        spacing: Frames from one sample to the next.
    """

    square: Square | None
    at: np.ndarray
    places: np.ndarray
    lost: tuple[int, ...] = ()
    spacing: int = 1

    def lost_frames(self, numbers: range) -> list[int]:
        """The frames of these that are lost samples, or lie between a lost sample and the next one."""
        gone = {frame + further for frame in self.lost for further in range(self.spacing)}
        return [number for number in numbers if number in gone]

    def place(self, number: int) -> tuple[float, float, float]:
        """left, top, side, in pixels, of the square in the frame of this number."""
        left, top, side = (float(np.interp(number, self.at, values)) for values in self.places.T)
        return left, top, side

    def squares(self, batch: np.ndarray, numbers: range, resolution: int) -> Tensor:
        """Frames uint8 (B, H, W, 3) of these numbers -> uint8 (B, 3, resolution, resolution)."""
        if self.square:
            return resize_frames(self.square.cut(batch), resolution)
        return torch.stack(
            [resize_part(frame, *self.place(number), resolution) for frame, number in zip(batch, numbers, strict=True)]
        )


def frame_driving(
    reader: Footage,
    frames: range,
    crop: Crop,
    track: bool,
    log: Log,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Framing:
    """How the frames of a driving video are cut. For crop="auto" they are read through once.

    One square holds the face wherever it goes, since the network reads movement from what moves within the square.

    Args:
        reader: The video.
        frames: The numbers of the frames that are used.
        crop: A square; "auto" for the square around the face; "none" for the centred square.
        track: For crop="auto", a square that slowly follows the face instead. It looks ahead, so that it does not lag.
        log: Gets a warning where no face is found or dlib is missing, and the centred square is used.
        progress: Called as progress(done, total) with the frames that are read.

    Raises:
        InputError: The square reaches out of the picture, or the video is damaged.
    """
    width, height = reader.width, reader.height
    centred = centred_square(width, height)
    if isinstance(crop, Square):
        check_inside(crop, width, height, "driving video", "--driving-crop")
        return _fixed(crop)
    if crop == "none":
        return _fixed(centred)
    if reason := _cannot_look():
        log(_fallback(reason, "driving video", centred, "--driving-crop"))
        return _fixed(centred)
    fps = reader.fps / frames.step
    looked = frames[:: sample_step(fps)]
    follower = FaceFollower()
    batches = reader.batches(1, looked.start, looked.stop, looked.step)
    sights = []
    for number, batch in zip(looked, batches, strict=True):
        progress(len(range(frames.start, number, frames.step)), len(frames))
        sights.append((number, follower.see(batch[0])))
    progress(len(frames), len(frames))
    seen = {number: box for number, box in sights if box}
    if not seen:
        log(_fallback("no face found in the driving video", "driving video", centred, "--driving-crop"))
        return _fixed(centred)
    lost = tuple(number for number, box in sights if not box)
    if track:
        return _following(seen, looked, float(fps * frames.step / looked.step), width, height, lost)
    return _fixed(face_square(list(seen.values()), width, height), lost, looked.step)


def _fixed(square: Square, lost: tuple[int, ...] = (), spacing: int = 1) -> Framing:
    return Framing(square, np.zeros(1), np.array([[square.x, square.y, square.side]], float), lost, spacing)


def _following(
    seen: dict[int, Box], looked: range, rate: float, width: int, height: int, lost: tuple[int, ...]
) -> Framing:
    """The framing that follows the face. rate: Samples a second."""
    boxes = [(*box.centre, max(box.width, box.height)) for box in seen.values()]
    # Where it was not seen, interpolated between the places before and after.
    x, y, size = (np.interp(looked, list(seen), values) for values in np.array(boxes).T)
    side = np.minimum(_smooth(size, _SIDE_SECONDS * rate) / FACE_SHARE, min(width, height))
    left = _smooth(x, _PLACE_SECONDS * rate) - side / 2
    top = _smooth(y, _PLACE_SECONDS * rate) - FACE_DOWN * side
    places = np.stack([np.clip(left, 0, width - side), np.clip(top, 0, height - side), side], axis=1)
    return Framing(None, np.array(looked), places, lost, looked.step)


def _smooth(values: np.ndarray, deviation: float) -> np.ndarray:
    """Gaussian smoothing of (N,), mirrored at the ends, without lag. deviation: in samples."""
    reach = int(np.ceil(3 * deviation))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    return np.convolve(np.pad(values, reach, mode="symmetric"), weights / weights.sum(), mode="valid")


def _cannot_look() -> str:
    """Why faces cannot be looked for; empty where they can."""
    try:
        check_installed()
    except InputError as error:
        return str(error)
    return ""


def _fallback(reason: str, what: str, square: Square, option: str) -> str:
    return f"{reason}: the middle {square.side} x {square.side} of the {what} is used ({option} none, or X,Y,W,H)"


# A face is first looked for around its last place, in a square so many times as large as the face. That takes a tenth
# of the time of the whole picture. The detector knows sizes only in steps of a fifth; three views of slightly different
# size average that out.
_AROUND = (2.0, 2.13, 2.26)
_AROUND_PIXELS = 256


class FaceFollower:
    """Follows a face through about `SAMPLES_A_SECOND` frames a second, in order.

    It begins with the largest face, then takes the one most like it. When the face has been away for `LOST_SECONDS`, it
    is given up, and the largest face is taken again.
    """

    def __init__(self) -> None:
        self._last: Box | None = None
        self._missed = 0
        self._around = cycle(_AROUND)

    def see(self, frame: np.ndarray) -> Box | None:
        """Where the face is in the next sampled frame, uint8 RGB (H, W, 3). Raises InputError where dlib is missing."""
        if self._missed > LOST_SECONDS * SAMPLES_A_SECOND:
            self._last = None
        face = self._near(frame) or self._anywhere(frame)
        if face:
            self._last, self._missed = face, 0
        else:
            self._missed += 1
        return face

    def _near(self, frame: np.ndarray) -> Box | None:
        if not self._last:
            return None
        last = self._last
        size = next(self._around) * max(last.width, last.height)
        square = square_around(*last.centre, size, frame.shape[1], frame.shape[0])
        found = find_faces(square.cut(frame), largest=_AROUND_PIXELS)
        return _most_like(last, [box.moved(square.x, square.y) for box in found])

    def _anywhere(self, frame: np.ndarray) -> Box | None:
        if self._last:
            return _most_like(self._last, find_faces(frame))
        if self._missed > SAMPLES_A_SECOND and self._missed % SAMPLES_A_SECOND:
            return None  # long without a face, the whole picture is searched only once a second, since that is slow
        faces = find_faces(frame)
        return faces[0] if faces else None


def _most_like(last: Box, boxes: list[Box]) -> Box | None:
    """The box that is most like the last one; None where none is of the same face."""
    best = max(boxes, key=last.likeness, default=None)
    return best if best and last.likeness(best) >= SAME_FACE else None
