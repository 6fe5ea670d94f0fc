"""`mtanimate animate`."""

from enum import Enum
from pathlib import Path
from typing import Any

import typer

from mtanimate.cli.terminal import (
    DEBUG,
    DEVICE,
    JSON,
    MAX_PIXELS,
    QUIET,
    Backend,
    Mode,
    Precision,
    print_json,
    progress_bar,
    put,
    remark,
    reports_errors,
    staged_progress,
)

EXAMPLE = "Example: mtanimate animate --source face.jpg --driving talk.mp4 --out result.mp4"


class Background(str, Enum):
    move = "move"
    lock = "lock"


@reports_errors
def command(
    source: Path | None = typer.Option(
        None, help="The picture to animate; of a video, every frame.", show_default="required"
    ),
    driving: Path | None = typer.Option(
        None, help="The video whose motion it takes; a folder of frames; a picture; webcam:0; - for standard input."
    ),
    out: str | None = typer.Option(
        None, help="The video to write; NAME.gif, NAME.png, or FOLDER/ for a PNG a frame.", show_default="required"
    ),
    checkpoint: str = typer.Option(
        "default",
        help="From 'mtanimate checkpoints list', a .safetensors file, or FOLDER/ from 'mtanimate export'.",
    ),
    mode: Mode = typer.Option(Mode.relative, help="Add the driver's movement to the source, or copy the pose."),
    reference_frame: str = typer.Option("best", help="Movement is since this driving frame: best, first or a number."),
    adapt_scale: bool = typer.Option(True, help="Scale movement by the two subjects' sizes."),
    strength: float = typer.Option(1.0, min=0, help="Of the movement: 0 stands still, 1 as it is."),
    smooth: float = typer.Option(0.0, min=0, help="Smooth the motion over so many seconds, without lag."),
    crop: str = typer.Option("auto", help="Of the source: auto (about the face), none (centre), or X,Y,W,H."),
    driving_crop: str = typer.Option("auto", help="Of the driving video, likewise."),
    track: bool = typer.Option(False, "--track", help="The driving crop follows the face."),
    face: str = typer.Option("largest", help="Which of the source's faces: largest, all, or its number from the left."),
    paste_back: bool | None = typer.Option(
        None, help="Put the animated square back into the whole source.", show_default="where it was cropped"
    ),
    background: Background = typer.Option(Background.move, help="lock: the source's background stands still."),
    start: float | None = typer.Option(None, min=0, help="Begin so many seconds into the driving video."),
    end: float | None = typer.Option(None, min=0, help="End there."),
    audio: bool = typer.Option(True, help="Keep the driving video's sound."),
    compare: bool = typer.Option(False, "--compare", help="Source, driving and result side by side."),
    codec: str | None = typer.Option(
        None, help="h264, h265, vp9, av1, prores, ffv1, gif or png.", show_default="by the name of --out"
    ),
    crf: int | None = typer.Option(None, min=0, help="Quality: lower is better and larger."),
    mark: bool = typer.Option(True, help="Say in the file's metadata that it is synthetic."),
    motion: Path | None = typer.Option(None, help="Instead of --driving, motion that --save-motion kept."),
    save_motion: Path | None = typer.Option(None, help="Keep the driver's motion: NAME.safetensors or NAME.npz."),
    jobs: Path | None = typer.Option(
        None, help="A CSV file: source, driving, out and options, a row each; options beside it hold for all."
    ),
    workers: int | None = typer.Option(None, min=1, help="Jobs at a time.", show_default="1; 2 on a GPU"),
    max_pixels: int = MAX_PIXELS,
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace an existing --out."),
    device: str = DEVICE,
    precision: Precision = typer.Option(Precision.auto, help="What the network computes in."),
    batch_size: int | None = typer.Option(
        None, min=1, help="Frames computed at once.", show_default="4 on a CPU, 8 on mps, 32 on cuda"
    ),
    backend: Backend | None = typer.Option(
        None, help="What runs the network.", show_default="torch; what an exported folder is for"
    ),
    allow_code: bool = typer.Option(
        False, "--allow-code", help="Run a folder's .pt2 programs, which can do anything here: only if you trust them."
    ),
    json: bool = JSON,
    quiet: bool = QUIET,
    debug: bool = DEBUG,
) -> None:
    """Animate a picture with the motion of a video."""
    from mtanimate.animation.animate import STAGES, animate
    from mtanimate.animation.live_streams import animate_stream
    from mtanimate.errors import InputError
    from mtanimate.video.streams import is_stream

    network: dict[str, Any] = {"checkpoint": checkpoint, "device": device, "precision": precision.value}
    network |= {"backend": backend and backend.value, "batch_size": batch_size, "allow_code": allow_code}
    network |= {"max_pixels": max_pixels}
    own: dict[str, Any] = {
        "mode": mode.value,
        "reference_frame": reference_frame,
        "adapt_scale": adapt_scale,
        "strength": strength,
        "smooth": smooth,
        "crop": crop,
        "driving_crop": driving_crop,
        "track": track,
        "face": face,
        "paste_back": paste_back,
        "background": background.value,
        "start": start,
        "end": end,
        "audio": audio,
        "compare": compare,
        "codec": codec,
        "crf": crf,
        "mark": mark,
    }
    if jobs is not None:
        if source or driving or out or motion or save_motion:
            raise InputError("--jobs names its files in its rows: leave out --source, --driving, --out and --motion")
        _perform_jobs(jobs, network | own, overwrite, workers, json, quiet)
        return
    if source is None or out is None:
        raise InputError(f"--{'source' if source is None else 'out'} is missing; --help shows an example")
    if driving is not None and is_stream(str(driving)):
        if motion or save_motion:
            raise InputError("--motion and --save-motion are for driving videos from files, not for streams")
        report = animate_stream(source, str(driving), out, overwrite=overwrite, log=remark(quiet), **network, **own)
        if json and out != "-":
            print_json(report.as_dict())
        else:
            remark(quiet)(str(report))  # standard output may be the video's
        return
    with staged_progress(STAGES, "frames", quiet) as progress:
        result = animate(
            source,
            driving,
            out,
            motion=motion,
            save_motion=save_motion,
            overwrite=overwrite,
            progress=progress,
            log=remark(quiet),
            **network,
            **own,
        )
    if out == "-":
        return  # standard output is the video's
    if json:
        print_json(result.as_dict())
    elif not quiet:
        put(
            f"{result.out}: {result.frames} frames, {result.width} x {result.height}, "
            f"{result.frames_per_second:.1f} frames a second on {result.device}"
        )


def _perform_jobs(
    jobs: Path, options: dict[str, Any], overwrite: bool, workers: int | None, json: bool, quiet: bool
) -> None:
    """Exit code 1 where a row failed."""
    from mtanimate.animation.jobs import run_jobs

    with progress_bar("animating", "jobs", quiet) as progress:
        report = run_jobs(
            jobs,
            overwrite=overwrite,
            workers=workers,
            progress=progress,
            log=remark(quiet),
            **options,
        )
    if json:
        print_json(report.as_dict())
    elif not quiet:
        put(f"{report.report}: {report.done} done, {report.skipped} done before, {report.failed} failed")
    if report.failed:
        raise SystemExit(1)
