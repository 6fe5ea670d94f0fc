"""Animating a picture in four steps: open the inputs, read the motion, retarget it, render and write.

The steps pass on `Inputs`, `MotionSequence`, `RetargetedMotion` and `Result`.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from mtanimate.animation.inputs import Inputs, Log, Messages, Progress, check_reference, open_inputs
from mtanimate.animation.motion_sequence import DrivingVideo, MotionSequence, load_motion, save_motion
from mtanimate.animation.results import MARK, codec_for, hard_to_play, open_result
from mtanimate.animation.retargeting import (
    FAR,
    AbsoluteTransfer,
    DisentangledTransfer,
    RelativeTransfer,
    RetargetedMotion,
    choose_reference,
    smoothed,
)
from mtanimate.animation.settings import Job, Settings
from mtanimate.animation.source import (
    SourceRenderer,
    describe_size,
    largest_side,
    open_renderer,
    render_batches,
    side_by_side,
)
from mtanimate.checkpoints.registry import file_given, published_name
from mtanimate.credentials import Credentials, Made, Sign
from mtanimate.devices import Precision, choose_device
from mtanimate.inference.loading import LoadedNetwork, load_network
from mtanimate.inference.predictor import Predictor
from mtanimate.inference.prefetch import prefetch
from mtanimate.models.animator import check_disentangles
from mtanimate.outputs import claim
from mtanimate.reading import MAX_PIXELS
from mtanimate.video.streams import StreamClosed

# The stages that `progress` names, and how long each takes relative to the others.
STAGES = {"framing the source": 1, "looking for faces": 1, "reading the motion": 4, "animating": 12}


@dataclass
class Result:
    """What was made, as `--json` prints it.

    Attributes:
        seconds: From the loaded network to the finished file.
        reference_frame: The driver's frame that counts as rest; None where the driver's pose is taken over.
        reference_distance: Between the poses of the source and of that frame; above `retargeting.FAR` it is far.
        lost_frames: The frames, from the first used one on, that hold the motion before.
    """

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


def animate(
    source: str | Path,
    driving: str | Path | None,
    out: str | Path,
    *,
    checkpoint: str = "default",
    device: str = "auto",
    precision: Precision = "auto",
    backend: str = "auto",
    batch_size: int | None = None,
    allow_code: bool = False,
    max_pixels: int = MAX_PIXELS,
    motion: str | Path | None = None,
    save_motion: str | Path | None = None,
    credentials: tuple[str | Path, str | Path] | None = None,
    overwrite: bool = False,
    progress: Progress = lambda done, total, stage: None,
    log: Log = lambda line: None,
    **settings: Any,
) -> Result:
    """Animate the picture `source` with the motion of the video `driving` and write the video `out`.

    Everything that can be checked is checked before anything is computed.

    Args:
        source: A picture, or a video whose every frame is moved.
        driving: A video, a folder of frames, or a picture; or None, with `motion`.
        out: A video, a folder for a PNG per frame, a picture for a single frame, or "-" for standard output.
        checkpoint, device, precision, backend, batch_size, allow_code: As `load_network` takes them.
        max_pixels: The largest number of pixels of the source, and of a frame.
        motion: A file that `save_motion` wrote, in place of `driving`.
        save_motion: Where to keep the driver's motion: NAME.safetensors or NAME.npz.
        credentials: A certificate and its private key, PEM files, to sign the result with content credentials (C2PA).
        overwrite: Replace what exists at `out` and `save_motion`.
        progress: Called as progress(done, total, stage) with the frames of each of `STAGES`.
        log: Gets remarks and warnings as they come up, a line at a time.
        **settings: The fields of `Settings`.

    Raises:
        InputError: A file or an option is wrong.
        MTAnimateError: Writing fails, or another run writes the same file. `out` is then as it was before.
    """
    chosen = Settings(**settings | {"codec": codec_for(out, settings.get("codec"))})
    paths = [None if path is None else Path(path).expanduser() for path in (driving, motion, save_motion)]
    job = Job(Path(source).expanduser(), paths[0], Path(out).expanduser(), paths[1], paths[2])

    def load() -> LoadedNetwork:
        return load_network(checkpoint, device, precision, backend, log, batch_size, allow_code)

    with claim(*job.outputs):
        job.check(chosen, overwrite, file_given(checkpoint))
        given: dict[str, Any] = {"overwrite": overwrite, "max_pixels": max_pixels}
        given |= {"gpu": choose_device(device).type == "cuda"}
        given |= {"credentials": Credentials.read(*credentials) if credentials else None}
        return run_job(job, chosen, load, progress, log, **given)


def run_job(
    job: Job,
    settings: Settings,
    load: Callable[[], LoadedNetwork],
    progress: Progress,
    log: Log,
    *,
    gpu: bool,
    overwrite: bool,
    max_pixels: int = MAX_PIXELS,
    credentials: Credentials | None = None,
) -> Result:
    """One animation, for which `job.check` has passed.

    Args:
        load: Gives the network. It is called when the inputs are known to be good.
        gpu: Decode the driving video on the GPU.
        overwrite: As `job.check` was told.
        credentials: To sign the result with.

    For the others, and for what is raised, see `animate`.
    """
    messages = Messages(progress, log)
    if credentials:
        credentials.check(job.out, settings.codec)
    inputs = open_inputs(job, settings, messages, gpu=gpu, max_pixels=max_pixels)
    loaded = load()
    predictor = Predictor.of(loaded, messages.warn)
    predictor.batch_size = min(predictor.batch_size, inputs.largest_batch)
    if settings.mode == "avd":
        check_disentangles(loaded.config)
    log(loaded.describe())
    started = time.monotonic()
    renderer = open_renderer(
        predictor,
        inputs.source,
        inputs.squares,
        paste=settings.pasted,
        lock=settings.background == "lock",
        largest=largest_side(settings.resolution, predictor),
    )
    log(describe_size(renderer, inputs.squares[0]))
    sequence = read_motion(inputs.driving, job, settings, loaded, predictor, renderer, messages)
    if job.save_motion:
        save_motion(job.save_motion, sequence, overwrite)
    motion = retarget(sequence, renderer, predictor, settings, messages.warn)
    sign = credentials.signs(_made(job, loaded)) if credentials else None
    written = render(inputs, motion, renderer, predictor, job.out, settings, messages, overwrite, sign)
    seconds = time.monotonic() - started
    return Result(
        out=str(job.out),
        frames=written.frames,
        fps=float(motion.fps),
        width=written.width,
        height=written.height,
        seconds=round(seconds, 3),
        frames_per_second=round(written.frames / seconds, 3),
        device=str(loaded.device),
        backend=loaded.backend,
        precision=predictor.precision,
        checkpoint=loaded.name,
        audio=written.audio,
        reference_frame=motion.reference_frame,
        reference_distance=motion.reference_distance,
        lost_frames=sequence.lost,
        warnings=messages.warnings,
    )


def _made(job: Job, loaded: LoadedNetwork) -> Made:
    files = {"source": job.source, "driving": job.driving, "motion": job.motion}
    inputs = {word: path for word, path in files.items() if path is not None}
    return Made(inputs, published_name(loaded.name), loaded.sha256)


# Step 2: read the motion


def read_motion(
    driving: DrivingVideo | Path,
    job: Job,
    settings: Settings,
    loaded: LoadedNetwork,
    predictor: Predictor,
    renderer: SourceRenderer,
    messages: Messages,
) -> MotionSequence:
    """The driver's motion, from a video or from a file that `save_motion` wrote.

    Raises InputError where a video is damaged or gives no finite motion, and where a file is damaged or of other
    weights.
    """
    if isinstance(driving, Path):
        sequence = load_motion(driving, loaded.sha256, loaded.config)
        check_reference(settings.reference_frame, range(len(sequence)))
    else:
        with_background = settings.mode == "absolute" or job.save_motion is not None
        background_of = renderer if with_background else None
        reading = messages.stage("reading the motion")
        sequence = driving.read_motion(predictor, loaded.sha256, background_of, reading)
    if sequence.lost:
        count, spans = len(sequence.lost), _spans(sequence.lost)
        messages.warn(f"{count} frames without the subject or a finite motion hold the motion before: {spans}")
    return sequence


def _spans(numbers: list[int]) -> str:
    """`3-9, 40`."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(f"{a}-{b}" if b > a else str(a) for a, b in spans[:8]) + ("..." if len(spans) > 8 else "")


# Step 3: retarget it


def retarget(
    sequence: MotionSequence, renderer: SourceRenderer, predictor: Predictor, settings: Settings, warn: Log
) -> RetargetedMotion:
    """Smooth the driver's motion, and choose the reference frame, to which the source's own pose corresponds.

    Raises InputError where mode absolute needs the background's motion and it is not known for this source.
    """
    frames = min(len(sequence), renderer.length or len(sequence))
    timing = frames, sequence.fps, sequence.times
    driving = smoothed(sequence.motion, settings.smooth, float(sequence.fps))
    if settings.mode == "absolute":
        background = None if renderer.predicts is None else sequence.background_for(renderer.predicts)
        return RetargetedMotion(AbsoluteTransfer(driving), background, *timing)
    if settings.mode == "avd":
        return RetargetedMotion(DisentangledTransfer(driving, predictor.disentangle), None, *timing)
    given, start = settings.reference_frame, sequence.start
    wanted: int | Literal["best"] = "best" if given == "best" else 0 if given == "first" else int(given) - start
    number, distance = choose_reference(renderer.rest, driving, wanted)
    if distance > FAR:
        warn(
            f"the driver's frame {start + number} has a pose {distance:.2f} from the source's (up to {FAR} is near): "
            "the source may be bent; a driving video where the pose of the source occurs works better"
        )
    transfer = RelativeTransfer(driving, driving[number : number + 1], settings.adapt_scale, settings.strength)
    return RetargetedMotion(transfer, None, *timing, start + number, round(distance, 4))


# Step 4: render and write


@dataclass(frozen=True)
class Written:
    """What was written. width, height: of a frame, in pixels. audio: whether there is sound."""

    frames: int
    width: int
    height: int
    audio: bool


def render(
    inputs: Inputs,
    motion: RetargetedMotion,
    renderer: SourceRenderer,
    predictor: Predictor,
    out: Path,
    settings: Settings,
    messages: Messages,
    overwrite: bool,
    sign: Sign | None = None,
) -> Written:
    """Drive the source, write the result, and let `sign` sign it. Raises MTAnimateError where it cannot be written."""
    height, width, size = renderer.height, renderer.width, predictor.batch_size
    # Closing `results` must end the threads behind it, so nothing else here holds the batches.
    if settings.compare:
        assert isinstance(inputs.driving, DrivingVideo)  # `job.check` saw to it
        height, width = renderer.side, 3 * renderer.side
        results = side_by_side(
            renderer, render_batches(renderer, motion, size), inputs.driving.squares(predictor, renderer.side)
        )
    else:
        results = (result for _, result in render_batches(renderer, motion, size))
    remark = hard_to_play(out, settings.codec, width, height, motion.fps)
    if remark:
        messages.warn(remark)
    output = open_result(
        out,
        frames=motion.frames,
        fps=motion.fps,
        width=width,
        height=height,
        times=motion.times,
        sound=inputs.sound,
        codec=settings.codec,
        crf=settings.crf,
        overwrite=overwrite,
        sign=sign,
        **(MARK if settings.mark else {}),
    )
    written, animating = 0, messages.stage("animating")
    animating(0, motion.frames)
    with suppress(StreamClosed), output:  # a program that reads our standard output may stop before the end
        for frames in prefetch(results):
            output.write(frames)
            written += len(frames)
            animating(written, motion.frames)
    return Written(written, width, height, output.audio)
