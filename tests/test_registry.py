"""Names of checkpoints."""

import json

import pytest

from mtanimate.checkpoints import registry
from mtanimate.checkpoints.file import read_metadata
from mtanimate.errors import InputError


@pytest.fixture
def listed(tmp_path, monkeypatch):
    """A registry of two names."""
    entry = {"sha256": "0", "description": "d", "licence": "l"}
    content = {
        "default": "faces-small",
        "checkpoints": {
            "faces-small": {"file": "weights/small.safetensors", **entry},
            "bodies": {"file": "weights/bodies.safetensors", **entry},
        },
    }
    file = tmp_path / "checkpoints.yaml"
    file.write_text(json.dumps(content))  # JSON is YAML
    monkeypatch.setattr(registry, "_registry_file", lambda: file)


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


def test_unknown_name_suggests_the_nearest(listed):
    with pytest.raises(InputError, match=r"no checkpoint 'bodys'.*did you mean 'bodies'\?"):
        registry.resolve("bodys")


def test_unknown_name_far_from_all_lists_them(listed):
    with pytest.raises(InputError, match="there are: faces-small, bodies"):
        registry.resolve("xyzzy.safetensors")


def test_the_registry_that_ships():
    if not registry._registry_file().is_file():
        pytest.skip("no checkpoints.yaml yet")
    entries = registry.entries()
    assert entries
    for name, entry in entries.items():
        assert entry.name == name
        assert entry.file.suffix == ".safetensors"
        assert entry.description
        assert entry.licence
        if entry.file.is_file():
            assert registry.resolve(name) == entry.file
            read_metadata(entry.file)
    assert registry.resolve("default") in {entry.file for entry in entries.values()}
