"""The command line: options in, one use case, a printed result. No tensor is touched here."""

import atexit
import gc
from collections.abc import Callable

import typer

from mtanimate.cli import animate, checkpoints, data, eval, export, figures, information, train, web
from mtanimate.cli.options import Command
from mtanimate.cli.terminal import Group
from mtanimate.signals import let_signals_end

app = typer.Typer(
    name="mtanimate",
    cls=Group,
    epilog="Example: mtanimate animate --source face.jpg --driving talk.mp4 --out result.mp4",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from mtanimate import __version__

        print(f"mtanimate {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(
        False, "--version", help="Print the version and exit.", is_eager=True, callback=_print_version
    ),
) -> None:
    """Animate a still picture with the motion of a driving video (Motion Transformer, ECCV 2022)."""


COMMANDS: dict[str, tuple[Callable[..., None], str]] = {
    "animate": (animate.command, animate.EXAMPLE),
    "web": (web.command, web.EXAMPLE),
    "train": (train.command, train.EXAMPLE),
    "eval": (eval.command, eval.EXAMPLE),
    "export": (export.command, export.EXAMPLE),
    "attention": (figures.attention_command, figures.ATTENTION_EXAMPLE),
    "inspect": (figures.inspect_command, figures.INSPECT_EXAMPLE),
    "models": (information.models_command, information.MODELS_EXAMPLE),
    "doctor": (information.doctor_command, information.DOCTOR_EXAMPLE),
}
for name, (command, example) in COMMANDS.items():
    app.command(name, cls=Command, epilog=example)(command)
app.command("visualize-attention", cls=Command, hidden=True, epilog=figures.ATTENTION_EXAMPLE)(
    figures.attention_command
)
app.add_typer(checkpoints.app)
app.add_typer(data.app)


_NEW_OBJECTS = 10_000  # between two runs of the garbage collector


def main() -> None:
    """The console script."""
    # PyTorch and its kin are half a million objects that stay to the end. Looking at them again for each few hundred
    # new ones, and once more at the end, would take half a second.
    gc.set_threshold(_NEW_OBJECTS)
    atexit.register(gc.freeze)
    try:
        app()
    finally:
        let_signals_end()  # nothing is left to clean up
