"""`mtanimate export`: networks for other runtimes, in a folder or installed."""

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mtanimate.cli.options import DEBUG, FILES, JSON, QUIET, checkpoint_option, overwrite_option
from mtanimate.cli.terminal import print_json, put, remark, reports_errors

if TYPE_CHECKING:
    from mtanimate.export.export import ExportResult
    from mtanimate.export.installing import Installation

EXAMPLE = "Example: mtanimate export --checkpoint default --format onnx --out default-onnx"
NUMBERS = "Number format"
INSTALLING = "For --backend auto"


class Format(str, Enum):
    torch = "torch"
    onnx = "onnx"
    openvino = "openvino"


class ExportPrecision(str, Enum):
    fp32 = "fp32"
    fp16 = "fp16"
    int8 = "int8"


@reports_errors
def command(
    checkpoint: str = checkpoint_option("A checkpoint's name or file."),
    format: Format | None = typer.Option(
        None,
        metavar="torch|onnx|openvino",
        help="What will run it: PyTorch alone, ONNX Runtime or OpenVINO.",
        show_default="openvino with --install",
        rich_help_panel=FILES,
    ),
    out: Path | None = typer.Option(
        None, metavar="FOLDER", help="The folder to write.", show_default=False, rich_help_panel=FILES
    ),
    overwrite: bool = overwrite_option("Replace an exported folder."),
    precision: ExportPrecision = typer.Option(
        ExportPrecision.fp32,
        metavar="fp32|fp16|int8",
        help="Number format of the network. int8 needs --calibrate.",
        rich_help_panel=NUMBERS,
    ),
    calibrate: list[Path] = typer.Option(
        [],
        metavar="FILE",
        help="A video, a folder of frames or a picture like those to be animated. May be repeated.",
        rich_help_panel=NUMBERS,
    ),
    installing: bool = typer.Option(
        False,
        "--install",
        help="Instead of --out: measure it, and keep it for 'animate', which uses it where it is faster.",
        rich_help_panel=INSTALLING,
    ),
    uninstalling: bool = typer.Option(
        False,
        "--uninstall",
        help="Remove the checkpoint's installed export. 'mtanimate doctor' lists all.",
        rich_help_panel=INSTALLING,
    ),
    json: bool = JSON,
    quiet: bool = QUIET,
    debug: bool = DEBUG,
) -> None:
    """Write a network as graphs that run without this package, and compare their output with PyTorch's."""
    from mtanimate.errors import InputError

    if [out is not None, installing, uninstalling].count(True) != 1:
        raise InputError("give one of --out FOLDER, --install and --uninstall")
    if uninstalling:
        _uninstall(checkpoint, json, quiet)
        return
    if out is None:
        from mtanimate.export.installing import install

        chosen = format or Format.openvino
        done = install(checkpoint, chosen.value, precision=precision.value, calibrate=calibrate, log=remark(quiet))
        if json:
            print_json(done.as_dict())
        elif not quiet:
            _print_installed(done)
        return
    if format is None:
        raise InputError("--format is missing: torch, onnx or openvino")
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
        _print_exported(report)
        put(f"use it with --checkpoint {report.out}/" + " --allow-code" * (report.format == "torch"))


def _uninstall(checkpoint: str, json: bool, quiet: bool) -> None:
    from mtanimate.export.installing import remove

    gone = remove(checkpoint)
    if json:
        print_json({"removed": str(gone)})
    elif not quiet:
        put(f"removed {gone}")


def _print_exported(report: "ExportResult") -> None:
    found = report.differences
    put(f"{report.out}: {', '.join(report.graphs)}; {report.format}, {report.precision}, {report.bytes / 1e6:.1f} MB")
    if report.precision == "int8":
        put(f"int8: {', '.join(report.int8) or 'nothing'}; left in float32: {', '.join(report.float32) or 'nothing'}")
    psnr = "equal" if found.psnr is None else f"PSNR {found.psnr:.1f} dB at least"
    put(
        f"compared with PyTorch in float32 on {found.pairs} {report.frames} pairs: largest difference "
        f"{found.largest:.2g}, mean {found.mean:.2g}, {psnr}; tolerance: {found.tolerance}"
    )


def _print_installed(done: "Installation") -> None:
    _print_exported(done.export)
    put(f"measured on {done.measurement.machine}: it takes {done.measurement.describe()}")
    if done.measurement.faster:
        put(f"installed: --backend auto, the default, now runs {done.export.checkpoint} by {done.export.format}")
    else:
        other = "" if done.export.precision == "int8" else "; --precision int8 is often faster"
        put(f"installed, and not faster: --backend auto goes on with the torch engine{other}")
