"""The command line: options in, one use case, a printed result. No tensor is touched here."""

import typer

from mtanimate.cli import animate, checkpoints, data, eval, export, figures, information, train
from mtanimate.cli.terminal import Group
from mtanimate.signals import let_signals_end

app = typer.Typer(
    name="mtanimate",
    cls=Group,
    epilog="Example: mtanimate animate --source face.jpg --driving talk.mp4 --out result.mp4",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
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


for module in (animate, train, eval, export):
    app.command(module.__name__.rpartition(".")[2], epilog=module.EXAMPLE)(module.command)
app.command("attention", epilog=figures.ATTENTION_EXAMPLE)(figures.attention_command)
app.command("visualize-attention", hidden=True, epilog=figures.ATTENTION_EXAMPLE)(figures.attention_command)
app.command("inspect", epilog=figures.INSPECT_EXAMPLE)(figures.inspect_command)
app.command("models", epilog=information.MODELS_EXAMPLE)(information.models_command)
app.command("doctor", epilog=information.DOCTOR_EXAMPLE)(information.doctor_command)
app.add_typer(checkpoints.app)
app.add_typer(data.app)


def main() -> None:
    """The console script."""
    try:
        app()
    finally:
        let_signals_end()  # all is said and done
