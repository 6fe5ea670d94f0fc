"""`mtanimate animate`."""

from pathlib import Path

import typer

from mtanimate.cli.terminal import (
    DEBUG,
    DEVICE,
    JSON,
    QUIET,
    Mode,
    Precision,
    print_json,
    progress_bar,
    remark,
    reports_errors,
)

EXAMPLE = "Example: mtanimate animate --source face.jpg --driving talk.mp4 --out result.mp4"


@reports_errors
def command(
    source: Path = typer.Option(..., help="The picture to animate."),
    driving: Path = typer.Option(..., help="The video whose motion it takes."),
    out: Path = typer.Option(..., help="The video to write: .mp4, .mov, .mkv or .m4v."),
    checkpoint: str = typer.Option("default", help="A name from 'mtanimate doctor' or a .safetensors file."),
    mode: Mode = typer.Option(Mode.relative, help="Add the driver's movement to the source, or copy the pose."),
    audio: bool = typer.Option(True, help="Keep the driving video's sound."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace an existing --out."),
    device: str = DEVICE,
    precision: Precision = typer.Option(Precision.auto, help="What the network computes in."),
    json: bool = JSON,
    quiet: bool = QUIET,
    debug: bool = DEBUG,
) -> None:
    """Animate a picture with the motion of a video."""
    from mtanimate.animation.animate import animate

    with progress_bar("animating", "frames", quiet) as progress:
        result = animate(
            source,
            driving,
            out,
            checkpoint=checkpoint,
            mode=mode.value,
            audio=audio,
            overwrite=overwrite,
            device=device,
            precision=precision.value,
            progress=progress,
            say=remark(quiet),
        )
    if json:
        print_json(result.as_dict())
    elif not quiet:
        print(
            f"{result.out}: {result.frames} frames, {result.width} x {result.height}, "
            f"{result.frames_per_second:.1f} frames a second on {result.device}"
        )
