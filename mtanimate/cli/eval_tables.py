"""Figures of evaluations as tables on the terminal."""

from typing import Any

from rich.console import Console
from rich.table import Table

from mtanimate.metrics.measures import METRICS


def print_result(result: dict[str, Any]) -> None:
    """A row a metric: of the checkpoint and of repeating the first frame, with 95 % intervals; what is worst."""
    if "metrics" not in result:
        print(f"part {result['shard']}: {result['videos']} videos measured; once all parts are, run it without --shard")
        return
    console = Console()
    title = f"{result['checkpoint']} on {result['dataset']}: {result['videos']} videos, {result['frames']} frames"
    table = Table(title=title, title_justify="left")
    for heading in ("", "this checkpoint", "95 % interval", "repeating the first frame", "95 % interval"):
        table.add_column(heading, justify="right" if heading else "left")
    for name in result["metrics"]:
        table.add_row(_heading(name), *_with_interval(result, name), *_with_interval(result["repeating"], name))
    console.print(table)
    for name, reason in result["reasons"].items():
        console.print(f"{METRICS[name].title}: none, {reason}")
    for name in ("l1", "akd"):
        if result["worst"].get(name):
            videos = ", ".join(f"{each['video']} {number(each['value'])}" for each in result["worst"][name])
            console.print(f"worst {METRICS[name].title}: {videos}")
    lost = {series: count for series, count in result["without_subject"].items() if count}
    if lost:
        console.print("frames without a subject: " + ", ".join(f"{count} {series}" for series, count in lost.items()))
    for line in result["skipped"]:
        console.print(f"skipped: {line}")
    spent = result["milliseconds_per_frame"]
    console.print(f"a frame took {spent['generation']:.0f} ms to generate, {spent['metrics']:.0f} ms to measure")
    console.print(f"{result['out']}: result.json, videos.csv, videos.jsonl, strips (source, truth, generated)")


def _heading(name: str) -> str:
    return METRICS[name].title + (" ↑" if METRICS[name].better == "higher" else " ↓")


def _with_interval(figures: dict[str, Any], name: str) -> tuple[str, str]:
    value, bounds = figures["metrics"][name], figures["intervals"][name]
    if value is None:
        return "-", ""
    return number(value), f"{number(bounds[0])} to {number(bounds[1])}" if bounds else ""


def number(value: float) -> str:
    """Three significant digits: 0.0321, 3.32, 25.2."""
    return f"{value:.3g}" if abs(value) >= 0.001 or not value else f"{value:.1e}"
