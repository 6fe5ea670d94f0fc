"""`mtanimate export`."""

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mtanimate.cli.terminal import DEBUG, JSON, QUIET, Backend, print_json, put, remark, reports_errors

if TYPE_CHECKING:
    from mtanimate.export.export import ExportResult

EXAMPLE = "Example: mtanimate export --checkpoint default --format onnx --out default-onnx"


class Precision(str, Enum):
    fp32 = "fp32"
    fp16 = "fp16"
    int8 = "int8"


@reports_errors
def command(
    checkpoint: str = typer.Option("default", help="A checkpoint's name or file."),
    format: Backend = typer.Option(..., help="What is to run it: ONNX Runtime, OpenVINO or PyTorch alone."),
    out: Path = typer.Option(..., help="The folder to write."),
    precision: Precision = typer.Option(Precision.fp32, help="int8 needs --calibrate."),
    calibrate: list[Path] = typer.Option(
        [], help="A video, a folder of frames or a picture like those that it will animate; as many as you like."
    ),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace an exported folder."),
    json: bool = JSON,
    quiet: bool = QUIET,
    debug: bool = DEBUG,
) -> None:
    """Write a network as graphs that run without PyTorch, and compare what they give with PyTorch."""
    from mtanimate.export.export import export

    report = export(
        checkpoint,
        format.value,
        out,
        precision=precision.value,
        calibrate=calibrate,
        overwrite=overwrite,
        log=remark(quiet),
    )
    if json:
        print_json(report.as_dict())
    elif not quiet:
        _print(report)


def _print(report: "ExportResult") -> None:
    found = report.differences
    put(f"{report.out}: {', '.join(report.graphs)}; {report.format}, {report.precision}, {report.bytes / 1e6:.1f} MB")
    if report.precision == "int8":
        put(f"int8: {', '.join(report.int8) or 'nothing'}; left in float32: {', '.join(report.float32) or 'nothing'}")
    psnr = "equal" if found.psnr is None else f"PSNR {found.psnr:.1f} dB at least"
    put(
        f"against PyTorch in float32, {found.pairs} {report.frames} pairs: largest difference {found.largest:.2g}, "
        f"mean {found.mean:.2g}, {psnr}; tolerance: {found.tolerance}"
    )
    put(f"use it with --checkpoint {report.out}/" + " --allow-code" * (report.format == "torch"))
