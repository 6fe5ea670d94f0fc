"""The walk of a frame: driving video -> motion -> transfer -> driven source -> finished video."""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from mtanimate.animation.motion_file import (
    Performance,
    check_motion_file,
    load_performance,
    picture_digest,
    save_performance,
)
from mtanimate.animation.results import STANDARD_OUTPUT, check_result, codec_for, hard_to_play, open_result
from mtanimate.animation.retargeting import FAR, choose_reference, held, smoothed, transferred
from mtanimate.animation.settings import Settings
from mtanimate.animation.source import Direct, Driven, MovingStage, Stage, StillStage
from mtanimate.checkpoints.registry import file_given
from mtanimate.devices import Precision, choose_device
from mtanimate.errors import InputError
from mtanimate.faces.detection import Square
from mtanimate.faces.framing import Framing, frame_driving, frame_source, parse_crop, parse_face
from mtanimate.inference.loading import Cast
from mtanimate.inference.predictor import Performer
from mtanimate.inference.prefetch import ahead, download, upload
from mtanimate.models.motion import Motion
from mtanimate.outputs import check_not_input, claim, place
from mtanimate.reading import MAX_PIXELS
from mtanimate.video import Sound, VideoReader, read_image
from mtanimate.video.footage import Footage, is_moving, open_footage
from mtanimate.video.streams import StreamClosed

MARK = {
    "title": "Synthetic video made with mtanimate",
    "comment": "AI-generated: a picture animated with the motion of another video",
}
# What `progress` calls the stages of the work, and about how long they take beside each other.
STAGES = {"framing the source": 1, "looking for faces": 1, "reading the motion": 4, "animating": 12}
_PIXELS_AT_ONCE = 400_000_000  # of a batch of frames: 48 of 4K
Progress = Callable[[int, int, str], None]
Log = Callable[[str], None]


@dataclass
class Result:
    """What was made, as `--json` prints it. reference_distance: between the poses of source and reference frame."""

    out: str
    frames: int
    fps: float
    width: int
    height: int
    seconds: float
    frames_per_second: float
    device: str
    backend: str
    precision: str
    checkpoint: str
    audio: bool
    reference_frame: int | None
    reference_distance: float | None
    lost_frames: list[int]
    warnings: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Job:
    """The files of one animation: driving or motion is given, not both."""

    source: Path
    driving: Path | None
    out: Path
    motion: Path | None = None
    save_motion: Path | None = None

    @property
    def outputs(self) -> list[Path]:
        """The files and folders that it writes."""
        return [path for path in (self.out, self.save_motion) if path is not None and path != STANDARD_OUTPUT]

    @property
    def inputs(self) -> list[Path]:
        return [path for path in (self.source, self.driving, self.motion) if path is not None]

    def check(self, settings: Settings, overwrite: bool, checkpoint: Path | None = None) -> None:
        """Raises InputError for what can be known to be wrong before any work. checkpoint: one more input."""
        settings.check()
        if (self.driving is None) == (self.motion is None):
            raise InputError("give either --driving, a video, or --motion, a file that --save-motion wrote")
        if self.motion and (self.save_motion or settings.start is not None or settings.end is not None):
            raise InputError("--motion plays a performance as it is: --save-motion, --start, --end go with --driving")
        if self.motion and settings.compare:
            raise InputError("--compare shows the driving video, and --motion has none")
        check_result(self.out, overwrite, settings.codec, settings.crf)
        if self.save_motion:
            check_motion_file(self.save_motion, overwrite)
        if len(set(map(place, self.outputs))) < len(self.outputs):
            raise InputError(f"--save-motion {self.save_motion} is also --out: choose another name")
        for path in self.outputs:
            check_not_input("--out" if path == self.out else "--save-motion", path, [*self.inputs, checkpoint])


def animate(
    source: str | Path,
    driving: str | Path | None,
    out: str | Path,
    *,
    checkpoint: str = "default",
    device: str = "auto",
    precision: Precision = "auto",
    backend: str | None = None,
    batch_size: int | None = None,
    allow_code: bool = False,
    max_pixels: int = MAX_PIXELS,
    motion: str | Path | None = None,
    save_motion: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress = lambda done, total, stage: None,
    log: Log = lambda line: None,
    **settings: Any,
) -> Result:
    """Animate the picture `source` with the motion of the video `driving` and write the video `out`.

    source: a picture, or a video whose every frame is moved. driving: a video, a folder of frames, or a picture; or
    None and `motion`, a file that `save_motion` wrote. batch_size: frames computed at once; None: by the device.
    allow_code: run the programs of a folder that was exported for PyTorch. max_pixels: of the source, and of a frame.
    settings: the fields of `Settings`.
    progress(done, total, stage) counts the frames of each of `STAGES`; log(line) gets remarks and warnings as they
    come up.

    Everything that can be checked is checked before anything is computed. Raises InputError for a wrong file or
    option, MTAnimateError where writing fails, or another run writes the same file; then `out` is as it was before.
    """
    chosen = Settings(**settings | {"codec": codec_for(out, settings.get("codec"))})
    paths = [None if path is None else Path(path).expanduser() for path in (driving, motion, save_motion)]
    job = Job(Path(source).expanduser(), paths[0], Path(out).expanduser(), paths[1], paths[2])

    def cast() -> Cast:
        return Cast(checkpoint, device, precision, backend, log, batch_size, allow_code)

    with claim(*job.outputs):
        job.check(chosen, overwrite, file_given(checkpoint))
        gpu = choose_device(device).type == "cuda"
        return perform(job, chosen, cast, progress, log, gpu=gpu, overwrite=overwrite, max_pixels=max_pixels)


def perform(
    job: Job,
    settings: Settings,
    cast_of: Callable[[], Cast],
    progress: Progress,
    log: Log,
    *,
    gpu: bool,
    overwrite: bool,
    max_pixels: int = MAX_PIXELS,
) -> Result:
    """One animation; `job.check` has passed. cast_of: called when the files are found good. gpu: decode on it.
    overwrite: what `job.check` was told. max_pixels: of the source, and of a frame.

    Raises as `animate`.
    """
    warnings: list[str] = []

    def warn(line: str) -> None:
        warnings.append(line)
        log(f"warning: {line}")

    source: Footage | np.ndarray
    if is_moving(job.source):
        source = open_footage(job.source, max_pixels=max_pixels)
    else:  # whole, however few of them the network sees: the result is put back into them
        source = read_image(job.source, warn, max_pixels=max_pixels)
    footage = open_footage(job.driving, gpu=gpu, max_pixels=max_pixels) if job.driving else None
    if isinstance(footage, VideoReader) and footage.decoder_note:
        log(footage.decoder_note)
    for shown in (source, footage):
        if isinstance(shown, Footage) and shown.note:
            log(f"{shown.path}: {shown.note}")
    numbers = footage.frames_between(settings.start, settings.end) if footage else range(0)
    if footage:
        _check_reference(settings.reference_frame, numbers)
    squares = _squares(source, settings, warn, progress)
    framing = None
    if footage:
        driving_crop = parse_crop(settings.driving_crop, "--driving-crop")
        framing = frame_driving(
            footage,
            numbers,
            driving_crop,
            settings.track,
            warn,
            lambda done, total: progress(done, total, "looking for faces"),
        )
    cast = cast_of()
    performer = cast.performer(warn)
    largest = max((shown.width * shown.height for shown in (source, footage) if isinstance(shown, Footage)), default=1)
    performer.batch_size = min(performer.batch_size, max(_PIXELS_AT_ONCE // largest, 1))
    log(cast.describe())
    started = time.monotonic()
    stage = _stage(source, squares, performer, settings)
    watching = Watching(performer, footage, numbers, framing) if footage and framing else None
    if watching:
        with_background = settings.mode == "absolute" or job.save_motion
        performance = watching.performance(cast.sha256, stage if with_background else None, progress)
    else:
        assert job.motion
        performance = load_performance(job.motion, cast.sha256, cast.animator.config)
        numbers = range(len(performance))
        _check_reference(settings.reference_frame, numbers)
    if performance.lost:
        spans = _spans(performance.lost)
        warn(f"{len(performance.lost)} frames without the subject or a finite motion hold the motion before: {spans}")
    if job.save_motion:
        save_performance(job.save_motion, performance, overwrite)
    background = None
    if settings.mode == "absolute" and stage.predicts is not None:
        background = performance.background_for(stage.predicts)
    motion = smoothed(performance.motion, settings.smooth, float(performance.fps))
    direct, reference, distance = _direct(stage.rest, motion, numbers.start, settings, warn)
    total = min(len(performance), stage.length or len(performance))
    sound = None
    if settings.audio and footage and footage.has_audio:
        sound = Sound(footage.path, footage.times[numbers.start], max_pixels)
    height, width = (cast.resolution, 3 * cast.resolution) if settings.compare else (stage.height, stage.width)
    remark = hard_to_play(job.out, settings.codec, width, height, performance.fps)
    if remark:
        warn(remark)
    output = open_result(
        job.out,
        frames=total,
        fps=performance.fps,
        width=width,
        height=height,
        times=performance.times,
        sound=sound,
        codec=settings.codec,
        crf=settings.crf,
        overwrite=overwrite,
        **(MARK if settings.mark else {}),
    )
    written = 0
    progress(0, total, "animating")
    with suppress(StreamClosed), output:  # whoever read our standard output may have had enough
        made = _render(stage, performer.batch_size, total, direct, background, watching if settings.compare else None)
        for frames in ahead(made):
            output.write(frames)
            written += len(frames)
            progress(written, total, "animating")
    seconds = time.monotonic() - started
    return Result(
        out=str(job.out),
        frames=written,
        fps=float(performance.fps),
        width=width,
        height=height,
        seconds=round(seconds, 3),
        frames_per_second=round(written / seconds, 3),
        device=str(cast.device),
        backend=cast.backend,
        precision=performer.precision,
        checkpoint=cast.name,
        audio=output.audio,
        reference_frame=reference,
        reference_distance=distance,
        lost_frames=performance.lost,
        warnings=warnings,
    )


def _check_reference(reference: str, numbers: range) -> None:
    if reference.isdecimal() and int(reference) not in numbers:
        raise InputError(f"--reference-frame {reference}: the frames are {numbers.start} to {numbers.stop - 1}")


def _squares(source: Footage | np.ndarray, settings: Settings, warn: Log, progress: Progress) -> list[Square]:
    """Where the source's subjects are; of a video one square for all frames."""
    crop = parse_crop(settings.crop)
    if isinstance(source, np.ndarray):
        return frame_source(source, crop, parse_face(settings.face), warn)
    square = frame_driving(
        source,
        range(source.frame_count),
        crop,
        False,
        warn,
        lambda done, total: progress(done, total, "framing the source"),
    ).square
    assert square is not None
    return [square]


def _stage(source: Footage | np.ndarray, squares: list[Square], performer: Performer, settings: Settings) -> Stage:
    paste = False if settings.compare else settings.paste_back
    lock = settings.background == "lock"
    if isinstance(source, np.ndarray):
        return StillStage(performer, source, squares, paste=paste, lock=lock)
    return MovingStage(performer, source, squares[0], paste=paste, lock=lock)


@dataclass(frozen=True)
class Watching:
    """A driving video, and where its subject is in these frames of it."""

    performer: Performer
    footage: Footage
    numbers: range
    framing: Framing

    def squares(self) -> Iterator[torch.Tensor]:
        """All frames as the network sees them: uint8 (B, 3, R, R), in batches; read while others are used."""
        return ahead(self._squares())

    def _squares(self) -> Generator[torch.Tensor, None, None]:
        size, done = self.performer.batch_size, self.numbers.start
        for batch in self.footage.batches(size, self.numbers.start, self.numbers.stop):
            numbers = range(done, done + len(batch))
            squares = self.framing.squares(batch, numbers, self.performer.animator.config.resolution)
            yield upload(squares, self.performer.animator.device)
            done = numbers.stop

    def performance(self, checkpoint: str, stage: Stage | None, progress: Progress) -> Performance:
        """The motion of every frame; with `stage`, also the background's. progress: as the frames are read.

        Raises InputError where the motion of no frame is finite.
        """
        count = len(self.numbers)
        keypoints, affine, backgrounds = Rows(count), Rows(count), Rows(count)
        progress(0, count, "reading the motion")
        for squares in self.squares():
            motion = self.performer.estimate(squares)
            keypoints.add(motion.keypoints)
            affine.add(motion.affine)
            background = stage.backgrounds(squares) if stage else None
            if background is not None:
                backgrounds.add(background)
            progress(keypoints.done, count, "reading the motion")
        motion = replace(motion, keypoints=keypoints.all(), affine=affine.all())
        background = backgrounds.all() if backgrounds.done else None
        lost = self._lost(motion, background)
        rows = held(len(motion), lost)
        first = self.footage.times[self.numbers.start]
        times = [self.footage.times[number] - first for number in self.numbers] if self.footage.variable else None
        source = ""
        if stage and stage.predicts is not None and background is not None:
            background, source = background[rows], picture_digest(stage.predicts)
        return Performance(motion[rows], self.footage.fps, checkpoint, times, background, lost, source)

    def _lost(self, motion: Motion, background: torch.Tensor | None) -> list[int]:
        """The frames, from 0 on, where there is no subject, or no motion that is finite."""
        finite = motion.is_finite()
        if background is not None:
            finite &= background.isfinite().flatten(1).all(dim=1)
        if not finite.any():
            raise InputError(f"{self.footage.path}: the motion of no frame is finite: is the checkpoint damaged?")
        broken = set((~finite).nonzero().flatten().tolist())
        lost = broken | {number - self.numbers.start for number in self.framing.lost_frames(self.numbers)}
        return sorted(lost if len(lost) < len(motion) else broken)


class Rows:
    """Up to `most` rows, batch by batch, in one tensor on the CPU that is there from the first on.

    Small tensors kept one by one come to lie between the large ones of each batch, whose room then serves no more: the
    process would grow with the video.
    """

    def __init__(self, most: int) -> None:
        self.most, self.done = most, 0
        self._rows: torch.Tensor | None = None

    def add(self, batch: torch.Tensor) -> None:
        if self._rows is None:
            self._rows = torch.empty(self.most, *batch.shape[1:], dtype=batch.dtype)
        self._rows[self.done : self.done + len(batch)] = batch
        self.done += len(batch)

    def all(self) -> torch.Tensor:
        assert self._rows is not None
        return self._rows[: self.done]


def _direct(
    rest: Motion, motion: Motion, start: int, settings: Settings, warn: Log
) -> tuple[Direct, int | None, float | None]:
    """What drives a source in some frames; the reference frame's number in the driving video, and its distance."""
    if settings.mode == "absolute":
        return (lambda source, first, part: motion[part]), None, None
    given = settings.reference_frame
    wanted: int | Literal["best"] = "best" if given == "best" else 0 if given == "first" else int(given) - start
    number, distance = choose_reference(rest, motion, wanted)
    if distance > FAR:
        warn(
            f"the driver's frame {start + number} has a pose {distance:.2f} from the source's (up to {FAR} is near): "
            "the source may be bent; a driving video where the pose of the source occurs works better"
        )
    reference = motion[number : number + 1]

    def direct(source: Motion, first: Motion, part: slice) -> Motion:
        return transferred(source, first, motion[part], reference, settings.adapt_scale, settings.strength)

    return direct, start + number, round(distance, 4)


def _render(
    stage: Stage,
    batch_size: int,
    total: int,
    direct: Direct,
    background: torch.Tensor | None,
    beside: Watching | None,
) -> Generator[np.ndarray, None, None]:
    """The frames of the result, uint8 (B, H, W, 3), in batches. background: (T, 3, 3). beside: the driving video, where
    it is to be seen beside them."""
    driving = beside.squares() if beside else None

    def drive() -> Generator[Driven, None, None]:
        for first in range(0, total, batch_size):
            part = slice(first, min(first + batch_size, total))
            yield stage.drive(part, direct, None if background is None else background[part])

    for driven in ahead(drive()):
        results = stage.compose(driven)
        if driving is not None:
            seen = next(driving)[: len(results)]
            sources = driven.sources.expand(len(seen), -1, -1, -1)
            inputs = [download(pictures).permute(0, 2, 3, 1).numpy() for pictures in (sources, seen)]
            results = np.concatenate([*inputs, results], axis=2)
        yield results


def _spans(numbers: list[int]) -> str:
    """`3-9, 40`."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(f"{a}-{b}" if b > a else str(a) for a, b in spans[:8]) + ("..." if len(spans) > 8 else "")
