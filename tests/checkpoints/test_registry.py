"""Names of checkpoints."""

import json
import re
from pathlib import Path

import pytest

from mtanimate.checkpoints import registry
from mtanimate.checkpoints.file import read_metadata
from mtanimate.config import preset_names
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.files import cache_folder, sha256

ENTRY = {
    "animates": "faces",
    "description": "d",
    "configuration": "small",
    "resolution": 256,
    "licence": "l",
    "citation": "c",
}
PUBLISHED = {**ENTRY, "layout": "fomm", "pages": ["https://example.org/"]}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """A function that makes these the registry's checkpoints; the cache is an empty folder."""
    file = tmp_path / "checkpoints.yaml"
    monkeypatch.setattr(registry, "_registry_file", lambda: file)
    monkeypatch.setenv("MTANIMATE_CACHE", str(tmp_path / "cache"))

    def write(checkpoints):
        file.write_text(json.dumps({"default": "faces-small", "checkpoints": checkpoints}))  # JSON is YAML

    return write


@pytest.fixture
def listed(write):
    """A registry of two names that ship, one to download, one to get by hand."""
    write(
        {
            "faces-small": {**ENTRY, "file": "weights/small.safetensors", "sha256": "0"},
            "bodies": {**ENTRY, "file": "weights/bodies.safetensors", "sha256": "0"},
            "far": {**PUBLISHED, "published": "far.pth.tar", "urls": ["https://example.org/far.pth.tar"]},
            "farther": {**PUBLISHED, "published": "farther.pth.tar"},
        }
    )


def put(name):
    """Something in the place of an imported checkpoint."""
    registry.checkpoints_folder().mkdir(parents=True, exist_ok=True)
    file = registry.checkpoints_folder() / f"{name}.safetensors"
    file.touch()
    return file


@pytest.mark.parametrize(
    ("name", "file"),
    [("bodies", "bodies.safetensors"), ("faces-small", "small.safetensors"), ("default", "small.safetensors")],
)
def test_names_resolve(listed, name, file):
    path = registry.resolve(name)
    assert path.name == file
    assert path.parent.parent.name == "mtanimate"


def test_a_file_resolves_to_itself(listed, tmp_path):
    file = tmp_path / "bodies"  # although there is such a name
    file.touch()
    assert registry.resolve(str(file)) == file


@pytest.mark.parametrize("name", ["default", "bodies", "mine", "Mine_2.5"])
def test_names_win_over_the_current_folder(listed, name, tmp_path, monkeypatch):
    put("mine")
    put("Mine_2.5")
    known = registry.resolve(name)
    monkeypatch.chdir(tmp_path)
    Path(name).touch()
    assert registry.resolve(name) == known
    assert registry.resolve(f"./{name}") == Path(name)


def test_a_word_is_no_file(listed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for file in ("best", "best.safetensors"):
        Path(file).touch()
    assert registry.resolve("best.safetensors") == Path("best.safetensors")
    with pytest.raises(InputError, match=r"no checkpoint 'best': .* in the current folder: \.[/\\]best$"):
        registry.resolve("best")


@pytest.mark.parametrize("name", ["mine", "far", "farther"])
def test_imported_names_resolve(listed, name):
    file = put(name)
    assert registry.resolve(name) == file == registry.named_file(name)
    assert registry.imported() == {name: file}


def test_what_ships_wins_over_what_was_imported_by_its_name(listed):
    put("bodies")
    assert registry.resolve("bodies") == registry.entries()["bodies"].file


def test_hidden_files_are_no_names(listed):
    put(".half-0123abcd")
    assert registry.imported() == {}


@pytest.mark.parametrize(
    ("name", "to_do"),
    [
        ("far", "mtanimate checkpoints download far$"),
        ("farther", "mtanimate checkpoints show farther says where .* mtanimate checkpoints import FILE$"),
    ],
)
def test_what_is_not_on_this_machine_says_how_to_get_it(listed, name, to_do):
    with pytest.raises(InputError, match=f"checkpoint '{name}' is not on this machine: {to_do}"):
        registry.resolve(name)


def test_unknown_name_suggests_the_nearest(listed):
    with pytest.raises(InputError, match=r"no checkpoint 'bodys'.*did you mean 'bodies'\?"):
        registry.resolve("bodys")
    put("uncle-bob")
    with pytest.raises(InputError, match=r"did you mean 'uncle-bob'\?"):
        registry.resolve("uncle_bob")


def test_unknown_name_far_from_all_lists_them(listed):
    put("far")
    put("mine")
    with pytest.raises(InputError, match=r"there are: faces-small, bodies, far, farther, mine$"):
        registry.resolve("xyzzy.safetensors")


@pytest.mark.parametrize("name", ["a", "vox-cpk", "Mine_2.5", "0", "_x", "console", "a" * 100])
def test_names_that_checkpoints_may_have(name):
    assert registry.check_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", ".x", "..", "-x", "a/b", "a\\b", "a b", "ü", "a\n", "default", "Default", "con", "NUL.x", "com1", "a" * 101],
)
def test_names_that_they_may_not_have(name):
    with pytest.raises(InputError, match="a checkpoint cannot be called"):
        registry.check_name(name)
    with pytest.raises(InputError, match="a checkpoint cannot be called"):
        registry.named_file(name)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"licence": None}, "it has no 'licence'"), ({"citatoin": "x"}, "'citatoin' is not known")],
)
def test_an_entry_that_is_described_wrongly_is_an_error(write, changes, said):
    values = {key: value for key, value in (ENTRY | changes).items() if value is not None}
    write({"x": values})
    with pytest.raises(MTAnimateError, match=f"checkpoints.yaml: checkpoint 'x': {said}"):
        registry.entries()


def test_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("MTANIMATE_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("MTANIMATE_CACHE", "~/x")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert cache_folder() == tmp_path / "x"


def test_the_default_ships():
    entry = registry.entries()[registry.default_name()]
    assert registry.resolve("default") == entry.file


SHIPPED = [entry for entry in registry.entries().values() if entry.file]
OTHERS = [entry for entry in registry.entries().values() if not entry.file]


@pytest.mark.parametrize("entry", SHIPPED, ids=lambda entry: entry.name)
def test_what_ships(entry):
    assert registry.resolve(entry.name) == entry.file
    read_metadata(entry.file)
    assert entry.size == entry.file.stat().st_size
    assert entry.sha256 == sha256(entry.file)
    assert (entry.layout, entry.published, entry.urls, entry.pages, entry.unchecked) == ("", "", (), (), "")


@pytest.mark.parametrize("entry", OTHERS, ids=lambda entry: entry.name)
def test_what_others_published(entry):
    assert entry.layout in ("fomm", "release", "tpsmm")
    # Imported by its own name, it is that entry; TPSMM's names are others', too.
    assert entry.name == "tpsmm-" * (entry.layout == "tpsmm") + entry.published.removesuffix(".pth.tar")
    assert entry.pages
    assert all(re.fullmatch(r"https://[\w./?=-]+", address) for address in entry.urls + entry.pages)
    assert all(url.endswith("/" + entry.published) for url in entry.urls)
    assert re.fullmatch(r"[0-9a-f]{64}|", entry.sha256)
    assert entry.unchecked


@pytest.mark.parametrize("entry", SHIPPED + OTHERS, ids=lambda entry: entry.name)
def test_all_entries(entry):
    assert registry.check_name(entry.name) == entry.name
    assert entry.animates
    assert entry.description
    assert entry.licence
    assert entry.citation
    assert entry.resolution in (256, 384)


@pytest.mark.parametrize("name", sorted({entry.configuration for entry in SHIPPED + OTHERS}))
def test_configurations_are_presets(name):
    assert name in preset_names()
