"""`mtanimate inspect`."""

from pathlib import Path

import typer

from mtanimate.cli.terminal import (
    DEBUG,
    DEVICE,
    JSON,
    MAX_PIXELS,
    QUIET,
    print_json,
    progress_bar,
    put,
    remark,
    reports_errors,
)

EXAMPLE = "Example: mtanimate inspect --source face.jpg --driving talk.mp4 --out inside.mp4"


@reports_errors
def command(
    source: Path = typer.Option(..., help="The picture that is animated."),
    driving: Path = typer.Option(..., help="The video whose motion it takes; or a picture."),
    frame: int | None = typer.Option(
        None, min=0, help="The driving frame to show, from 0.", show_default="the middle one"
    ),
    out: Path = typer.Option("inspect.png", help="NAME.png, .svg or .pdf; .mp4 for all frames."),
    checkpoint: str = typer.Option("default", help="From 'mtanimate checkpoints list', or a .safetensors file."),
    crop: str = typer.Option("auto", help="Of the source: auto (about the face), none (centre), or X,Y,W,H."),
    driving_crop: str = typer.Option("auto", help="Of the driving video, likewise."),
    face: str = typer.Option("largest", help="Which of the source's faces: largest, or its number from the left."),
    max_pixels: int = MAX_PIXELS,
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace an existing --out."),
    device: str = DEVICE,
    json: bool = JSON,
    quiet: bool = QUIET,
    debug: bool = DEBUG,
) -> None:
    """Show keypoints, local frames, masks, flow, occlusion and warped source on the way to the result."""
    from mtanimate.inspection.inspect import inspect
    from mtanimate.inspection.subject import Subject

    subject = Subject.of(None, source, driving, crop=crop, driving_crop=driving_crop, face=face, max_pixels=max_pixels)
    with progress_bar("drawing", "frames", quiet) as progress:
        result = inspect(
            subject,
            frame=frame,
            out=out,
            checkpoint=checkpoint,
            device=device,
            overwrite=overwrite,
            progress=progress,
            say=remark(quiet),
        )
    if json:
        print_json(result.as_dict())
    elif not quiet:
        of = f"{result.frames} frames" if result.frame is None else f"frame {result.frame}"
        put(f"{result.out}: {of}, {result.width} x {result.height}")
