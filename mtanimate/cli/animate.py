"""`mtanimate animate`."""

from enum import Enum
from pathlib import Path
from typing import Any

import typer

from mtanimate.cli.options import (
    BACKEND,
    CHECKING,
    CLUSTER,
    CORES,
    DEBUG,
    DEVICE,
    DRIVING_CROP,
    ENCODING,
    FILES,
    FRAMING,
    HARDWARE,
    JSON,
    MAX_PIXELS,
    MOTION,
    PRECISION,
    QUIET,
    Backend,
    Mode,
    Precision,
    checkpoint_option,
    cluster_options,
    crop_option,
    face_option,
    one_of,
    overwrite_option,
)
from mtanimate.cli.terminal import print_json, progress_bar, put, remark, reports_errors, staged_progress

EXAMPLE = "Example: mtanimate animate --source face.jpg --driving talk.mp4 --out result.mp4"
CODECS = ("h264", "h265", "vp9", "av1", "prores", "ffv1", "gif", "png")


class Background(str, Enum):
    move = "move"
    lock = "lock"


@reports_errors
def command(
    source: Path | None = typer.Option(
        None,
        metavar="FILE",
        help="Required, except with --jobs: the picture to animate. A video is animated frame by frame.",
        rich_help_panel=FILES,
    ),
    driving: Path | None = typer.Option(
        None,
        metavar="FILE",
        help="The video that moves it; or a folder of frames, a picture, webcam:0, or - for standard input.",
        rich_help_panel=FILES,
    ),
    out: str | None = typer.Option(
        None,
        metavar="FILE",
        help="The video to write; or NAME.gif, NAME.png, FOLDER/ for PNGs, window, or - for standard output.",
        show_default="SOURCE-DRIVING.mp4",
        rich_help_panel=FILES,
    ),
    checkpoint: str = checkpoint_option(
        "A name from 'mtanimate checkpoints list', a .safetensors file, or FOLDER/ from 'mtanimate export'."
    ),
    start: float | None = typer.Option(
        None, metavar="SECONDS", min=0, help="Where to begin in the driving video.", rich_help_panel=FILES
    ),
    end: float | None = typer.Option(None, metavar="SECONDS", min=0, help="Where to end.", rich_help_panel=FILES),
    overwrite: bool = overwrite_option("Replace existing files."),
    save_motion: Path | None = typer.Option(
        None, metavar="FILE", help="Also keep the motion: NAME.safetensors or NAME.npz.", rich_help_panel=FILES
    ),
    motion: Path | None = typer.Option(
        None, metavar="FILE", help="Instead of --driving: motion that --save-motion kept.", rich_help_panel=FILES
    ),
    jobs: Path | None = typer.Option(
        None,
        metavar="FILE",
        help="Many at once: a CSV or Parquet file with a row for each, with source, driving, out and any option. "
        "Options given here hold for all rows.",
        rich_help_panel=FILES,
    ),
    crop: str = crop_option("source"),
    driving_crop: str = DRIVING_CROP,
    track: bool = typer.Option(False, "--track", help="Let the driving crop follow the face.", rich_help_panel=FRAMING),
    face: str = face_option("Which face of the source: largest, all, or its number from the left.", "all"),
    paste_back: bool | None = typer.Option(
        None,
        help="Put the animated square back into the whole source.",
        show_default="if it was cropped",
        rich_help_panel=FRAMING,
    ),
    resolution: str = typer.Option(
        "auto",
        metavar="auto|N",
        help="The largest side of the animated square, in pixels. auto: its own size, up to 1440.",
        autocompletion=one_of("auto"),
        rich_help_panel=FRAMING,
    ),
    background: Background = typer.Option(
        Background.move, metavar="move|lock", help="lock: keep the source's background still.", rich_help_panel=FRAMING
    ),
    mode: Mode = typer.Option(
        Mode.relative,
        metavar="MODE",
        help="relative: add the driver's movement to the source's pose. absolute: copy the driver's pose. avd: copy "
        "it, and keep the source's shape (TPSMM's checkpoints).",
        rich_help_panel=MOTION,
    ),
    reference_frame: str = typer.Option(
        "best",
        metavar="N",
        help="The driving frame that movement is measured from: best, first, or a number.",
        autocompletion=one_of("best", "first"),
        rich_help_panel=MOTION,
    ),
    strength: float = typer.Option(
        1.0, metavar="X", min=0, help="How much of the movement: 0.5 halves it.", rich_help_panel=MOTION
    ),
    smooth: float = typer.Option(
        0.0, metavar="SECONDS", min=0, help="Smooth the motion over this time, without lag.", rich_help_panel=MOTION
    ),
    adapt_scale: bool = typer.Option(
        True, help="Scale movement by the sizes of the two subjects.", rich_help_panel=MOTION
    ),
    codec: str | None = typer.Option(
        None,
        metavar="NAME",
        help=f"{', '.join(CODECS[:-1])} or {CODECS[-1]}.",
        show_default="by the ending of --out",
        autocompletion=one_of(*CODECS),
        rich_help_panel=ENCODING,
    ),
    crf: int | None = typer.Option(
        None, metavar="N", min=0, help="Quality: lower is better, and larger.", rich_help_panel=ENCODING
    ),
    audio: bool = typer.Option(True, help="Keep the driving video's sound.", rich_help_panel=ENCODING),
    compare: bool = typer.Option(
        False, "--compare", help="Show source, driving and result side by side.", rich_help_panel=ENCODING
    ),
    mark: bool = typer.Option(True, help="Say in the metadata that the result is synthetic.", rich_help_panel=ENCODING),
    credentials: tuple[Path, Path] | None = typer.Option(
        None,
        metavar="CERT KEY",
        help="Sign the result with content credentials (C2PA): a certificate and its private key, PEM files.",
        rich_help_panel=ENCODING,
    ),
    device: str = DEVICE,
    precision: Precision = PRECISION,
    batch_size: int | None = typer.Option(
        None,
        metavar="N",
        min=1,
        help="Frames computed at once.",
        show_default="2 for each thread of a CPU (4 to 16), 8 on mps, 32 on cuda",
        rich_help_panel=HARDWARE,
    ),
    backend: Backend = BACKEND,
    workers: int | None = typer.Option(
        None,
        metavar="N",
        min=1,
        help="With --jobs: rows at a time; with --cluster: workers, at most.",
        show_default="1, 2 on a GPU; all that the cluster has room for",
        rich_help_panel=HARDWARE,
    ),
    cluster: str | None = CLUSTER,
    cores: int | None = CORES,
    max_pixels: int = MAX_PIXELS,
    allow_code: bool = typer.Option(
        False,
        "--allow-code",
        help="Run the .pt2 programs of an exported folder. They can do anything on this machine: trust them first.",
        rich_help_panel=CHECKING,
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
    network |= {"backend": backend.value, "batch_size": batch_size, "allow_code": allow_code}
    network |= {"max_pixels": max_pixels, "credentials": credentials}
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
        "resolution": resolution,
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
            raise InputError(
                "with --jobs, rows name the files: leave out --source, --driving, --out, --motion and --save-motion"
            )
        on_cluster = cluster_options(cluster, cores)
        options = network | own | {"overwrite": overwrite, "workers": workers, "on_cluster": on_cluster}
        _perform_jobs(jobs, options, json, quiet)
        return
    if cluster is not None:
        raise InputError("--cluster performs the rows of a file: give --jobs FILE, or leave it out")
    if source is None:
        raise InputError("--source is missing: give the picture to animate; --help shows an example")
    if driving is not None and is_stream(str(driving)):
        if out is None:
            raise InputError("--out is missing: give a video to write, window, or - for standard output")
        if motion or save_motion:
            raise InputError("--motion and --save-motion do not work with a stream as --driving: give a file")
        report = animate_stream(source, str(driving), out, overwrite=overwrite, log=remark(quiet), **network, **own)
        if json and out != "-":
            print_json(report.as_dict())
        else:
            remark(quiet)(str(report))  # standard output may hold the video
        return
    with staged_progress(STAGES, "frames", quiet) as progress:
        result = animate(
            source,
            driving,
            out or default_out(source, driving or motion, codec, overwrite),
            motion=motion,
            save_motion=save_motion,
            overwrite=overwrite,
            progress=progress,
            log=remark(quiet),
            **network,
            **own,
        )
    if out == "-":
        return  # standard output holds the video
    if json:
        print_json(result.as_dict())
    elif not quiet:
        put(
            f"{result.out}: {result.frames} frames, {result.width} x {result.height}, "
            f"{result.frames_per_second:.1f} frames a second on {result.device}"
        )


LONGEST_PART = 30  # characters of either name; with four bytes each, a name of 255 bytes has room for both


def default_out(source: Path, driving: Path | None, codec: str | None, overwrite: bool) -> Path:
    """The name of a result that was given none: SOURCE-DRIVING with the ending that suits it, in the current folder.

    Two still pictures make a picture; a codec that MP4 cannot hold brings its own container. The name gets a number
    where it is taken, unless `overwrite`.

    Args:
        source: the picture to animate.
        driving: the video, picture or folder that moves it, or the file with its motion; None: not given.
        codec: as `--codec`; None: by the container.
        overwrite: whether the result may replace what is there.

    Returns:
        A relative path.
    """
    from mtanimate.files import taken
    from mtanimate.video.encoding import CODECS as KNOWN
    from mtanimate.video.footage import is_moving, is_picture

    files = [path.expanduser() for path in (source, driving) if path is not None]
    if codec in (None, "png") and is_picture(files[-1]) and not any(map(is_moving, files)):
        ending = ".png"
    else:
        ending = KNOWN[codec].containers[0] if codec in KNOWN else ".mp4"
    stem = "-".join((path.resolve().name if path.is_dir() else path.stem)[:LONGEST_PART] for path in files)
    stem = stem if ending else stem.replace(".", "_")  # or a folder's name would look like a file's
    out, number = Path(stem + ending), 1
    while taken(out) and not overwrite:
        number += 1
        out = Path(f"{stem}-{number}{ending}")
    return out


def _perform_jobs(jobs: Path, options: dict[str, Any], json: bool, quiet: bool) -> None:
    """Performs the rows of a jobs file. The exit code is 1 if one failed."""
    from mtanimate.animation.jobs import run_jobs

    with progress_bar("animating", "jobs", quiet) as progress:
        report = run_jobs(jobs, progress=progress, log=remark(quiet), **options)
    if json:
        print_json(report.as_dict())
    elif not quiet:
        put(f"{report.report}: {report.done} done, {report.skipped} already done, {report.failed} failed")
    if report.failed:
        raise SystemExit(1)
