"""Exported networks that give nothing of use end the command, named; no video comes of them."""

import json
import shutil

import pytest
import torch
from networks import PAPER
from typer.testing import CliRunner

from mtanimate.cli import app
from mtanimate.config import to_mapping
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.files import sha256
from mtanimate.inference.backends import ExportedNetwork, _checked, _runtime_errors
from mtanimate.inference.loading import load_network
from mtanimate.inference.manifest import NAME, read_manifest


@pytest.fixture
def folder(exported, tmp_path):
    """A whole folder of programs, to be changed."""
    return shutil.copytree(exported("torch"), tmp_path / "folder")


def rewrite(folder, **changes):
    """The manifest, with other values, and of the files as they are now."""
    values = json.loads((folder / NAME).read_text())
    values |= {"files": {name: sha256(folder / name) for name in values["files"]}} | changes
    (folder / NAME).write_text(json.dumps(values))


def spoil(folder, graph, number):
    """The graph gives this number wherever its weights have a say."""
    program = torch.export.load(folder / f"{graph}.pt2")
    for tensor in program.state_dict.values():
        if tensor.is_floating_point():
            tensor.fill_(number)
    torch.export.save(program, folder / f"{graph}.pt2")
    rewrite(folder)


@pytest.mark.parametrize("graph", ["estimate", "drive"])
def test_a_graph_whose_outputs_are_not_finite_is_named(folder, media, tmp_path, graph):
    spoil(folder, graph, float("nan"))
    files = {"--source": media / "face.png", "--driving": media / "frames", "--out": tmp_path / "out.mp4"}
    options = ["--crop", "none", "--driving-crop", "none", "--allow-code", "--checkpoint", f"{folder}/"]
    arguments = [str(text) for name, file in files.items() for text in (name, file)] + options
    done = CliRunner().invoke(app, ["animate", *arguments])
    assert done.exit_code == 1
    assert f"{graph}.pt2" in done.stderr.splitlines()[-1]
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


def test_a_graph_that_once_was_finite_may_fail_in_single_frames(tmp_path):
    given = iter([torch.ones(2, 3), torch.full((1, 3), torch.nan)])
    run = _checked(lambda inputs: {"flow": next(given)}, tmp_path / "drive.onnx", {})
    for frames in (2, 1):
        assert run({"frames": torch.zeros(frames, 3)})["flow"].shape == (frames, 3)


@pytest.mark.parametrize("found", [torch.ones(2, 3, 65, 64), torch.ones(3, 3, 64, 64), torch.ones(()), torch.ones(2)])
def test_a_graph_that_gives_another_shape_is_named(tmp_path, found):
    run = _checked(lambda inputs: {"prediction": found}, tmp_path / "drive.onnx", {"prediction": (3, 64, 64)})
    with pytest.raises(MTAnimateError, match=r"drive\.onnx gives prediction"):
        run({"frames": torch.zeros(2, 3)})


def test_a_graph_that_fails_is_named(tmp_path):
    with (
        pytest.raises(MTAnimateError, match=r"drive\.onnx cannot be run"),
        _runtime_errors(tmp_path / "drive.onnx", "cannot be run"),
    ):
        raise RuntimeError("Non-zero status\ncode")


def test_where_memory_is_short_fewer_frames_may_fit(tmp_path):
    """The predictor halves its batches where it sees this error, and no other."""
    with pytest.raises(RuntimeError, match="out of memory"), _runtime_errors(tmp_path / "drive.onnx", "cannot be run"):
        raise RuntimeError("CUDA out of memory")


@pytest.mark.parametrize(
    "change",
    [
        {"resolution": 10**6},
        {"resolution": 16_384},
        {"resolution": 63},
        {"num_keypoints": 10**9},
        {"generator": {"num_down_blocks": 10**9}},
        {"estimator": {"layers": 10**9}},
    ],
    ids=str,
)
def test_a_manifest_of_a_network_without_limits_is_refused(folder, change, monkeypatch):
    rewrite(folder, model=to_mapping(PAPER) | change)
    monkeypatch.setattr("mtanimate.inference.backends.open_graph", lambda *_, **__: pytest.fail("it was opened"))
    with pytest.raises(InputError, match=r"manifest\.json is damaged"):
        load_network(str(folder), allow_code=True)


def test_a_file_larger_than_a_graph_can_be_is_not_read(folder):
    with (folder / "drive.pt2").open("wb") as file:
        file.truncate(5 << 30)  # it takes no room on most disks
    with pytest.raises(InputError, match=r"drive\.pt2"):
        ExportedNetwork(folder, "torch", PAPER, read_manifest(folder).files)
