"""`mtanimate doctor` and `mtanimate models`: what is installed, and how large the networks are."""

from typing import TYPE_CHECKING

import typer

from mtanimate.cli.options import DEBUG, JSON, QUIET
from mtanimate.cli.terminal import console, print_json, put, reports_errors

if TYPE_CHECKING:
    from mtanimate.inspection.complexity import Complexity

DOCTOR_EXAMPLE = "Example: mtanimate doctor"


@reports_errors
def doctor_command(json: bool = JSON, quiet: bool = QUIET, debug: bool = DEBUG) -> None:
    """Show what is installed, which devices and codecs work, and how to get what is missing."""
    from mtanimate.doctor import diagnose

    findings = diagnose()
    if json:
        print_json({"ok": all(f.ok for f in findings if f.needed), "findings": [f.as_dict() for f in findings]})
    elif not quiet:
        width = max(len(finding.what) for finding in findings)
        for finding in findings:
            mark = "ok" if finding.ok else ("MISSING" if finding.needed else "-")
            put(f"{mark:8}{finding.what:{width}}  {finding.detail}")
    if not all(finding.ok for finding in findings if finding.needed):
        raise typer.Exit(1)


MODELS_EXAMPLE = "Example: mtanimate models --json"


@reports_errors
def models_command(
    resolution: int = typer.Option(
        256, metavar="N", min=64, max=16_384, help="Side of the picture that multiply-adds are counted for."
    ),
    json: bool = JSON,
    quiet: bool = QUIET,
    debug: bool = DEBUG,
) -> None:
    """Count the parameters and multiply-adds of every network, beside the paper's Tables 1 and 5."""
    from mtanimate.inspection.complexity import model_complexities

    rows = model_complexities(resolution)
    if json:
        print_json({"resolution": resolution, "models": [row.as_dict() for row in rows]})
    elif not quiet:
        _print_table(rows, resolution)


def _print_table(rows: "list[Complexity]", resolution: int) -> None:
    from rich.table import Table

    table = Table(title=f"Parameters, and multiply-adds at {resolution} x {resolution}", box=None)
    table.add_column("network")
    for name in ("parameters", "paper", "multiply-adds", "paper"):
        table.add_column(name, justify="right")
    for row in rows:
        name = f"{row.name} {row.backbone} ({row.variant})" if row.backbone else f"{row.name} ({row.variant})"
        table.add_row(
            name,
            f"{row.parameters / 1e6:.3f} M",
            f"{row.paper_parameters:.2f} M" if row.paper_parameters else "",
            f"{row.multiply_adds / 1e9:.2f} G",
            f"{row.paper_multiply_adds:.2f} G" if row.paper_multiply_adds else "",
        )
    console().print(table)
