"""`mtanimate data`: data sets before training."""

from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mtanimate.cli.options import CLUSTER, CORES, DEBUG, JSON, QUIET, Command, cluster_options, presets
from mtanimate.cli.terminal import Group, print_json, progress_bar, put, remark, reports_errors

if TYPE_CHECKING:
    from mtanimate.data.checking import Findings

app = typer.Typer(name="data", cls=Group, help="Make data sets to train on, and check them.", no_args_is_help=True)


@app.command(cls=Command, epilog="Example: mtanimate data check videos/")
@reports_errors
def check(
    folder: Path = typer.Argument(..., help="A folder of videos, or of folders of frames.", show_default=False),
    preset: str = typer.Option(
        "small", metavar="NAME", help="The settings that the data are for.", autocompletion=presets
    ),
    workers: int = typer.Option(
        0, metavar="N", min=0, help="Processes that decode videos while the loading speed is measured."
    ),
    json: bool = JSON,
    quiet: bool = QUIET,
    debug: bool = DEBUG,
) -> None:
    """Decode every clip, name what is broken or odd, and measure how fast pairs of frames can be loaded.

    The exit code is 1 if training would skip a clip.
    """
    from mtanimate.config import load_preset
    from mtanimate.data.checking import check_dataset

    with progress_bar("checking", "clips", quiet) as progress:
        findings = check_dataset(folder.expanduser(), load_preset(preset), processes=workers, progress=progress)
    log = remark(quiet)
    for line in findings.problems:
        log(f"broken: {line}")
    for line in findings.warnings:
        log(f"odd: {line}")
    if json:
        print_json(asdict(findings))
    elif not quiet:
        _print(findings)
    if findings.problems:
        raise SystemExit(1)


@app.command(cls=Command, epilog="Example: mtanimate data prepare raw-videos/ --out clips/")
@reports_errors
def prepare(
    raw: Path = typer.Argument(..., metavar="RAW_FOLDER", help="The folder with the raw videos.", show_default=False),
    out: Path = typer.Option(..., metavar="FOLDER", help="The folder for the clips and their manifest."),
    metadata: Path | None = typer.Option(
        None,
        metavar="FILE",
        help="A CSV file that lists the clips, with the columns video_id, start, end, bbox, fps, width, height.",
        show_default="by the face",
    ),
    size: int = typer.Option(256, metavar="N", min=64, max=16_384, help="Side of the clips, in pixels."),
    workers: int | None = typer.Option(
        None,
        metavar="N",
        min=1,
        help="Videos at a time; with --cluster, workers.",
        show_default="one for each processor; as many as there is room for",
    ),
    cluster: str | None = CLUSTER,
    cores: int | None = CORES,
    json: bool = JSON,
    quiet: bool = QUIET,
    debug: bool = DEBUG,
) -> None:
    """Cut square training clips out of raw videos.

    The same command continues where it was stopped.
    """
    from mtanimate.data.preparation import prepare as run

    with progress_bar("preparing", "videos", quiet) as progress:
        result = run(
            raw, out, metadata=metadata, size=size, workers=workers, on_cluster=cluster_options(cluster, cores),
            progress=progress, log=remark(quiet),
        )  # fmt: skip
    if json:
        print_json(result.as_dict())
    elif not quiet:
        put(
            f"{result.manifest}: {result.written + result.already_there} clips, {result.written} of them new; "
            f"{sum(result.skipped.values())} skipped"
        )


@app.command(cls=Command, epilog="Example: mtanimate data cache videos/ --out cache/")
@reports_errors
def cache(
    videos: Path = typer.Argument(..., help="A folder of videos, or of folders of frames.", show_default=False),
    out: Path = typer.Option(..., metavar="FOLDER", help="The folder of the cache. What it already holds is kept."),
    resolution: int = typer.Option(
        256, metavar="N", min=64, max=16_384, help="Side of the frames, in pixels, as in training."
    ),
    stills: Path | None = typer.Option(
        None,
        metavar="FOLDER",
        help="A folder of pictures to add.",
        show_default="VIDEOS/stills, beside VIDEOS/train",
    ),
    json: bool = JSON,
    quiet: bool = QUIET,
    debug: bool = DEBUG,
) -> None:
    """Decode every clip and find its faces and people once, so that training can read them.

    The same command continues where it was stopped, and adds what is new.
    """
    from mtanimate.data.caching import cache_dataset

    stills = stills.expanduser() if stills else None
    with progress_bar("caching", "clips", quiet) as progress:
        result = cache_dataset(
            videos.expanduser(), out.expanduser(), stills=stills, resolution=resolution, progress=progress,
            log=remark(quiet),
        )  # fmt: skip
    if json:
        print_json(result.as_dict())
    elif not quiet:
        put(
            f"{out}: {result.clips} clips and {result.stills} stills, {result.frames} frames of {resolution} x "
            f"{resolution}, {result.gib:.2f} GiB; {result.new} new, {len(result.skipped)} skipped"
        )


@app.command(cls=Command, epilog="Example: mtanimate data pack videos/ --cache cache/ --out pack/ --size 25MiB")
@reports_errors
def pack(
    videos: Path = typer.Argument(..., help="The folder that the cache was made from.", show_default=False),
    cache: Path = typer.Option(..., metavar="FOLDER", help="The cache that 'mtanimate data cache' made from it."),
    out: Path = typer.Option(..., metavar="FOLDER", help="A new folder."),
    size: str = typer.Option(..., metavar="SIZE", help="The most it may take, e.g. 25MiB.", show_default=False),
    stills: Path | None = typer.Option(
        None, metavar="FOLDER", help="A folder of pictures to add, which the cache holds."
    ),
    json: bool = JSON,
    quiet: bool = QUIET,
    debug: bool = DEBUG,
) -> None:
    """Encode a data set small enough to send: every person, the frames that move most, landmarks and mattes.

    'mtanimate data cache' takes landmarks and mattes from the pack, and needs no MediaPipe then.
    """
    from mtanimate.data.packing import pack_dataset, parse_size

    most, stills = parse_size(size), stills.expanduser() if stills else None
    with progress_bar("packing", "KiB", quiet) as progress:
        result = pack_dataset(
            videos.expanduser(), cache.expanduser(), out.expanduser(), most, stills=stills, progress=progress,
            log=remark(quiet),
        )  # fmt: skip
    if json:
        print_json(result.as_dict())
    elif not quiet:
        put(
            f"{out}: {result.bytes / 2**20:.2f} MiB; {result.clips} of {result.clips_of} clips, of all {result.people} "
            f"people, {result.frames} frames, at most {result.length} from a clip; {result.stills} of "
            f"{result.stills_of} stills"
        )


def _print(findings: "Findings") -> None:
    speed = findings.samples_per_second
    put(f"{findings.train} clips to train on, {findings.test} to test, {findings.split}")
    length = timedelta(seconds=round(findings.seconds))
    put(f"{findings.identities} identities, known {findings.known_by}; {findings.frames} frames, {length}")
    put("sizes: " + ", ".join(f"{size} ({count})" for size, count in list(findings.sizes.items())[:8]))
    put(f"loading speed: {speed:.1f} samples/s" if speed else "no clip can be trained on")
    put(f"{len(findings.problems)} broken, {len(findings.warnings)} odd")
