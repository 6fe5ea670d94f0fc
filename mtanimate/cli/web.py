"""`mtanimate web`."""

from pathlib import Path

import typer

from mtanimate.cli.options import (
    BACKEND,
    DEBUG,
    DEVICE,
    ENCODING,
    PRECISION,
    QUIET,
    Backend,
    Precision,
    checkpoint_option,
)
from mtanimate.cli.terminal import remark, reports_errors

EXAMPLE = "Example: mtanimate web --port 8000"
SERVER = "Server"
LIMITS = "Limits for visitors"


@reports_errors
def command(
    host: str = typer.Option(
        "127.0.0.1",
        metavar="ADDRESS",
        help="Where to listen. An address that others can reach needs --auth.",
        rich_help_panel=SERVER,
    ),
    port: int = typer.Option(7860, metavar="N", min=0, max=65535, help="0: any free one.", rich_help_panel=SERVER),
    auth: str | None = typer.Option(
        None,
        metavar="USER:PASSWORD",
        envvar="MTANIMATE_AUTH",
        help="What visitors have to give.",
        show_default=False,
        rich_help_panel=SERVER,
    ),
    checkpoint: str = checkpoint_option(
        "A name from 'mtanimate checkpoints list', a .safetensors file, or FOLDER/ from 'mtanimate export'."
    ),
    credentials: tuple[Path, Path] | None = typer.Option(
        None,
        metavar="CERT KEY",
        help="Sign results with content credentials (C2PA): a certificate and its private key, PEM files.",
        rich_help_panel=ENCODING,
    ),
    max_size: int = typer.Option(200, metavar="MB", min=1, help="Of an upload.", rich_help_panel=LIMITS),
    max_pixels: int = typer.Option(
        50_000_000, metavar="N", min=1, help="Of a picture, and of a video's frame.", rich_help_panel=LIMITS
    ),
    max_seconds: float = typer.Option(120, metavar="SECONDS", min=1, help="Of a video.", rich_help_panel=LIMITS),
    queue: int = typer.Option(
        10, metavar="N", min=0, help="Runs that may wait while one is computed.", rich_help_panel=LIMITS
    ),
    keep: float = typer.Option(
        1, metavar="HOURS", min=0.01, help="How long uploads and results stay.", rich_help_panel=LIMITS
    ),
    device: str = DEVICE,
    precision: Precision = PRECISION,
    backend: Backend = BACKEND,
    quiet: bool = QUIET,
    debug: bool = DEBUG,
) -> None:
    """Serve a page on which photos are animated in a browser."""
    from mtanimate.web.running import Limits
    from mtanimate.web.server import serve

    serve(
        host=host,
        port=port,
        auth=auth,
        limits=Limits(max_size, max_pixels, max_seconds, queue, keep),
        credentials=credentials,
        checkpoint=checkpoint,
        device=device,
        precision=precision.value,
        backend=backend.value,
        log=remark(quiet),
    )
