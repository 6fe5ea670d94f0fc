"""The walk of a frame: driving video -> motion -> transfer -> driven source -> finished video."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from mtanimate.checkpoints.file import read_checkpoint
from mtanimate.checkpoints.registry import resolve
from mtanimate.devices import Precision, choose_device, choose_precision, describe_device
from mtanimate.errors import InputError
from mtanimate.models.performer import BATCH_SIZE, Performer
from mtanimate.video import VideoReader, VideoWriter, check_output, read_image
from mtanimate.video.crop import square_frames, to_frames

Mode = Literal["relative", "absolute"]


@dataclass
class Result:
    """What was made, as `--json` prints it."""

    out: str
    frames: int
    fps: float
    width: int
    height: int
    seconds: float
    frames_per_second: float
    device: str
    precision: str
    checkpoint: str
    audio: bool
    reference_frame: int | None
    warnings: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def animate(
    source: str | Path,
    driving: str | Path,
    out: str | Path,
    *,
    checkpoint: str = "default",
    mode: Mode = "relative",
    audio: bool = True,
    overwrite: bool = False,
    device: str = "auto",
    precision: Precision = "auto",
    progress: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda line: None,
) -> Result:
    """Animate the picture `source` with the motion of the video `driving` and write the video `out`.

    mode: `relative` adds the driver's movement since the first frame to the source's own pose, scaled by the
    subjects' sizes; `absolute` takes over the driver's pose. audio: keep the driving video's sound.
    progress(done, total) counts frames; say(line) gets remarks and warnings as they come up.

    Everything that can be checked is checked before anything is computed. Raises InputError for a wrong
    file or option, MTAnimateError where writing fails; then `out` is as it was before.
    """
    warnings: list[str] = []

    def warn(line: str) -> None:
        warnings.append(line)
        say(f"warning: {line}")

    source, driving, out = (Path(path).expanduser() for path in (source, driving, out))
    _check_paths(source, driving, out, overwrite)
    if mode not in ("relative", "absolute"):
        raise InputError(f"--mode {mode}: not one of relative, absolute")
    weights = resolve(checkpoint)
    chosen = choose_device(device)
    chosen_precision = choose_precision(precision, chosen)
    picture = read_image(source)
    reader = VideoReader(driving, gpu=chosen.type == "cuda")
    for name, width, height in (("source", *picture.shape[1::-1]), ("driving video", reader.width, reader.height)):
        if width != height:
            side = min(width, height)
            warn(f"the {name} is {width} x {height}: its middle {side} x {side} is used, nothing is stretched")
    if reader.decoder_note:
        say(reader.decoder_note)
    animator = read_checkpoint(weights, chosen).animator
    resolution = animator.config.resolution
    say(f"device {describe_device(chosen)}, {chosen_precision}; decoder {reader.decoder}; {resolution} x {resolution}")

    performer = Performer(animator, chosen_precision, relative=mode == "relative", warn=warn)
    performer.set_source(square_frames(picture[None], resolution))
    started = time.monotonic()
    frames = 0
    sound = driving if audio else None
    with VideoWriter(
        out, fps=reader.fps, width=resolution, height=resolution, audio_from=sound, overwrite=overwrite
    ) as writer:
        for batch in reader.batches(BATCH_SIZE[chosen.type]):
            writer.write(to_frames(performer.perform(square_frames(batch, resolution))))
            frames += len(batch)
            progress(frames, reader.frame_count)
    seconds = time.monotonic() - started
    return Result(
        out=str(out),
        frames=frames,
        fps=float(reader.fps),
        width=resolution,
        height=resolution,
        seconds=round(seconds, 3),
        frames_per_second=round(frames / seconds, 3),
        device=str(chosen),
        precision=performer.precision,
        checkpoint=str(checkpoint),
        audio=writer.audio,
        reference_frame=0 if mode == "relative" else None,
        warnings=warnings,
    )


def _check_paths(source: Path, driving: Path, out: Path, overwrite: bool) -> None:
    check_output(out, overwrite)
    for given in (source, driving):
        if out.exists() and given.exists() and out.samefile(given):
            raise InputError(f"--out {out} is also an input: choose another name")
