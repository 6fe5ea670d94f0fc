"""--help that can be read, and what a shell completes."""

import re
import subprocess
import sys

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from mtanimate.cli import app
from mtanimate.cli.options import CHECKING, ENCODING, FILES, FRAMING, HARDWARE, MOTION

WIDTH = 80
MOST_IN_A_PANEL = 12
COMMAND = get_command(app)


def commands(group=COMMAND, path=()):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


EVERY = pytest.mark.parametrize(
    ("path", "command"), [pytest.param(*found, id=" ".join(found[0])) for found in commands()]
)


def options_of(command):
    return [param for param in command.params if param.param_type_name == "option"]


def helped(*path, **environment):
    variables = {"COLUMNS": str(WIDTH), "TERM": "xterm"} | environment
    done = CliRunner().invoke(app, [*path, "--help"], env=variables, color=True)
    assert done.exit_code == 0
    return done.output


@EVERY
def test_help_shows_every_option_in_panels_that_fit_a_terminal(path, command):
    shown = helped(*path)
    assert max(map(len, shown.splitlines())) <= WIDTH
    assert "…" not in shown
    panels = re.split(r"╭─ (.*?) ─*╮", shown)
    found = dict(zip(panels[1::2], panels[2::2], strict=True))
    assert list(found)[-1] == CHECKING
    for option in options_of(command):
        panel = found[option.rich_help_panel or "Options"]
        assert set(re.findall(r"--[a-z-]+", panel)) >= {name for name in option.opts if name.startswith("--")}
        assert option.help
    assert "--help" in found[CHECKING]


@EVERY
def test_no_panel_has_too_many_options(path, command):
    panels = [option.rich_help_panel for option in options_of(command)]
    assert max(panels.count(panel) for panel in panels) <= MOST_IN_A_PANEL
    if len(panels) > MOST_IN_A_PANEL:
        assert None not in panels


def test_the_most_used_options_come_first():
    animate = COMMAND.commands["animate"]
    panels = list(dict.fromkeys(option.rich_help_panel for option in options_of(animate)))
    assert panels == [FILES, FRAMING, MOTION, ENCODING, HARDWARE, CHECKING]
    assert [option.name for option in options_of(animate)][:4] == ["source", "driving", "out", "checkpoint"]


def test_help_without_colours_has_no_escapes():
    assert "\x1b" not in helped("animate", NO_COLOR="1", TERM="dumb")
    done = subprocess.run([sys.executable, "-m", "mtanimate", "models", "--help"], capture_output=True, check=True)
    assert b"\x1b" not in done.stdout


def test_figures_share_their_options():
    attention, inspect = (
        {option.name: option for option in options_of(COMMAND.commands[name])} for name in ("attention", "inspect")
    )
    for name in ("checkpoint", "overwrite", "crop", "driving_crop", "face", "device", "max_pixels", "json"):
        one, other = attention[name], inspect[name]
        assert (one.help, one.default, one.rich_help_panel) == (other.help, other.default, other.rich_help_panel)


def completed(*words):
    """What bash would offer for the last of the words."""
    environment = {
        "_MTANIMATE_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(("mtanimate", *words)),
        "COMP_CWORD": str(len(words)),
    }
    done = CliRunner().invoke(app, [], prog_name="mtanimate", env=environment)
    assert done.exit_code == 0
    return done.output.split()


@pytest.fixture
def checkpoints(tmp_path, monkeypatch):
    """A cache with one imported checkpoint, mine."""
    monkeypatch.setenv("MTANIMATE_CACHE", str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "mine.safetensors").touch()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["anim"], ["animate"]),
        (["animate", "--checkpoint", ""], ["default", "face-talking-heads", "mine"]),
        (["animate", "--checkpoint", "m"], ["mine"]),
        (["train", "--init", "m"], ["mine"]),
        (["checkpoints", "verify", "m"], ["mine"]),
        (["train", "--preset", "vox"], ["vox", "vox-release"]),
        (["train", "--dataset", "mgif"], ["mgif", "mgif-release"]),
        (["data", "check", "x", "--preset", "sm"], ["small"]),
        (["train", "--estimator", "m"], ["motion-transformer", "mraa", "monkey-net"]),
        (["train", "--freeze", "gen"], ["generator"]),
        (["animate", "--codec", "h"], ["h264", "h265"]),
        (["animate", "--background", ""], ["move", "lock"]),
        (["animate", "--face", ""], ["largest", "all"]),
        (["eval", "--detector", "fa"], ["faces", "face-alignment"]),
        (["inspect", "--device", "c"], ["cpu", "cuda"]),
        (["export", "--format", "o"], ["onnx", "openvino"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_completion(words, offered, checkpoints):
    assert completed(*words) == offered


def test_completion_of_published_checkpoints(checkpoints):
    assert "vox-cpk" in completed("checkpoints", "download", "")
    assert "face-talking-heads" not in completed("checkpoints", "download", "")
    assert {"vox-cpk", "face-talking-heads", "mine"} <= set(completed("checkpoints", "show", ""))


def test_completion_of_names_is_light(checkpoints):
    code = (
        "import sys; from mtanimate.cli.options import known_checkpoints, checkpoints_here, presets; "
        "assert list(known_checkpoints('')) and list(checkpoints_here('')) and presets(''); "
        "print([name for name in ('torch', 'numpy', 'PIL') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_completion_is_shown_for_every_shell(shell, monkeypatch):
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")  # then the shell can be named
    done = CliRunner().invoke(app, ["--show-completion", shell], prog_name="mtanimate")
    assert done.exit_code == 0
    assert "_MTANIMATE_COMPLETE" in done.output
