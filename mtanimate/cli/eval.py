"""`mtanimate eval`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mtanimate.cli.options import (
    CLUSTER,
    CORES,
    DEBUG,
    DEVICE,
    FILES,
    HARDWARE,
    JSON,
    QUIET,
    Mode,
    Precision,
    checkpoint_option,
    cluster_options,
    one_of,
    presets,
)
from mtanimate.cli.terminal import console, print_json, progress_bar, put, remark, reports_errors

if TYPE_CHECKING:
    from rich.table import Table

    from mtanimate.metrics.measures import Metric

EXAMPLE = "Example: mtanimate eval --checkpoint default --dataset videos/ --every 4"


MEASURING = "Measuring"
CROSS = "One person driven by another"


@reports_errors
def command(
    evaluations: list[str] = typer.Argument(
        None, metavar="EVALUATION", help="With --compare: folders that eval wrote, or checkpoints."
    ),
    checkpoint: str = checkpoint_option(),
    dataset: str | None = typer.Option(
        None,
        metavar="FOLDER",
        help="Required, except with --compare: a folder of clips (or its folder test, if it has one), or a preset.",
        autocompletion=presets,
        rich_help_panel=FILES,
    ),
    data: Path | None = typer.Option(
        None, metavar="FOLDER", help="Where a preset's clips are.", show_default="data/NAME", rich_help_panel=FILES
    ),
    out: Path | None = typer.Option(
        None,
        metavar="FOLDER",
        help="The folder for the results.",
        show_default="runs/eval-CHECKPOINT-DATASET",
        rich_help_panel=FILES,
    ),
    videos: Path | None = typer.Option(
        None,
        metavar="FOLDER",
        help="Write a video for each clip: truth and reconstruction side by side.",
        rich_help_panel=FILES,
    ),
    frames: Path | None = typer.Option(
        None, metavar="FOLDER", help="Write every frame as a PNG, for other programs.", rich_help_panel=FILES
    ),
    compare: bool = typer.Option(
        False, "--compare", help="Compare evaluations with the first of them.", rich_help_panel=FILES
    ),
    metrics: str | None = typer.Option(
        None,
        metavar="NAMES",
        help="Some of l1, akd, akd_field, mkr, mkr_field, aed, aed_field, psnr, ssim, lpips, sharpness, with commas "
        "between them.",
        show_default="all but the last four; with --resolution all but lpips",
        rich_help_panel=MEASURING,
    ),
    every: int = typer.Option(1, metavar="N", min=1, help="Measure every N-th frame only.", rich_help_panel=MEASURING),
    resolution: str | None = typer.Option(
        None,
        metavar="auto|N",
        help="Render and measure at the source's own size, up to N pixels a side, beside the network's picture, "
        "enlarged. auto: up to 1440.",
        show_default="the network's resolution",
        autocompletion=one_of("auto"),
        rich_help_panel=MEASURING,
    ),
    detector: str = typer.Option(
        "faces",
        metavar="NAME",
        help="What finds landmarks: faces, face-alignment, bodies or none.",
        autocompletion=one_of("faces", "face-alignment", "bodies", "none"),
        rich_help_panel=MEASURING,
    ),
    openpose: Path | None = typer.Option(
        None, metavar="FOLDER", help="Take landmarks from these JSON files of OpenPose.", rich_help_panel=MEASURING
    ),
    features: Path | None = typer.Option(
        None, metavar="FOLDER", help="Take identity features from these .npy files.", rich_help_panel=MEASURING
    ),
    cross: str | None = typer.Option(
        None,
        metavar="N",
        help="Drive people by clips of others: N random pairs, or those in PAIRS.csv.",
        rich_help_panel=CROSS,
    ),
    sources: Path | None = typer.Option(
        None, metavar="FOLDER", help="With --cross N: drive these photographs instead.", rich_help_panel=CROSS
    ),
    mode: Mode = typer.Option(
        Mode.relative,
        metavar="MODE",
        help="How motion is transferred: relative, absolute or avd.",
        rich_help_panel=CROSS,
    ),
    seed: int = typer.Option(0, metavar="N", min=0, help="Seed of the random pairs.", rich_help_panel=CROSS),
    device: str = DEVICE,
    gpus: int | None = typer.Option(
        None, metavar="N", min=1, help="Share the clips among N GPUs of this machine.", rich_help_panel=HARDWARE
    ),
    shard: str = typer.Option(
        "1/1",
        metavar="I/N",
        help="Measure part I of N only, e.g. 2/4. When all parts are done, run the command without it.",
        rich_help_panel=HARDWARE,
    ),
    workers: int | None = typer.Option(
        None,
        metavar="N",
        min=1,
        help="Processes that detect landmarks; with --cluster, workers.",
        show_default="one for each core; as many as there is room for",
        rich_help_panel=HARDWARE,
    ),
    cluster: str | None = CLUSTER,
    cores: int | None = CORES,
    precision: Precision = typer.Option(
        Precision.fp32, metavar="auto|fp32|bf16|fp16", help="Number format of the network.", rich_help_panel=HARDWARE
    ),
    json: bool = JSON,
    quiet: bool = QUIET,
    debug: bool = DEBUG,
) -> None:
    """Measure how well clips are reconstructed from their first frame.

    The same command continues where it was stopped.
    """
    from mtanimate.devices import check_gpus
    from mtanimate.errors import InputError
    from mtanimate.evaluation.comparison import compare as compare_evaluations
    from mtanimate.evaluation.evaluate import evaluate, run_shards

    if evaluations and not compare:
        raise InputError(f"{evaluations[0]}: evaluations are for --compare; give a checkpoint with --checkpoint")
    if dataset is None and not compare:
        raise InputError("--dataset is missing: a folder of clips, or a preset's name")
    on_cluster = cluster_options(cluster, cores)
    if gpus is not None and on_cluster:
        raise InputError(f"--gpus {gpus} is for this machine's, and --cluster for a cluster's: leave out one")
    if gpus is not None and shard == "1/1" and not compare:  # the commands for the parts have --shard
        check_gpus(gpus)
        run_shards([f"cuda:{index}" for index in range(gpus)], sys.argv[1:])
    options: dict[str, Any] = {
        "data": data,
        "metrics": metrics,
        "detector": detector,
        "openpose": openpose,
        "features": features,
        "every": every,
        "resolution": resolution,
        "videos": videos,
        "frames": frames,
        "workers": workers,
        "on_cluster": on_cluster,
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


def known_metrics() -> "dict[str, Metric]":
    """Every metric that a result may hold, by its name."""
    from mtanimate.evaluation.tasks import REENACTMENT_METRICS
    from mtanimate.metrics.measures import METRICS

    return METRICS | {metric.name: metric for metric in REENACTMENT_METRICS}


SERIES = {
    "enlarged": "its picture, enlarged",
    "repeating": "first-frame baseline",
    "source": "the source, unmoved",
    "driving": "the driving clip itself",
}


def print_result(result: dict[str, Any]) -> None:
    """A table with a row for each metric: the checkpoint and its baselines, with 95 % intervals; the worst videos."""
    if "metrics" not in result:
        put(f"part {result['shard']}: {result['videos']} videos measured; run it without --shard once all are done")
        return
    from rich.table import Table

    screen, known = console(), known_metrics()
    title = f"{result['checkpoint']} on {result['dataset']}: {result['videos']} videos, {result['frames']} frames"
    if "sides" in result:
        title += f", {' to '.join(map(str, sorted(set(result['sides']))))} pixels a side"
    table = Table(title=title, title_justify="left")
    columns = {"this checkpoint": result} | {SERIES[name]: result[name] for name in SERIES if name in result}
    table.add_column("")
    for heading in columns:
        table.add_column(f"{heading}\n(95 % interval)", justify="right")
    for name in result["metrics"]:
        table.add_row(heading_of(known[name]), *(with_interval(figures, name) for figures in columns.values()))
    screen.print(table)
    if "enlarged" in result:
        found = {known[name].title: each for name, each in result["enlarged"]["differences"].items()}
        counts = ", ".join(f"{title} {each['better']} of {each['videos']}" for title, each in found.items())
        screen.print(f"videos that are better than the enlarged picture: {counts}", soft_wrap=True)
    if "gestures" in result:
        screen.print(gesture_table(result["gestures"]))
    for name, reason in result["reasons"].items():
        screen.print(f"{known[name].title if name in known else name}: none, {reason}", soft_wrap=True)
    for name, worst in list(result["worst"].items())[:2]:
        videos = ", ".join(f"{each['video']} {number(each['value'])}" for each in worst)
        screen.print(f"worst {known[name].title}: {videos}" if worst else "", soft_wrap=True)
    lost = {series: count for series, count in result["without_subject"].items() if count}
    if lost:
        screen.print("frames without a subject: " + ", ".join(f"{count} {series}" for series, count in lost.items()))
    for line in result["skipped"]:
        screen.print(f"skipped: {line}", soft_wrap=True)
    spent = result["milliseconds_per_frame"]
    screen.print(f"a frame took {spent['generation']:.0f} ms to generate, {spent['metrics']:.0f} ms to measure")
    screen.print(f"{result['out']}: result.json, videos.csv, videos.jsonl, strips/", soft_wrap=True)


def heading_of(metric: "Metric") -> str:
    return metric.title + (" ↑" if metric.better == "higher" else " ↓")


def with_interval(figures: dict[str, Any], name: str) -> str:
    value, bounds = figures["metrics"][name], figures["intervals"][name]
    if value is None:
        return "-"
    return number(value) + (f"\n({number(bounds[0])} to {number(bounds[1])})" if bounds else "")


def gesture_table(gestures: dict[str, Any]) -> "Table":
    """A row for each gesture: how well the generated face follows the driver, by the face mesh."""
    from rich.table import Table

    from mtanimate.metrics.gestures import GESTURES

    table = Table(
        title="gestures by the face mesh: medians over the pairs whose driver makes them", title_justify="left"
    )
    table.add_column("")
    for heading in ("correlation\n(95 % interval)", "gain\n(95 % interval)", "pairs", "missing"):
        table.add_column(heading, justify="right")
    for name, found in gestures.items():
        cells = _median(found["correlation"]), _median(found["gain"])
        table.add_row(GESTURES[name].title, *cells, str(found["pairs"]), str(found["missing"]))
    return table


def _median(figure: dict[str, Any]) -> str:
    """Two decimals, with the interval on a second line."""
    value, bounds = figure["median"], figure["interval"]
    if value is None:
        return "-"
    return f"{value:.2f}" + (f"\n({bounds[0]:.2f} to {bounds[1]:.2f})" if bounds else "")


def number(value: float) -> str:
    """Three significant digits: 0.0321, 3.32, 25.2."""
    return f"{value:#.3g}" if abs(value) >= 0.001 else f"{value:.2g}"


def print_comparison(result: dict[str, Any]) -> None:
    """A row for each metric: every evaluation, and its difference from the first; the paper's table, quoted."""
    from rich.table import Table

    screen, known = console(), known_metrics()
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
        table.add_row(heading_of(known[name]), *cells)
    screen.print(table)
    if result["differences"]:
        base = next(iter(result["figures"]))
        screen.print(f"second lines: difference from {base} on the same videos, with its 95 % interval")
    quoted = Table(title=result["quoted"]["remark"], title_justify="left")
    rows = result["quoted"]["rows"]
    printed = [name for name in names if any(name in figures for figures in rows.values())]
    for heading in ("", *(known[name].title for name in printed)):
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
