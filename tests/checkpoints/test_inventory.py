"""What of the checkpoints is on this machine, and whether it is what it should be."""

import hashlib
import shutil

import pytest
from tiny import CONFIG, tiny_animator

from mtanimate import doctor as diagnosis
from mtanimate.checkpoints.file import write_checkpoint
from mtanimate.checkpoints.registry import (
    CheckpointInfo,
    checkpoints_folder,
    describe_checkpoint,
    downloads_folder,
    entries,
    list_checkpoints,
    verify,
)
from mtanimate.errors import InputError

DEFAULT = entries()["face-talking-heads"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A small checkpoint with random weights."""
    file = tmp_path_factory.mktemp("tiny") / "tiny.safetensors"
    write_checkpoint(file, tiny_animator(), CONFIG, {"steps": 7, "licence": "mine; all of it", "animates": "discs"})
    return file


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MTANIMATE_CACHE", str(tmp_path / "cache ü"))
    checkpoints_folder().mkdir(parents=True)
    downloads_folder().mkdir()


@pytest.fixture
def put(tiny):
    """A function that puts a checkpoint where imported ones lie."""

    def put(name, content=None):
        file = checkpoints_folder() / f"{name}.safetensors"
        shutil.copy(tiny, file) if content is None else file.write_bytes(content)
        return file

    return put


def flipped(file):
    """Change one bit near its end, where weights are."""
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    return file


def results(*names):
    return {verdict.name: verdict for verdict in verify(names)}


# CheckpointInfo


def test_a_new_machine():
    lines = {line.name: line for line in list_checkpoints()}
    assert list(lines) == list(entries())
    assert (lines[DEFAULT.name].state, lines[DEFAULT.name].file) == ("ships", DEFAULT.file)
    assert (lines["vox-cpk"].state, lines["vox-cpk"].file) == ("to download", None)
    assert (lines["voxceleb"].state, lines["voxceleb"].file) == ("by hand", None)


def test_what_is_here(put):
    mine = put("mine")
    put("vox-cpk")
    put("half", b"x")
    put("ted384", b"x")
    put(DEFAULT.name)  # never used: what ships wins
    for name in ("fashion", "vox-cpk"):
        (downloads_folder() / f"{name}.pth.tar").touch()
    lines = {line.name: line for line in list_checkpoints()}
    assert {name: line.state for name, line in lines.items() if line.file} == {
        DEFAULT.name: "ships",
        "vox-cpk": "imported",
        "fashion": "downloaded",
        "ted384": "broken",
        "half": "broken",
        "mine": "imported",
    }
    assert lines["mine"] == CheckpointInfo("mine", "discs", 64, "", "mine; all of it", "imported", mine)
    assert (lines["vox-cpk"].configuration, lines["vox-cpk"].resolution) == ("fomm", 256)


# Described


@pytest.mark.parametrize(("name", "state"), [("mine", "imported"), ("mgif", "imported"), ("file", "a file")])
def test_described_with_what_the_file_says(put, tiny, name, state):
    put("mine")
    put("mgif")
    known = describe_checkpoint(str(tiny) if name == "file" else name)
    assert (known["state"], known["resolution"], known["about"]["steps"]) == (state, 64, "7")
    assert known["name"] == ("tiny" if name == "file" else name)
    assert ("pages" in known) == (name == "mgif")


def test_described_where_it_is_not_here():
    assert describe_checkpoint("vox-cpk")["to_do"] == "mtanimate checkpoints download vox-cpk"
    assert describe_checkpoint("voxceleb")["to_do"].endswith("then: mtanimate checkpoints import FILE")
    assert describe_checkpoint("voxceleb")["file"] is None
    file = downloads_folder() / "vox-cpk.pth.tar"
    file.touch()
    assert describe_checkpoint("vox-cpk")["to_do"] == f"mtanimate checkpoints import '{file}'"


def test_nothing_to_describe(put, tmp_path):
    put("half", b"x")
    put("ted384", b"x")
    pickled = tmp_path / "old.pth.tar"
    pickled.write_bytes(b"\x80\x02x")
    for name, said in (
        ("vox-cpx", "did you mean 'vox-cpk'"),
        ("half", "is not a whole safetensors file"),
        ("ted384", "is not a whole safetensors file"),
        (str(pickled), "mtanimate checkpoints import"),
    ):
        with pytest.raises(InputError, match=said):
            describe_checkpoint(name)


# Verified


def test_all_that_is_here_is_verified(put):
    put("mine")
    (downloads_folder() / "fashion.pth.tar").write_bytes(b"fashion")
    found = results()
    assert {name: verdict.ok for name, verdict in found.items()} == {DEFAULT.name: True, "mine": True, "fashion": None}
    digest = hashlib.sha256(b"fashion").hexdigest()
    assert found["fashion"].said == f"no checksum is known; its SHA-256 is {digest}"


def test_what_was_changed_is_found(put):
    flipped(put("mine"))
    put("half", b"x")
    (downloads_folder() / "vox-cpk.pth.tar").write_bytes(b"x")
    found = results()
    assert {name for name, verdict in found.items() if verdict.ok is False} == {"mine", "half", "vox-cpk"}
    assert "are not those that were written" in found["mine"].said
    assert "is not a whole safetensors file" in found["half"].said
    assert found["vox-cpk"].said == "it has 1 bytes instead of 728766691"


def test_a_name_with_two_files_has_two_verdicts(put):
    put("fashion")
    (downloads_folder() / "fashion.pth.tar").touch()
    assert [verdict.ok for verdict in verify(["fashion"])] == [True, None]


def test_names_and_files_are_verified(put, tiny, tmp_path):
    flipped(put("mine"))
    assert {name: verdict.ok for name, verdict in results("default", str(tiny)).items()} == {
        DEFAULT.name: True,
        "tiny": True,
    }
    spoilt = tmp_path / "vox-adv-cpk.pth.tar"  # as it lies in somebody's folder of downloads
    spoilt.write_bytes(b"x")
    assert results(str(spoilt))["vox-adv-cpk"].ok is False
    changed = flipped(put(DEFAULT.name))  # what ships wins, but this file was asked for
    assert [verdict.ok for verdict in verify([str(changed)])] == [False]


@pytest.mark.parametrize(("name", "said"), [("nobody", "no checkpoint 'nobody'"), ("ted384", "not on this machine")])
def test_what_is_not_here_cannot_be_verified(name, said):
    with pytest.raises(InputError, match=said):
        verify([name])


def test_doctor_looks_at_what_is_here(put):
    put("mine")
    flipped(put("yours"))
    findings = [(finding.what, finding.ok, finding.needed) for finding in diagnosis._checkpoints()]
    assert findings == [
        (f"checkpoint {DEFAULT.name}", True, True),
        ("checkpoint mine", True, False),
        ("checkpoint yours", False, False),
    ]


def test_names_win_over_the_current_folder(put, tiny, tmp_path, monkeypatch):
    mine = put("mine")
    monkeypatch.chdir(tmp_path)
    for name in ("mine", DEFAULT.name, "default"):
        shutil.copy(flipped(shutil.copy(tiny, tmp_path / "changed")), name)
        assert describe_checkpoint(name)["state"] in ("imported", "ships")
        assert all(verdict.file in (mine, DEFAULT.file) for verdict in verify([name]))
    assert describe_checkpoint("./mine")["state"] == "a file"
