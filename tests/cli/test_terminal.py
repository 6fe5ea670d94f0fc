"""Whatever strangers' files say, a terminal gets nothing that it would obey."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from tiny import CONFIG, tiny_animator
from typer.testing import CliRunner

from mtanimate.checkpoints.file import write_checkpoint
from mtanimate.cli import app
from mtanimate.cli.terminal import console, print_json, printable, put, tell
from mtanimate.video.image import write_image

HOSTILE = "\x1b]0;title\x07\x1b[2J\x9b31m\u202e\r[red]:smile:[/red]"


def is_harmless(shown):
    return all(line.isprintable() for line in shown.split("\n"))


@given(st.text(st.characters()))
def test_any_text_becomes_printable_and_plain_text_stays(text):
    assert printable(text).isprintable()
    assert (printable(text) == text) == text.isprintable()


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_json_stays_what_it_was(text):
    shown = printable(json.dumps({text: text}, ensure_ascii=False))
    assert json.loads(shown) == {text: text}


@pytest.mark.parametrize("log", [put, tell, lambda text: print_json({"name": text})])
def test_a_line_is_one_line_without_orders(log, capsys):
    log(f"{HOSTILE}\nnext\ud800")
    out, err = capsys.readouterr()
    assert (out + err).count("\n") == 1
    assert is_harmless(out + err)


def test_a_very_long_line_keeps_its_beginning_and_its_end(capsys):
    tell(f"mtanimate: '{'x' * 100_000}' is damaged: copy it again")
    line = capsys.readouterr().err
    assert len(line) < 2100
    assert line.startswith("mtanimate: 'xxx")
    assert line.endswith("' is damaged: copy it again\n")


def test_tables_show_text_as_it_is(capsys):
    table = Table(title=HOSTILE)
    table.add_column(f"column {HOSTILE}\nsecond line")
    table.add_row(f"cell {HOSTILE}")
    screen = console()
    screen.print(table)
    screen.print(f"line {HOSTILE}", soft_wrap=True)
    out = capsys.readouterr().out
    assert is_harmless(out)
    assert "line \\u001b]0;title" in out
    assert "[red]:smile:[/red]" in out


@pytest.fixture
def told(tmp_path, monkeypatch):
    """What a command says of a file, on stdout and stderr together."""
    monkeypatch.setenv("MTANIMATE_CACHE", str(tmp_path / "cache"))

    def run(*arguments):
        return CliRunner().invoke(app, [str(argument) for argument in arguments]).output

    return run


def test_a_checkpoint(told, tmp_path):
    file = tmp_path / "cache" / "checkpoints" / "theirs.safetensors"
    file.parent.mkdir(parents=True)
    write_checkpoint(file, tiny_animator(), CONFIG, {"licence": HOSTILE, "animates": HOSTILE})
    for command in (["list"], ["show", "theirs"], ["show", file], ["list", "--json"], ["show", "theirs", "--json"]):
        said = told("checkpoints", *command)
        assert "\\u001b" in said
        assert is_harmless(said)


CLEAR = "\x1b[2J"
PICTURES = ["--source", "a.png", "--driving", "a.png", "--out", "out.mp4", "--crop", "none", "--driving-crop", "none"]


@pytest.mark.parametrize(
    ("name", "content", "arguments"),
    [
        ("jobs.csv", f"source,driving,out,{CLEAR}\na.png,a.png,c.mp4,1", ["animate", "--jobs", "jobs.csv"]),
        ("manifest.json", json.dumps({"format": CLEAR}), ["animate", *PICTURES, "--checkpoint", "./"]),
        ("data.yaml", f"preset: small\n{json.dumps(CLEAR)}: 1", ["train", "--dataset", "data.yaml"]),
    ],
)
def test_other_files(name, content, arguments, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_image("a.png", np.zeros((64, 64, 3), np.uint8))
    (tmp_path / name).write_text(content, "utf-8")
    said = told(*arguments)
    assert "\\u001b[2J" in said
    assert is_harmless(said)
