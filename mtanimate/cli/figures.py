"""`mtanimate attention`."""

from enum import Enum
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

ATTENTION_EXAMPLE = "Example: mtanimate attention --layer 6"


class Heads(str, Enum):
    mean = "mean"
    max = "max"
    each = "each"


@reports_errors
def attention_command(
    image: Path | None = typer.Option(None, help="A picture to look at.", show_default="a portrait that ships"),
    source: Path | None = typer.Option(None, help="Instead: the picture that --driving moves."),
    driving: Path | None = typer.Option(None, help="A video: its middle frame is shown, in an --out video all."),
    layer: str = typer.Option("all", help="A layer's number from 1 on, or all."),
    tokens: str = typer.Option("all", help="Motion tokens, by the figure's numbers: 1,4,8."),
    heads: Heads = typer.Option(Heads.mean, help="Of a layer's heads, the mean, the largest, or each."),
    rollout: bool = typer.Option(False, "--rollout", help="Through all layers up to this one (attention rollout)."),
    motion: bool = typer.Option(False, "--motion", help="What motion tokens give each other, as matrices."),
    out: Path | None = typer.Option(
        None, help="NAME.png, .svg or .pdf; .mp4 with a driving video.", show_default="attention-layer-N.png"
    ),
    raw: Path | None = typer.Option(None, help="Write the probabilities themselves: NAME.npz."),
    checkpoint: str = typer.Option("default", help="From 'mtanimate checkpoints list', or a .safetensors file."),
    crop: str = typer.Option("auto", help="Of the picture: auto (about the face), none (centre), or X,Y,W,H."),
    driving_crop: str = typer.Option("auto", help="Of the driving video, likewise."),
    face: str = typer.Option("largest", help="Which of the picture's faces: largest, or its number from the left."),
    max_pixels: int = MAX_PIXELS,
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace existing files."),
    device: str = DEVICE,
    json: bool = JSON,
    quiet: bool = QUIET,
    debug: bool = DEBUG,
) -> None:
    """Show where each motion token looks, layer by layer, as the paper's Figure 3 does."""
    from mtanimate.inspection.attention import show_attention
    from mtanimate.inspection.subject import Subject

    subject = Subject.of(image, source, driving, crop=crop, driving_crop=driving_crop, face=face, max_pixels=max_pixels)
    with progress_bar("drawing", "frames", quiet) as progress:
        result = show_attention(
            subject,
            layer=layer,
            tokens=tokens,
            heads=heads.value,
            rollout=rollout,
            motion=motion,
            out=out,
            raw=raw,
            checkpoint=checkpoint,
            device=device,
            overwrite=overwrite,
            progress=progress,
            log=remark(quiet),
        )
    if json:
        print_json(result.as_dict())
    elif not quiet:
        put(f"{result.out}: {result.width} x {result.height}" + f"; {result.raw}" * bool(result.raw))


INSPECT_EXAMPLE = "Example: mtanimate inspect --source face.jpg --driving talk.mp4 --out inside.mp4"


@reports_errors
def inspect_command(
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
            log=remark(quiet),
        )
    if json:
        print_json(result.as_dict())
    elif not quiet:
        of = f"{result.frames} frames" if result.frame is None else f"frame {result.frame}"
        put(f"{result.out}: {of}, {result.width} x {result.height}")
