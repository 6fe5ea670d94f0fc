"""`mtanimate checkpoints import` and `export`: other tools' checkpoints."""

from enum import Enum
from pathlib import Path

import typer

from mtanimate.cli.terminal import DEBUG, JSON, QUIET, print_json, put, remark, reports_errors

IMPORT_EXAMPLE = "Example: mtanimate checkpoints import vox-cpk.pth.tar"
EXPORT_EXAMPLE = "Example: mtanimate checkpoints export vox-cpk --layout fomm --out mine.pth.tar"


class Layout(str, Enum):
    fomm = "fomm"
    release = "release"


@reports_errors
def import_command(
    file: Path = typer.Argument(..., help="FOMM's or the Motion Transformer authors' checkpoint (.pth, .pth.tar)."),
    name: str | None = typer.Option(None, help="The name that --checkpoint then takes.", show_default="the file's"),
    config: str | None = typer.Option(
        None, help="Its configuration file (YAML), or the published checkpoint that it is, e.g. vox-cpk."
    ),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace a checkpoint of that name."),
    json: bool = JSON,
    quiet: bool = QUIET,
    debug: bool = DEBUG,
) -> None:
    """Make a published checkpoint ours. Nothing in the file is run; its network is, once, to see that it works."""
    from mtanimate.checkpoints.importing import import_checkpoint

    say = remark(quiet)
    imported = import_checkpoint(file, name, config, overwrite)
    for line in imported.remarks:
        say(line)
    if json:
        print_json(
            {
                "name": imported.name,
                "file": str(imported.file),
                "layout": imported.layout,
                "estimator": imported.config.estimator.name,
                "resolution": imported.config.resolution,
                "parameters": imported.parameters,
                "left_out": imported.left_out,
                "finite": True,
                "remarks": imported.remarks,
                "about": imported.about,
            }
        )
    elif not quiet:
        left_out = f"; left out: {', '.join(imported.left_out)}" if imported.left_out else ""
        put(
            f"{imported.name}: {imported.config.estimator.name}, {imported.parameters / 1e6:.1f} M parameters, "
            f"{imported.config.resolution} x {imported.config.resolution}; its outputs are finite{left_out}"
        )
        put(f"licence: {imported.about['licence']}")
        put(f"use it with --checkpoint {imported.name}")


@reports_errors
def export_command(
    checkpoint: str = typer.Argument(..., help="A checkpoint's name or file."),
    layout: Layout = typer.Option(..., help="Whose tool is to read it: FOMM's, or the Motion Transformer authors'."),
    out: Path | None = typer.Option(None, help="The file to write.", show_default="NAME.pth.tar"),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace files that are there."),
    json: bool = JSON,
    quiet: bool = QUIET,
    debug: bool = DEBUG,
) -> None:
    """Write a checkpoint as another tool reads it, and the configuration file that it needs beside it."""
    from mtanimate.checkpoints.exporting import export_checkpoint

    exported = export_checkpoint(checkpoint, layout.value, out, overwrite)
    if json:
        print_json({"out": str(exported.file), "config": str(exported.configuration), "layout": exported.layout})
    elif not quiet:
        put(f"{exported.file} and {exported.configuration}")
