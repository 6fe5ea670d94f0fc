"""`mtanimate attention` and `mtanimate inspect`: figures of what the network does."""

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mtanimate.cli.options import (
    DEBUG,
    DEVICE,
    DRIVING_CROP,
    FILES,
    JSON,
    MAX_PIXELS,
    ONE_FACE,
    QUIET,
    checkpoint_option,
    crop_option,
    overwrite_option,
)
from mtanimate.cli.terminal import print_json, progress_bar, put, remark, reports_errors

if TYPE_CHECKING:
    from mtanimate.credentials import Statement

ATTENTION_EXAMPLE = "Example: mtanimate attention --layer 6"
INSPECT_EXAMPLE = "Example: mtanimate inspect --source face.jpg --driving talk.mp4 --out inside.mp4"

FIGURE = "Figure"
CHECKPOINT = checkpoint_option()
CROP = crop_option("picture")
OVERWRITE = overwrite_option("Replace existing files.")


class Heads(str, Enum):
    mean = "mean"
    max = "max"
    each = "each"


@reports_errors
def attention_command(
    image: Path | None = typer.Option(
        None,
        metavar="FILE",
        help="The picture to look at.",
        show_default="a shipped portrait",
        rich_help_panel=FILES,
    ),
    source: Path | None = typer.Option(
        None, metavar="FILE", help="Instead of --image: the picture that --driving moves.", rich_help_panel=FILES
    ),
    driving: Path | None = typer.Option(
        None, metavar="FILE", help="A video. A picture shows its middle frame, a video all.", rich_help_panel=FILES
    ),
    out: Path | None = typer.Option(
        None,
        metavar="FILE",
        help="NAME.png, .svg or .pdf; .mp4 with a driving video.",
        show_default="attention-layer-N.png",
        rich_help_panel=FILES,
    ),
    raw: Path | None = typer.Option(
        None, metavar="FILE", help="Write the probabilities themselves: NAME.npz.", rich_help_panel=FILES
    ),
    checkpoint: str = CHECKPOINT,
    overwrite: bool = OVERWRITE,
    layer: str = typer.Option("all", metavar="N", help="One layer, counted from 1, or all.", rich_help_panel=FIGURE),
    tokens: str = typer.Option(
        "all", metavar="N,N", help="Motion tokens by their numbers in the figure: 1,4,8.", rich_help_panel=FIGURE
    ),
    heads: Heads = typer.Option(
        Heads.mean,
        metavar="mean|max|each",
        help="Show the mean of a layer's heads, the largest, or each.",
        rich_help_panel=FIGURE,
    ),
    rollout: bool = typer.Option(
        False, "--rollout", help="Show attention rollout: through all layers up to this one.", rich_help_panel=FIGURE
    ),
    motion: bool = typer.Option(
        False, "--motion", help="Show attention between motion tokens, as matrices.", rich_help_panel=FIGURE
    ),
    crop: str = CROP,
    driving_crop: str = DRIVING_CROP,
    face: str = ONE_FACE,
    device: str = DEVICE,
    max_pixels: int = MAX_PIXELS,
    json: bool = JSON,
    quiet: bool = QUIET,
    debug: bool = DEBUG,
) -> None:
    """Show where each motion token looks, layer by layer, like Figure 3 of the paper."""
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


@reports_errors
def inspect_command(
    source: Path | None = typer.Option(
        None, metavar="FILE", help="The picture to animate.", show_default=False, rich_help_panel=FILES
    ),
    driving: Path | None = typer.Option(
        None, metavar="FILE", help="The video that moves it, or a picture.", show_default=False, rich_help_panel=FILES
    ),
    credentials: Path | None = typer.Option(
        None,
        metavar="FILE",
        help="Instead of a figure: what the content credentials of a result say. Exit code 1 if it was changed since.",
        rich_help_panel=FILES,
    ),
    out: Path = typer.Option(
        "inspect.png", metavar="FILE", help="NAME.png, .svg or .pdf; .mp4 for all frames.", rich_help_panel=FILES
    ),
    checkpoint: str = CHECKPOINT,
    overwrite: bool = OVERWRITE,
    frame: int | None = typer.Option(
        None,
        metavar="N",
        min=0,
        help="The driving frame to show, counted from 0.",
        show_default="the middle one",
        rich_help_panel=FIGURE,
    ),
    crop: str = CROP,
    driving_crop: str = DRIVING_CROP,
    face: str = ONE_FACE,
    device: str = DEVICE,
    max_pixels: int = MAX_PIXELS,
    json: bool = JSON,
    quiet: bool = QUIET,
    debug: bool = DEBUG,
) -> None:
    """Show every step to the result: keypoints, masks, flow, occlusion and the warped source."""
    from mtanimate.errors import InputError

    if credentials is not None:
        if source or driving:
            raise InputError("--credentials reads a result: leave out --source and --driving")
        _show_credentials(credentials, json, quiet)
        return
    if source is None or driving is None:
        raise InputError(f"--{'driving' if source else 'source'} is missing: --help shows an example")
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


def _show_credentials(file: Path, json: bool, quiet: bool) -> None:
    """Prints what a result's content credentials say. The exit code is 1 if they do not hold."""
    from mtanimate.credentials import read_statement

    statement = read_statement(file)
    if json:
        print_json(statement.as_dict())
    elif not quiet:
        for line in _in_words(statement):
            put(line)
    if not statement.intact:
        raise SystemExit(1)


def _in_words(statement: "Statement") -> list[str]:
    why = f" ({', '.join(statement.problems)})" if statement.problems else ""
    state = "not changed since it was signed" if statement.intact else f"CHANGED since it was signed{why}"
    known = "known to this machine" if statement.trusted else "which this machine has no reason to trust or to doubt"
    lines = [
        f"{statement.file}: {state}",
        f"signed by   {statement.signer} ({statement.algorithm}), {known}",
        f"made by     {statement.tool}, as {', '.join(statement.source_types) or 'nothing that it names'}",
    ]
    if statement.checkpoint:
        name = statement.checkpoint.get("name") or "one without a published name"
        lines.append(f"checkpoint  {name}, SHA-256 {statement.checkpoint.get('sha256', '')}")
    return lines + [f"{word:11} SHA-256 {digest}" for word, digest in statement.inputs.items()]
