"""Exported folders from strangers: nothing in them runs unasked, and no file is read that is not proven."""

import hashlib
import io
import json
import os
import shutil
import zipfile
from contextlib import suppress

import pytest
import torch
from forks import run
from networks import PAPER
from torch import nn
from torch.export import Dim

from mtanimate.checkpoints.registry import resolve
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.files import sha256
from mtanimate.inference.backends import ExportedNetwork
from mtanimate.inference.loading import load_network
from mtanimate.inference.manifest import Manifest, graphs_of, read_manifest

ROUTES = ["a pickled weight", "sample inputs", "an expression"]


class Making:
    """An object whose pickle makes a folder where it is read."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


class Scaling(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, frames):
        return frames * self.weight


def pickled(made):
    whole = io.BytesIO()
    torch.save(Making(made), whole)
    return whole.getvalue()


def hostile_program(route, made):
    """A program that makes the folder `made` as soon as it is loaded."""
    whole = io.BytesIO()
    scaling = torch.export.export(Scaling(), (torch.zeros(2, 3),), dynamic_shapes=({0: Dim("batch")},))
    torch.export.save(scaling, whole)
    with zipfile.ZipFile(whole) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    if route == "a pickled weight":
        parts["archive/data/weights/weight_0"] = pickled(made)
        config = "archive/data/weights/model_weights_config.json"
        parts[config] = parts[config].replace(b'"use_pickle": false', b'"use_pickle": true')
    elif route == "sample inputs":
        parts["archive/data/sample_inputs/model.pt"] = pickled(made)
    else:
        program = json.loads(parts["archive/models/model.json"])
        _replace_expressions(program, f"__import__('os').mkdir({str(made)!r})")
        parts["archive/models/model.json"] = json.dumps(program).encode()
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return whole.getvalue()


def _replace_expressions(values, expression):
    for key, value in values.items() if isinstance(values, dict) else enumerate(values):
        if key == "expr_str":
            values[key] = expression
        elif isinstance(value, (dict, list)):
            _replace_expressions(value, expression)


def write_folder(folder, backend, content):
    """An exported folder whose every file holds `content`, and its manifest says so."""
    folder.mkdir()
    names = [name for graph in graphs_of(PAPER) for name in graph.files(backend)]
    for name in names:
        (folder / name).write_bytes(content)
    files = dict.fromkeys(names, hashlib.sha256(content).hexdigest())
    Manifest(backend, "fp32", "default", "0" * 64, PAPER, {}, {}, files).write(folder)
    return folder


@pytest.mark.parametrize("route", ROUTES)
def test_programs_run_only_where_that_is_allowed(route, media, tmp_path):
    made = tmp_path / "made"
    folder = write_folder(tmp_path / "folder", "torch", hostile_program(route, made))
    files = ["--source", media / "face.png", "--driving", media / "face.png", "--out", tmp_path / "out.mp4"]
    done = run("animate", *files, "--checkpoint", folder, cwd=tmp_path)
    assert (done.returncode, made.exists()) == (2, False)
    assert "--allow-code" in done.stderr
    with suppress(MTAnimateError):
        load_network(str(folder), allow_code=True)
    assert made.exists(), "this is no hostile program: the test shows nothing"


@pytest.mark.parametrize("jobs", [False, True])
def test_a_folder_named_as_a_checkpoint_is_not_taken_for_it(jobs, media, tmp_path):
    made = tmp_path / "made"
    write_folder(tmp_path / "default", "torch", hostile_program("sample inputs", made))
    files = {"source": media / "face.png", "driving": media / "face.png", "out": tmp_path / "out.mp4"}
    if jobs:
        (tmp_path / "jobs.csv").write_text("source,driving,out\n" + ",".join(map(str, files.values())))
        arguments = ["--jobs", "jobs.csv", "--crop", "none", "--driving-crop", "none", "--allow-code"]
    else:
        arguments = [text for name, file in files.items() for text in (f"--{name}", file)]
    done = run("animate", *arguments, "--quiet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert files["out"].exists()
    assert not made.exists()


def test_what_lies_in_the_current_folder_is_taken_by_its_path_alone(media, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = resolve("default")
    for name in ("default", "mine"):
        shutil.copy(media / "tiny.safetensors", name)
    assert load_network("default").sha256 == sha256(shipped)
    assert (
        load_network(os.path.join(".", "default")).sha256
        == load_network("./mine").sha256
        == sha256(media / "tiny.safetensors")
    )
    with pytest.raises(InputError, match=r"in the current folder: \.[/\\]mine"):
        load_network("mine")


def test_onnx_reads_nothing_outside_of_its_proven_files(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper

    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    weights.external_data.add(key="location", value="weights.bin")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", values[:1], values[1:], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    folder = write_folder(tmp_path / "folder", "onnx", model.SerializeToString())
    (folder / "weights.bin").write_bytes(bytes(12))
    onnx.checker.check_model(str(folder / "encode.onnx"))
    with pytest.raises(InputError, match="weights in another file"):
        load_network(str(folder))


def test_openvino_is_given_its_own_format_alone(tmp_path):
    """It would take an ONNX file by any name, and read what that names."""
    pytest.importorskip("openvino")
    folder = write_folder(tmp_path / "folder", "openvino", b"\x08\x0a")
    with pytest.raises(InputError, match="is not OpenVINO's XML"):
        load_network(str(folder))


def test_graphs_of_another_network_are_said(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper

    names = ("frames", "keypoints", "affine")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", 3, 64, 64]) for name in names]
    nodes = [helper.make_node("Identity", ["frames"], [name]) for name in names[1:]]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    folder = write_folder(tmp_path / "folder", "onnx", model.SerializeToString())
    exported = ExportedNetwork(folder, "onnx", PAPER, read_manifest(folder).files)
    with pytest.raises(MTAnimateError, match="export it again"):
        exported.estimate_motion(torch.zeros(1, 3, 64, 64))
    with pytest.raises(MTAnimateError, match=r"encode\.onnx cannot be run by onnx"):
        exported.encode_source(torch.zeros(1, 3, 64, 64))


def test_a_graph_that_takes_nothing_is_said(tmp_path):
    pytest.importorskip("openvino")
    empty = b'<?xml version="1.0"?><net name="a" version="11"><layers/></net>'
    folder = write_folder(tmp_path / "folder", "openvino", empty)
    with pytest.raises(InputError, match="export it again"):
        ExportedNetwork(folder, "openvino", PAPER, read_manifest(folder).files)


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_runtimes_are_given_what_was_checked(format, exported, monkeypatch):
    """A file that is changed after it was checked is not looked at again."""
    import mtanimate.inference.backends as runtimes

    read_verified = runtimes.read_verified
    folder = exported(format)
    kept = {file: file.read_bytes() for file in folder.iterdir()}

    def verified_and_changed(file, digest):
        content = read_verified(file, digest)
        file.write_bytes(b"changed")
        return content

    monkeypatch.setattr(runtimes, "read_verified", verified_and_changed)
    try:
        assert load_network(str(folder)).backend == format
    finally:
        for file, content in kept.items():
            file.write_bytes(content)


def test_an_exported_folder_says_where_it_is_from(exported):
    lines = []
    folder = exported("torch")
    load_network(str(folder), allow_code=True, log=lines.append)
    assert any(sha256(folder / "manifest.json") in line and "'tiny.safetensors'" in line for line in lines)
