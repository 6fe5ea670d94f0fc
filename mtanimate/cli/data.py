"""`mtanimate data`: what is done to data sets before training."""

from pathlib import Path

import typer

from mtanimate.cli.terminal import DEBUG, JSON, QUIET, print_json, progress_bar, remark, reports_errors

PREPARE_EXAMPLE = "Example: mtanimate data prepare raw-videos/ --out clips/"

app = typer.Typer(name="data", help="Make data sets to train on.", no_args_is_help=True)


@app.command(epilog=PREPARE_EXAMPLE)
@reports_errors
def prepare(
    raw: Path = typer.Argument(..., metavar="RAW_FOLDER", help="The folder of the raw videos.", show_default=False),
    out: Path = typer.Option(..., help="The folder for the clips and their manifest."),
    metadata: Path | None = typer.Option(
        None, help="A CSV that lists the clips (video_id,start,end,bbox,fps,width,height).", show_default="by the face"
    ),
    size: int = typer.Option(256, min=64, help="Side of the clips, in pixels."),
    workers: int | None = typer.Option(None, min=1, help="Videos at a time.", show_default="one a processor"),
    json: bool = JSON,
    quiet: bool = QUIET,
    debug: bool = DEBUG,
) -> None:
    """Cut square training clips out of raw videos. The same command goes on where it was stopped."""
    from mtanimate.data.prepare import prepare as run

    with progress_bar("preparing", "videos", quiet) as progress:
        result = run(
            raw, out, metadata=metadata, size=size, workers=workers, progress=progress, say=remark(quiet)
        )  # fmt: skip
    if json:
        print_json(result.as_dict())
    elif not quiet:
        print(
            f"{result.manifest}: {result.written + result.already_there} clips, {result.written} of them new; "
            f"{sum(result.skipped.values())} skipped"
        )
