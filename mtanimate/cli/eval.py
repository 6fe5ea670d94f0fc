"""`mtanimate eval`."""

import sys
from pathlib import Path
from typing import Any

import typer
from rich.table import Table

from mtanimate.cli.terminal import (
    DEBUG,
    DEVICE,
    JSON,
    QUIET,
    Mode,
    Precision,
    console,
    print_json,
    progress_bar,
    put,
    remark,
    reports_errors,
)
from mtanimate.evaluation.tasks import REENACTMENT_METRICS
from mtanimate.metrics.gestures import GESTURES
from mtanimate.metrics.measures import METRICS, Metric

EXAMPLE = "Example: mtanimate eval --checkpoint default --dataset videos/ --every 4"


@reports_errors
def command(
    evaluations: list[str] = typer.Argument(None, help="For --compare: folders that eval wrote, or checkpoints."),
    compare: bool = typer.Option(False, "--compare", help="Compare evaluations with the first of them."),
    checkpoint: str = typer.Option("default", help="From 'mtanimate checkpoints list', or a .safetensors file."),
    dataset: str | None = typer.Option(
        None, help="A folder of clips (its folder test, where it has one), or a preset's name.", show_default="required"
    ),
    data: Path | None = typer.Option(None, help="Where a preset's clips are.", show_default="data/NAME"),
    metrics: str | None = typer.Option(
        None,
        help="Of l1,akd,akd_field,mkr,mkr_field,aed,aed_field,psnr,ssim,lpips.",
        show_default="all but the last three",
    ),
    detector: str = typer.Option("faces", help="What finds landmarks: faces, face-alignment, bodies or none."),
    openpose: Path | None = typer.Option(None, help="Take landmarks from this folder of OpenPose's JSON files."),
    features: Path | None = typer.Option(None, help="Take identity features from this folder of .npy files."),
    cross: str | None = typer.Option(None, help="Drive people by others' clips: so many random pairs, or PAIRS.csv."),
    sources: Path | None = typer.Option(None, help="With --cross N: a folder of photographs to be driven."),
    mode: Mode = typer.Option(Mode.relative, help="How --cross transfers motion."),
    seed: int = typer.Option(0, min=0, help="Of the random pairs."),
    every: int = typer.Option(1, min=1, help="Use one of so many frames."),
    out: Path | None = typer.Option(None, help="The evaluation's folder.", show_default="runs/eval-CHECKPOINT-DATASET"),
    videos: Path | None = typer.Option(None, help="Write a video a clip here: truth beside reconstruction."),
    frames: Path | None = typer.Option(None, help="Write every frame here as a PNG, for other programs."),
    shard: str = typer.Option("1/1", help="Measure part I of N only, as 2/4; at last without it."),
    gpus: int | None = typer.Option(None, min=1, help="GPUs of this machine to share the clips."),
    workers: int | None = typer.Option(None, min=1, help="Processes that look for landmarks.", show_default="cores"),
    precision: Precision = typer.Option(Precision.fp32, help="What the network computes in."),
    device: str = DEVICE,
    json: bool = JSON,
    quiet: bool = QUIET,
    debug: bool = DEBUG,
) -> None:
    """Measure how well clips are reconstructed from their first frame. The same command goes on where it stopped."""
    from mtanimate.devices import check_gpus
    from mtanimate.errors import InputError
    from mtanimate.evaluation.comparison import compare as compare_evaluations
    from mtanimate.evaluation.evaluate import evaluate, run_shards

    if evaluations and not compare:
        raise InputError(f"{evaluations[0]}: names of evaluations go with --compare; a checkpoint with --checkpoint")
    if dataset is None and not compare:
        raise InputError("--dataset is missing: a folder of clips, or a preset's name")
    if gpus is not None and shard == "1/1" and not compare:  # the parts' own commands have a shard
        check_gpus(gpus)
        run_shards([f"cuda:{index}" for index in range(gpus)], sys.argv[1:])
    options: dict[str, Any] = {
        "data": data,
        "metrics": metrics,
        "detector": detector,
        "openpose": openpose,
        "features": features,
        "every": every,
        "videos": videos,
        "frames": frames,
        "workers": workers,
        "device": device,
        "precision": precision.value,
    }
    with progress_bar("evaluating", "videos", quiet) as progress:
        common = {**options, "progress": progress, "log": remark(quiet)}
        if compare:
            folder = out or Path("runs") / "compare"
            result = compare_evaluations(evaluations, folder, dataset=dataset, **common)
        else:
            own: dict[str, Any] = {"cross": cross, "sources": sources, "mode": mode.value, "seed": seed}
            own |= {"out": out, "shard": shard}
            assert dataset is not None
            result = evaluate(checkpoint, dataset, **common, **own)
    if json:
        print_json(result)
    elif not quiet:
        (print_comparison if compare else print_result)(result)


KNOWN: dict[str, Metric] = METRICS | {metric.name: metric for metric in REENACTMENT_METRICS}
SERIES = {
    "repeating": "first-frame baseline",
    "source": "the source, unmoved",
    "driving": "the driving clip itself",
}


def print_result(result: dict[str, Any]) -> None:
    """A row a metric: of the checkpoint and of what it is compared with, with 95 % intervals; what is worst."""
    if "metrics" not in result:
        put(f"part {result['shard']}: {result['videos']} videos measured; once all parts are, run it without --shard")
        return
    screen = console()
    title = f"{result['checkpoint']} on {result['dataset']}: {result['videos']} videos, {result['frames']} frames"
    table = Table(title=title, title_justify="left")
    columns = {"this checkpoint": result} | {SERIES[name]: result[name] for name in SERIES if name in result}
    table.add_column("")
    for heading in columns:
        table.add_column(f"{heading}\n(95 % interval)", justify="right")
    for name in result["metrics"]:
        table.add_row(heading_of(name), *(with_interval(figures, name) for figures in columns.values()))
    screen.print(table)
    if "gestures" in result:
        screen.print(gesture_table(result["gestures"]))
    for name, reason in result["reasons"].items():
        screen.print(f"{KNOWN[name].title if name in KNOWN else name}: none, {reason}", soft_wrap=True)
    for name, worst in list(result["worst"].items())[:2]:
        videos = ", ".join(f"{each['video']} {number(each['value'])}" for each in worst)
        screen.print(f"worst {KNOWN[name].title}: {videos}" if worst else "", soft_wrap=True)
    lost = {series: count for series, count in result["without_subject"].items() if count}
    if lost:
        screen.print("frames without a subject: " + ", ".join(f"{count} {series}" for series, count in lost.items()))
    for line in result["skipped"]:
        screen.print(f"skipped: {line}", soft_wrap=True)
    spent = result["milliseconds_per_frame"]
    screen.print(f"a frame took {spent['generation']:.0f} ms to generate, {spent['metrics']:.0f} ms to measure")
    screen.print(f"{result['out']}: result.json, videos.csv, videos.jsonl, strips/", soft_wrap=True)


def heading_of(name: str) -> str:
    return KNOWN[name].title + (" ↑" if KNOWN[name].better == "higher" else " ↓")


def with_interval(figures: dict[str, Any], name: str) -> str:
    value, bounds = figures["metrics"][name], figures["intervals"][name]
    if value is None:
        return "-"
    return number(value) + (f"\n({number(bounds[0])} to {number(bounds[1])})" if bounds else "")


def gesture_table(gestures: dict[str, Any]) -> Table:
    """A row a gesture: how the generated face follows the driver by the face mesh."""
    table = Table(title="gestures by the face mesh: medians over the pairs whose driver does it", title_justify="left")
    table.add_column("")
    for heading in ("correlation\n(95 % interval)", "gain\n(95 % interval)", "pairs", "missing"):
        table.add_column(heading, justify="right")
    for name, found in gestures.items():
        cells = _median(found["correlation"]), _median(found["gain"])
        table.add_row(GESTURES[name].title, *cells, str(found["pairs"]), str(found["missing"]))
    return table


def _median(figure: dict[str, Any]) -> str:
    """Two decimals, and under it its interval."""
    value, bounds = figure["median"], figure["interval"]
    if value is None:
        return "-"
    return f"{value:.2f}" + (f"\n({bounds[0]:.2f} to {bounds[1]:.2f})" if bounds else "")


def number(value: float) -> str:
    """Three significant digits: 0.0321, 3.32, 25.2."""
    return f"{value:#.3g}" if abs(value) >= 0.001 else f"{value:.2g}"


def print_comparison(result: dict[str, Any]) -> None:
    """A row a metric: of each evaluation, the difference from the first under it; the paper's row, quoted."""
    screen = console()
    names = list(next(iter(result["figures"].values())))
    table = Table(title=f"{result['videos']} videos in common", title_justify="left")
    table.add_column("")
    for title in result["figures"]:
        table.add_column(title, justify="right")
    for name in names:
        cells = []
        for title, figures in result["figures"].items():
            difference = result["differences"].get(title, {}).get(name)
            cells.append(_mean(figures[name]) + (f"\n{_mean(difference, sign='+')}" if difference else ""))
        table.add_row(heading_of(name), *cells)
    screen.print(table)
    if result["differences"]:
        base = next(iter(result["figures"]))
        screen.print(f"second lines: the difference from {base} on the same videos, with its 95 % interval")
    quoted = Table(title=result["quoted"]["remark"], title_justify="left")
    rows = result["quoted"]["rows"]
    printed = [name for name in names if any(name in figures for figures in rows.values())]
    for heading in ("", *(KNOWN[name].title for name in printed)):
        quoted.add_column(heading, justify="right" if heading else "left")
    for title, figures in rows.items():
        quoted.add_row(title, *(f"{figures[name]:g}" if name in figures else "-" for name in printed))
    screen.print(quoted)
    screen.print(f"{result['picture']}, and comparison.json beside it", soft_wrap=True)


def _mean(figure: dict[str, Any], sign: str = "") -> str:
    if figure["mean"] is None:
        return "-"
    bounds = figure["interval"]
    interval = f" ({format(bounds[0], sign + '.3g')} to {format(bounds[1], sign + '.3g')})" if bounds and sign else ""
    return f"{format(figure['mean'], sign + '#.3g')}{interval}"
