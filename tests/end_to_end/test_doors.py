"""Whatever goes wrong is one line and an exit code: the faults are real ones."""

import json
import os
import subprocess
import sys

import pytest
from commands import COMMAND, run_here
from forks import run
from PIL import Image

from mtanimate.cli.terminal import print_json, reports_errors
from mtanimate.errors import InputError

needs_posix = pytest.mark.skipif(os.name != "posix", reason="shells, and modes of files")


def one_line(done: subprocess.CompletedProcess[str], code: int) -> str:
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("mtanimate: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def shell(line: str) -> subprocess.CompletedProcess[str]:
    """`line` with $M for the command; `set -o pipefail` tells its exit code."""
    script = ["bash", "-c", f"set -o pipefail; {line}"]
    return subprocess.run(script, env=os.environ | {"M": str(COMMAND)}, capture_output=True, text=True, timeout=180)


@pytest.mark.parametrize(
    "arguments",
    [
        ["nosuch"],
        ["--nosuch"],
        ["animate", "--nosuch"],
        ["animate", "--strength", "much"],
        ["animate", "--mode", "nosuch"],
        ["animate", "--source"],
        ["checkpoints", "show"],
        ["checkpoints", "show", "x" * 300],
        *(
            ["animate", "--source", "s.png", "--driving", "d.mp4", "--out", "o.mp4", *bad]
            for bad in (
                ["--strength", "inf"],
                ["--strength", "nan"],
                ["--strength", "1e30"],
                ["--smooth", "inf"],
                ["--smooth", "nan"],
                ["--start", "nan"],
                ["--end", "inf"],
            )
        ),
        ["animate", "--source", "x" * 300, "--driving", "d.mp4", "--out", "o.mp4"],
        ["animate", "--source", "s.png", "--driving", "d.mp4", "--out", "x" * 300 + ".mp4"],
        ["animate", "--source", "s.png", "--driving", "d.mp4", "--out", "o.mp4", "--checkpoint", "x" * 300],
        ["data", "check", "~nouser/clips"],
        ["data", "check", "x" * 300],
        ["inspect", "--image", "~nouser/a.png"],
        ["train", "--dataset", "~nouser/clips"],
    ],
    ids=lambda arguments: " ".join(arguments)[-40:],
)
def test_wrong_input(arguments, tmp_path):
    one_line(run(*arguments, cwd=tmp_path), 2)


def test_without_arguments_the_help_is_shown():
    done = run()
    assert "animate" in done.stdout
    assert not done.stderr


@needs_posix
@pytest.mark.parametrize("command", ["--help", "--version", "checkpoints list", "checkpoints list --json"])
def test_a_reader_that_goes_away_is_no_error(command):
    done = shell(f"$M {command} | head -c 1")
    assert (done.returncode, done.stderr) == (0, "")


@needs_posix
def test_a_full_standard_output():
    assert "No space left" in one_line(shell("$M checkpoints list > /dev/full"), 1)


@needs_posix
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", "2> /dev/full"])
def test_closed_and_full_standard_streams(closed):
    assert shell(f"$M checkpoints list {closed}").returncode == 0
    done = shell(f"$M checkpoints show nowhere {closed}")
    assert done.returncode == 2
    assert not done.stdout
    assert "Traceback" not in done.stderr


@needs_posix
def test_closed_standard_streams_where_pytorch_is_imported():
    done = shell("$M animate --source nowhere.png --driving d.mp4 --out o.mp4 <&- >&- 2>&-")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


@needs_posix
def test_a_folder_that_may_not_be_read(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    as_others = "setpriv --bounding-set=-dac_override,-dac_read_search" if os.access(closed, os.R_OK) else ""
    if as_others and shell(f"{as_others} true").returncode:
        pytest.skip("this user may read everything")
    one_line(shell(f"{as_others} $M data check '{closed}'"), 2)
    assert "closed" in one_line(shell(f"{as_others} $M checkpoints show '{closed}/a.safetensors'"), 2)


@pytest.mark.parametrize("program", ["/nowhere", os.devnull, os.path.dirname(sys.executable)])
def test_an_ffmpeg_that_cannot_be_started(media, tmp_path, program):
    options = ["--source", media / "face.png", "--driving", media / "talk.mp4", "--out", tmp_path / "o.mp4"]
    options += ["--checkpoint", media / "tiny.safetensors", "--crop", "none", "--driving-crop", "none", "--quiet"]
    done = run("animate", *options, env=os.environ | {"IMAGEIO_FFMPEG_EXE": program})
    assert "IMAGEIO_FFMPEG_EXE" in one_line(done, 1)


def deep(depth: int) -> int:
    return deep(depth + 1)


def wrapped_by_a_library() -> None:
    try:
        open("/nowhere/file")  # noqa: SIM115
    except OSError as error:
        raise ValueError("it did not work") from error


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        (lambda: bytearray(1 << 62), 1, "memory"),
        (lambda: deep(0), 1, "nested"),
        (lambda: open("/nowhere/file"), 2, "/nowhere/file"),  # noqa: SIM115
        (wrapped_by_a_library, 2, "/nowhere/file"),
        (lambda: [][1], 1, "IndexError"),
        (lambda: {}["a\nb"], 1, "KeyError"),
    ],
    ids=["memory", "recursion", "file", "wrapped", "index", "key"],
)
def test_any_exception(fault, code, said, capsys):
    def command(debug: bool) -> None:
        fault()

    with pytest.raises(SystemExit) as ended:
        reports_errors(command)(debug=False)
    line = capsys.readouterr().err
    assert ended.value.code == code
    assert said in line
    assert line.count("\n") == 1
    with pytest.raises(SystemExit) as ended:
        reports_errors(command)(debug=True)
    assert ended.value.code == code
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback")
    assert shown.endswith(line)


def test_torch_without_memory(capsys):
    import torch

    def command(debug: bool) -> None:
        torch.empty(1 << 60, dtype=torch.uint8)

    with pytest.raises(SystemExit):
        reports_errors(command)(debug=False)
    assert "memory" in capsys.readouterr().err


def test_json_has_no_nan(capsys):
    print_json({"a": float("nan"), "b": [1.5, (float("inf"), "x")], "c": {"d": -float("inf")}})
    printed = capsys.readouterr().out
    assert json.loads(printed, parse_constant=pytest.fail) == {"a": None, "b": [1.5, [None, "x"]], "c": {"d": None}}


def test_an_error_of_ours_says_what_it_says(capsys):
    def command(debug: bool) -> None:
        raise InputError("one\ntwo")

    with pytest.raises(SystemExit) as ended:
        reports_errors(command)(debug=False)
    assert (ended.value.code, capsys.readouterr().err) == (2, "mtanimate: one two\n")


@pytest.mark.parametrize("command", ["animate", "inspect", "attention"])
def test_a_picture_of_too_many_pixels_is_one_line_with_the_option(tmp_path, command):
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    files = ["--source", tmp_path / "a.png", "--driving", tmp_path / "a.png", "--out", tmp_path / "out.png"]
    done = run_here(command, *files, "--max-pixels", 64 * 48 - 1)
    line = one_line(done, 2)
    assert all(text in line for text in ("a.png", "64 x 48", "--max-pixels"))
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
