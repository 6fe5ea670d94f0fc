"""`mtanimate checkpoints`: checkpoints, from and for other tools too."""

import re
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mtanimate.cli.options import (
    DEBUG,
    JSON,
    QUIET,
    Command,
    checkpoints_here,
    known_checkpoints,
    published_checkpoints,
)
from mtanimate.cli.terminal import Group, console, print_json, progress_bar, put, remark, reports_errors

if TYPE_CHECKING:
    from mtanimate.checkpoints.registry import CheckpointInfo

app = typer.Typer(
    name="checkpoints", cls=Group, help="List, fetch, verify and convert checkpoints.", no_args_is_help=True
)


@app.command("list", cls=Command, epilog="Example: mtanimate checkpoints list")
@reports_errors
def list_them(json: bool = JSON, quiet: bool = QUIET, debug: bool = DEBUG) -> None:
    """List the checkpoints that ship, were imported, or can be downloaded."""
    from mtanimate.checkpoints.registry import default_name, list_checkpoints

    default, lines = default_name(), list_checkpoints()
    if json:
        print_json({"default": default, "checkpoints": [_plain(asdict(line)) for line in lines]})
    elif not quiet:
        _print_table(lines, default)


@app.command(cls=Command, epilog="Example: mtanimate checkpoints show default")
@reports_errors
def show(
    name: str = typer.Argument(
        ..., help="A name, or a .safetensors file.", show_default=False, autocompletion=known_checkpoints
    ),
    json: bool = JSON,
    quiet: bool = QUIET,
    debug: bool = DEBUG,
) -> None:
    """Show all that is known about a checkpoint."""
    from mtanimate.checkpoints.registry import describe_checkpoint

    known = _plain(describe_checkpoint(name))
    if json:
        print_json(known)
    elif not quiet:
        _print_known(known)


@app.command(cls=Command, epilog="Example: mtanimate checkpoints verify default")
@reports_errors
def verify(
    names: list[str] = typer.Argument(
        None,
        metavar="NAME_OR_FILE",
        help="Names or files.",
        show_default="all on this machine",
        autocompletion=checkpoints_here,
    ),
    json: bool = JSON,
    quiet: bool = QUIET,
    debug: bool = DEBUG,
) -> None:
    """Check that files are as they were published or written. The exit code is 1 if one is not."""
    from mtanimate.checkpoints.registry import verify as run

    verdicts = run(names or ())
    if json:
        print_json({"checkpoints": [_plain(asdict(verdict)) for verdict in verdicts]})
    elif not quiet:
        width = max((len(verdict.name) for verdict in verdicts), default=0)
        for verdict in verdicts:
            mark = {True: "ok", False: "BAD", None: "-"}[verdict.ok]
            put(f"{mark:5}{verdict.name:{width}}  {verdict.said}: {verdict.file}")
    if any(verdict.ok is False for verdict in verdicts):
        raise SystemExit(1)


@app.command(cls=Command, epilog="Example: mtanimate checkpoints download vox-cpk")
@reports_errors
def download(
    name: str = typer.Argument(
        ..., help="A name from the list.", show_default=False, autocompletion=published_checkpoints
    ),
    json: bool = JSON,
    quiet: bool = QUIET,
    debug: bool = DEBUG,
) -> None:
    """Download a published file, verify it and import it."""
    from mtanimate.checkpoints.conversion import import_checkpoint
    from mtanimate.checkpoints.downloading import download as run
    from mtanimate.checkpoints.registry import default_name, entries, named_file, unknown
    from mtanimate.files import sha256

    name = default_name() if name == "default" else name
    entry = entries().get(name)
    if entry is None:
        raise unknown(name)
    with progress_bar("downloading", "MB", quiet) as bar:

        def progress(done: int, total: int | None) -> None:
            if total:
                bar(done // 10**6, total // 10**6)

        path = run(entry, progress=progress, log=remark(quiet))
    file = named_file(name)
    if not file.is_file():
        file = import_checkpoint(path, name).file
    digest = entry.sha256 or sha256(path)
    if json:
        known = {"name": name, "file": str(file), "published": str(path), "sha256": digest}
        print_json(known | {"verified": bool(entry.sha256)})
    elif not quiet:
        for line in (path, f"SHA-256 {digest}", f"licence: {entry.licence}", f"use it with --checkpoint {name}"):
            put(str(line))


class Layout(str, Enum):
    fomm = "fomm"
    release = "release"
    tpsmm = "tpsmm"


@app.command("import", cls=Command, epilog="Example: mtanimate checkpoints import vox-cpk.pth.tar")
@reports_errors
def import_file(
    file: Path = typer.Argument(..., help="A checkpoint of FOMM, of TPSMM, or of the Motion Transformer's authors."),
    name: str | None = typer.Option(
        None, metavar="NAME", help="The name that --checkpoint will take.", show_default="the file's"
    ),
    config: str | None = typer.Option(
        None,
        metavar="FILE",
        help="Its configuration file (YAML), or the name of the published checkpoint that it is, e.g. vox-cpk.",
        autocompletion=known_checkpoints,
    ),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace a checkpoint of that name."),
    json: bool = JSON,
    quiet: bool = QUIET,
    debug: bool = DEBUG,
) -> None:
    """Convert a published checkpoint for use here.

    No code in the file is run. The network runs once, to show that it works.
    """
    from mtanimate.checkpoints.conversion import import_checkpoint

    log = remark(quiet)
    imported = import_checkpoint(file, name, config, overwrite)
    for line in imported.remarks:
        log(line)
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


@app.command(
    "export",
    cls=Command,
    epilog="Example: mtanimate checkpoints export vox-cpk --layout fomm --out mine.pth.tar",
)
@reports_errors
def export_layout(
    checkpoint: str = typer.Argument(..., help="A checkpoint's name or file.", autocompletion=checkpoints_here),
    layout: Layout = typer.Option(
        ...,
        metavar="fomm|release|tpsmm",
        help="The tool that will read it: FOMM's, the Motion Transformer authors', or TPSMM's.",
    ),
    out: Path | None = typer.Option(None, metavar="FILE", help="The file to write.", show_default="NAME.pth.tar"),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace existing files."),
    json: bool = JSON,
    quiet: bool = QUIET,
    debug: bool = DEBUG,
) -> None:
    """Write a checkpoint for another tool, with the configuration file that the tool needs beside it."""
    from mtanimate.checkpoints.conversion import export_checkpoint

    exported = export_checkpoint(checkpoint, layout.value, out, overwrite)
    if json:
        print_json({"out": str(exported.file), "config": str(exported.configuration), "layout": exported.layout})
    elif not quiet:
        put(f"{exported.file} and {exported.configuration}")


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Paths as text."""
    return {key: str(value) if isinstance(value, Path) else value for key, value in values.items()}


def _print_table(lines: "list[CheckpointInfo]", default: str) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("animates")
    table.add_column("pixels", justify="right")
    table.add_column("licence")
    table.add_column("where", no_wrap=True)
    for line in lines:
        licence = re.split("[;:]", line.licence)[0]
        where = f"{line.state} (default)" if line.name == default else line.state
        table.add_row(line.name, line.animates, str(line.resolution or ""), licence, where)
    console().print(table)


def _print_known(known: dict[str, Any]) -> None:
    """A line for each field that is not empty; what the file itself says comes last."""
    about = tuple(f"{key}: {value}" for key, value in sorted(known["about"].items()))
    rows = {key: value for key, value in (known | {"about": about}).items() if value not in (None, "", ())}
    width = max(map(len, rows))
    for key, value in rows.items():
        for index, line in enumerate(value if isinstance(value, tuple) else (value,)):
            put(f"{'' if index else key.replace('_', ' '):{width}}  {line}")
