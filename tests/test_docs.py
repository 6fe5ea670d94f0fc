"""What the documents promise: links lead somewhere, commands and options exist, Python examples run."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml
from tiny import CONFIG, moving_square, tiny_animator, write_video

import mtanimate
from mtanimate.checkpoints import registry
from mtanimate.checkpoints.file import write_checkpoint
from mtanimate.cli import app
from mtanimate.video import write_image

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob(".github/**/*.md")])
NAMES = [path.relative_to(ROOT).as_posix() for path in DOCUMENTS]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Options in the documents that are other programs'.
FOREIGN = {"--shm-size", "--nnodes", "--nproc-per-node", "--rdzv-backend", "--rdzv-endpoint"}
COMMAND = typer.main.get_command(app)


def prose(document: Path) -> str:
    return FENCE.sub("", document.read_text("utf-8"))


def anchors(document: Path) -> set[str]:
    """Of its headings, as GitHub forms them."""
    headings = re.findall(r"^#+ (.*)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name):
    document = ROOT / name
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@pytest.mark.parametrize("name", NAMES)
def test_files_that_are_named_exist(name):
    files = {
        path.name for folder in ("mtanimate", "benchmarks", "tests", "docs") for path in (ROOT / folder).rglob("*")
    }
    for path in re.findall(r"`((?:[\w.-]+/)*[\w-]+\.py)\b", prose(ROOT / name)):
        here = (ROOT / path).exists() or (ROOT / "mtanimate" / path).exists()
        assert here if "/" in path else path in files, path


def command_lines(document: Path) -> list[list[str]]:
    """The words after `mtanimate` of every command line in a document's blocks and spans of code."""
    text = document.read_text("utf-8")
    blocks = [block.replace("\\\n", " ") for language, block in FENCE.findall(text) if language in ("", "bash")]
    spans = re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
    lines = [line for block in blocks for line in block.splitlines()] + spans
    found = []
    for line in lines:
        called = re.search(r"(?:^|\| |-m |srun .*|/)mtanimate ((?:[a-z-]|--\w).*)", line)
        if called:
            found.append(shlex.split(called[1].partition("|")[0], comments=True))
    return found


def options_of(command) -> set[str]:
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}


def all_options(command=COMMAND) -> set[str]:
    return options_of(command).union(*map(all_options, getattr(command, "commands", {}).values()))


@pytest.mark.parametrize("name", NAMES)
def test_commands_and_their_options_exist(name):
    for words in command_lines(ROOT / name):
        command, rest = COMMAND, list(words)
        while getattr(command, "commands", None) and rest and not rest[0].startswith("-"):
            assert rest[0] in command.commands, words
            command = command.commands[rest.pop(0)]
        given = {word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)}
        assert given <= options_of(command) | {"--help", "-h"}, words


def test_there_are_command_lines():
    assert sum(len(command_lines(document)) for document in DOCUMENTS) > 60


@pytest.mark.parametrize("name", NAMES)
def test_options_in_the_text_exist(name):
    scripts = [*ROOT.glob("benchmarks/**/*.py"), *ROOT.glob("tests/fuzz/*.py")]
    theirs = set(re.findall(r"\"(--[a-z-]+)\"", "".join(script.read_text("utf-8") for script in scripts)))
    given = set(
        re.findall(r"(?<![\w-])(--[a-z][a-z-]*[a-z])", " ".join(re.findall(r"`([^`\n]+)`", prose(ROOT / name))))
    )
    assert given <= all_options() | theirs | FOREIGN | {"--help"}


@pytest.mark.parametrize("name", NAMES)
def test_targets_of_make_exist(name):
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    for target in re.findall(r"(?:^|`)make ([a-z]+)", (ROOT / name).read_text("utf-8"), re.MULTILINE):
        assert target in targets


def test_every_document_is_in_the_index():
    index = (ROOT / "docs/README.md").read_text("utf-8")
    for document in ROOT.glob("docs/*.md"):
        assert document.name == "README.md" or f"({document.name})" in index, document.name


# The Python API


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """face.jpg, talk.mp4, videos/: what the examples take. cache/ has a tiny checkpoint."""
    folder = tmp_path_factory.mktemp("examples")
    write_image(folder / "face.jpg", moving_square(1, 0.3)[0])
    write_video(folder / "talk.mp4", moving_square(6, 0.3))
    for number in range(2):
        write_video(folder / f"videos/train/person{number}#1.mp4", moving_square(12, 0.2 + number / 10))
    write_video(folder / "videos/test/someone#1.mp4", moving_square(4, 0.4))
    (folder / "cache/checkpoints").mkdir(parents=True)
    write_checkpoint(folder / "cache/checkpoints/tiny.safetensors", tiny_animator(), CONFIG, {})
    return folder


PYTHON = [block for language, block in FENCE.findall((ROOT / "docs/api.md").read_text("utf-8")) if language == "python"]


@pytest.mark.parametrize("example", PYTHON, ids=lambda example: re.search(r"mtanimate\.([\w.]+)\(", example)[1])
def test_examples_run(example, folder, monkeypatch, capsys):
    """As they stand there, but with a tiny network and two steps of training."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MTANIMATE_CACHE", str(folder / "cache"))
    monkeypatch.setattr(registry, "default_name", lambda: "tiny")
    quick = example.replace('"training.steps=2000"', '"training.steps=2", "training.batch_size=2", "loss.perceptual=0"')
    exec(compile(quick, "docs/api.md", "exec"), {})
    assert capsys.readouterr().out


def test_all_that_is_exported_is_described():
    described = set(re.findall(r"`(\w+)`", (ROOT / "docs/api.md").read_text("utf-8")))
    assert set(mtanimate.__all__) <= described
    assert all(hasattr(mtanimate, name) for name in mtanimate.__all__)
    with pytest.raises(AttributeError):
        mtanimate.nothing  # noqa: B018


def test_import_does_not_wait_for_torch():
    script = "import sys, mtanimate; mtanimate.InputError; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


# The repository's own files


def test_weights_have_a_licence_beside_them():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["license"].startswith("MIT AND LicenseRef-")
    files = [ROOT / file for file in project["license-files"]]
    assert all(file.is_file() for file in files)
    for weights in ROOT.glob("mtanimate/**/*.safetensors"):
        assert any(file.parent == weights.parent for file in files), weights


@pytest.mark.parametrize("name", ["CITATION.cff", ".pre-commit-config.yaml", ".github/workflows/tests.yml"])
def test_yaml_can_be_read(name):
    assert isinstance(yaml.safe_load((ROOT / name).read_text("utf-8")), dict)
