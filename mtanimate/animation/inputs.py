"""The first step of an animation: its inputs are opened, and the subjects are found in them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtanimate.animation.motion_sequence import DrivingVideo
from mtanimate.animation.settings import Job, Settings
from mtanimate.errors import InputError
from mtanimate.faces.detection import Square
from mtanimate.faces.framing import frame_driving, frame_source, parse_crop, parse_face
from mtanimate.video import Sound, VideoReader, read_image
from mtanimate.video.footage import Footage, is_moving, open_footage

Progress = Callable[[int, int, str], None]
Log = Callable[[str], None]

# Of a batch: 48 frames of 4K, which the network reduces; and 4 pasted pictures of 12 megapixels, of which several
# batches are held at once.
_PIXELS_AT_ONCE, _PASTED_AT_ONCE = 400_000_000, 50_000_000


class Messages:
    """Passes on progress and remarks, and keeps the warnings for the result."""

    def __init__(self, progress: Progress, log: Log) -> None:
        self.progress, self.log = progress, log
        self.warnings: list[str] = []

    def warn(self, line: str) -> None:
        self.warnings.append(line)
        self.log(f"warning: {line}")

    def stage(self, name: str) -> Callable[[int, int], None]:
        """The progress of one of `STAGES`."""
        return lambda done, total: self.progress(done, total, name)


@dataclass(frozen=True)
class Inputs:
    """What an animation is made of.

    Attributes:
        source: A picture, uint8 RGB (H, W, 3), or a video.
        squares: Of the source's subjects; a video has one.
        driving: A driving video, or the path of a motion file.
        sound: For the result; None where it has none.
        largest_batch: The number of frames that fit into memory at once, before the network sees them.
    """

    source: np.ndarray | Footage
    squares: list[Square]
    driving: DrivingVideo | Path
    sound: Sound | None
    largest_batch: int


def open_inputs(job: Job, settings: Settings, messages: Messages, *, gpu: bool, max_pixels: int) -> Inputs:
    """Open the source and the driving video, and find the subjects in them.

    Raises InputError where one is missing or damaged, or a frame or square lies outside of it.
    """
    source: Footage | np.ndarray
    if is_moving(job.source):
        source = open_footage(job.source, max_pixels=max_pixels)
    else:
        source = read_image(job.source, messages.warn, max_pixels=max_pixels)
    footage = open_footage(job.driving, gpu=gpu, max_pixels=max_pixels) if job.driving else None
    videos = [video for video in (source, footage) if isinstance(video, Footage)]
    if isinstance(footage, VideoReader) and footage.decoder_note:
        messages.log(footage.decoder_note)
    for video in videos:
        if video.note:
            messages.log(f"{video.path}: {video.note}")
    largest_batch = max(_PIXELS_AT_ONCE // max((video.width * video.height for video in videos), default=1), 1)
    if isinstance(source, np.ndarray):
        largest_batch = min(largest_batch, max(_PASTED_AT_ONCE // (source.shape[0] * source.shape[1]), 1))
    if footage is None:
        assert job.motion  # `job.check` saw that one of the two is given
        return Inputs(source, frame_subjects(source, settings, messages), job.motion, None, largest_batch)
    numbers = footage.frames_between(settings.start, settings.end)
    check_reference(settings.reference_frame, numbers)
    squares = frame_subjects(source, settings, messages)
    crop = parse_crop(settings.driving_crop, "--driving-crop")
    looking = messages.stage("looking for faces")
    framing = frame_driving(footage, numbers, crop, settings.track, messages.warn, looking)
    sound = None
    if settings.audio and footage.has_audio:
        sound = Sound(footage.path, footage.times[numbers.start], max_pixels)
    return Inputs(source, squares, DrivingVideo(footage, numbers, framing), sound, largest_batch)


def frame_subjects(source: Footage | np.ndarray, settings: Settings, messages: Messages) -> list[Square]:
    """The squares of the source's subjects; a video has one for all of its frames."""
    crop = parse_crop(settings.crop)
    if isinstance(source, np.ndarray):
        return frame_source(source, crop, parse_face(settings.face), messages.warn)
    framing = messages.stage("framing the source")
    square = frame_driving(source, range(source.frame_count), crop, False, messages.warn, framing).square
    assert square is not None  # it follows nothing
    return [square]


def check_reference(reference: str, numbers: range) -> None:
    """Raises InputError where `--reference-frame` is a number that is not among these."""
    if reference.isdecimal() and int(reference) not in numbers:
        raise InputError(f"--reference-frame {reference}: the frames are {numbers.start} to {numbers.stop - 1}")
