"""`mtanimate checkpoints` as a user runs it."""

import hashlib
import json
import re
import subprocess
import sys

import pytest
from commands import run_here
from foreign import FOMM, write
from forks import run
from serving import serving

from mtanimate.checkpoints.file import verify_checkpoint
from mtanimate.checkpoints.registry import entries
from mtanimate.config import to_mapping
from mtanimate.files import sha256

DEFAULT = entries()["face-talking-heads"]
WITH_REGISTRY = """
import sys
from pathlib import Path
from mtanimate.checkpoints import registry
from mtanimate.checkpoints import conversion
from mtanimate.config import Config, load_file
file = Path(sys.argv.pop(1))
registry._registry_file = lambda: file
# A published network of 240 MB is too large for a test: what is published here is tiny.
conversion.load_preset = lambda name: load_file(file.with_name("published.yaml"))
import mtanimate.cli
mtanimate.cli.main()
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The user's cache: an empty folder."""
    folder = tmp_path / "cache ü"
    monkeypatch.setenv("MTANIMATE_CACHE", str(folder))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return folder


@pytest.mark.parametrize("command", ["list", "show", "verify", "download"])
def test_every_command_has_help_with_an_example(command):
    done = run("checkpoints", command, "--help")
    assert done.returncode == 0
    assert f"mtanimate checkpoints {command}" in done.stdout.partition("Example:")[2]


def test_a_list_needs_no_heavy_library():
    heavy = ("torch", "pooch", "requests")
    code = (
        "import sys, mtanimate.cli; from mtanimate.checkpoints.registry import list_checkpoints; list_checkpoints();"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_list():
    result = json.loads(run("checkpoints", "list", "--json").stdout)
    assert result["default"] == DEFAULT.name
    assert result["checkpoints"][0] == {
        "name": DEFAULT.name,
        "animates": "talking heads",
        "resolution": 256,
        "configuration": "face",
        "licence": DEFAULT.licence,
        "state": "ships",
        "file": str(DEFAULT.file),
    }
    assert {line["state"] for line in result["checkpoints"]} == {"ships", "to download", "by hand"}


@pytest.mark.parametrize("columns", [80, 120])
def test_the_table_fits_its_terminal(cache, columns, monkeypatch):
    (cache / "checkpoints").mkdir(parents=True)
    (cache / "checkpoints" / "mine.safetensors").write_text("half a file")
    monkeypatch.setenv("COLUMNS", str(columns))
    done = run("checkpoints", "list")
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= columns
    assert re.search(r"^face-talking-heads +talking heads +256 +research use +ships \(default\)", done.stdout, re.M)
    assert re.search(r"^mine +broken", done.stdout, re.M)
    assert "…" not in done.stdout


def test_show():
    done = run("checkpoints", "show", "vox-cpk")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^to do +mtanimate checkpoints download vox-cpk$", done.stdout, re.M)
    entry = entries()["vox-cpk"]
    for text in (*entry.urls, *entry.pages, entry.unchecked, entry.sha256, entry.citation):
        assert text in done.stdout
    known = json.loads(run("checkpoints", "show", "default", "--json").stdout)
    assert (known["name"], known["state"], known["file"]) == (DEFAULT.name, "ships", str(DEFAULT.file))
    assert int(known["about"]["samples"]) > 10_000


def test_verify(cache):
    done = run("checkpoints", "verify")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"ok   {DEFAULT.name}  as it was published: {DEFAULT.file}\n"
    (cache / "downloads").mkdir(parents=True)
    (cache / "downloads" / "vox-cpk.pth.tar").write_bytes(b"x")
    done = run("checkpoints", "verify", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["checkpoints"][1] == {
        "name": "vox-cpk",
        "file": str(cache / "downloads" / "vox-cpk.pth.tar"),
        "ok": False,
        "said": "it has 1 bytes instead of 728766691",
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["show", "vox-cpx"], "did you mean 'vox-cpk'?"),
        (["verify", "ted384"], "'ted384' is not on this machine"),
        (["download", "default"], "'face-talking-heads' ships with the package; nothing to download"),
        (["download", "voxceleb"], "get voxceleb.pth.tar by hand from https://github.com/JialeTao/MTIA, then: "),
        (["download", "vox-cpx"], "did you mean 'vox-cpk'?"),
    ],
)
def test_wrong_input_is_one_line(arguments, said):
    done = run_here("checkpoints", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


# download


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A checkpoint as FOMM's tool writes it."""
    return write(tmp_path_factory.mktemp("published"), "fomm")[0].read_bytes()


@pytest.fixture(scope="module")
def server(published):
    with serving(published) as server:
        yield server


@pytest.fixture
def download(server, published, tmp_path):
    """A function that runs `download` where `far` has this one address."""

    def download(kind, *options):
        entry = {"animates": "faces", "description": "d", "configuration": "small", "resolution": 256, "licence": "l"}
        entry |= {"citation": "c", "layout": "fomm", "published": "far.pth.tar", "pages": ["https://example.org/"]}
        entry |= {"urls": [server.url(kind)], "size": len(published), "sha256": hashlib.sha256(published).hexdigest()}
        file = tmp_path / "checkpoints.yaml"
        file.write_text(json.dumps({"default": "far", "checkpoints": {"far": entry}}))
        (tmp_path / "published.yaml").write_text(json.dumps({"model": to_mapping(FOMM)}))
        command = [sys.executable, "-c", WITH_REGISTRY, file, "checkpoints", "download", "far", *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    return download


def test_download(download, published, cache, server):
    done = download("good")
    path, file = cache / "downloads" / "far.pth.tar", cache / "checkpoints" / "far.safetensors"
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{path}\nSHA-256 {sha256(path)}\nlicence: l\nuse it with --checkpoint far\n"
    assert done.stderr.startswith(f"fetching {server.url('good')}\ndownloading: ")
    assert path.read_bytes() == published
    assert verify_checkpoint(file) == ""
    again = download("good", "--json")
    known = {"name": "far", "file": str(file), "published": str(path), "sha256": sha256(path), "verified": True}
    assert json.loads(again.stdout) == known
    assert "is there already" in again.stderr
    assert download("good", "--quiet").stderr == ""


def test_a_download_that_fails_is_one_line(download, cache):
    done = download("corrupted", "--quiet")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "its SHA-256 is" in done.stderr
    assert "then: mtanimate checkpoints import FILE" in done.stderr
    assert list((cache / "downloads").iterdir()) == []
