"""Exports are slow: what is traced, converted and exported once serves every test."""

import copy
import logging
import os
import pickle
import subprocess
from functools import lru_cache

import pytest
from filelock import FileLock
from networks import NETWORKS, PAPER, network, pictures

from mtanimate.checkpoints.file import write_checkpoint
from mtanimate.config import Config
from mtanimate.export import export as exporting
from mtanimate.video.image import write_image

logging.getLogger("torch.__trace").setLevel(logging.CRITICAL)  # pytest keeps all logs, so PyTorch would write them


@pytest.fixture(scope="session", autouse=True)
def converted_once():
    """`trace` and `to_onnx` remember what they made: every network of a configuration here has the same weights."""
    trace, to_onnx = exporting.trace, exporting.to_onnx
    traced = lru_cache(lambda config, graph: trace(network(config), graph))
    models = {}

    def convert(program, graph):
        if id(program) not in models:
            models[id(program)] = to_onnx(program, graph)
        return copy.deepcopy(models[id(program)])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "trace", lambda animator, graph: traced(animator.config, graph))
        patch.setattr(exporting, "to_onnx", convert)
        yield


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """A folder for all processes that run tests."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "exported"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def media(tmp_path_factory):
    """Checkpoints `tiny`, `fomm`, `tpsmm`; `face.png` and `large.png`; `frames`, a folder of pictures."""
    folder = tmp_path_factory.mktemp("media")
    write_checkpoint(folder / "tiny.safetensors", network(PAPER), Config(PAPER), {"steps": 0})
    for name in ("fomm", "tpsmm"):
        config = NETWORKS[name]
        write_checkpoint(folder / f"{name}.safetensors", network(config), Config(config), {"steps": 0})
    (folder / "frames").mkdir()
    frames = (pictures(6).permute(0, 2, 3, 1) * 255).round().byte().numpy()
    for number, frame in enumerate(frames):
        write_image(folder / "frames" / f"{number}.png", frame)
    write_image(folder / "face.png", frames[0])
    write_image(folder / "large.png", frames[0].repeat(2, axis=0).repeat(2, axis=1))
    return folder


@pytest.fixture(scope="session")
def exported(media, shared):
    """The folder that a checkpoint was exported to, by format and precision; made when it is first asked for."""

    def folder(format, precision="fp32", checkpoint="tiny"):
        out = shared / f"{checkpoint}-{format}-{precision}"
        if format != "torch":
            pytest.importorskip("onnxscript", reason="needs the extra of this format")
            pytest.importorskip("onnxruntime", reason="needs the extra of this format")
            pytest.importorskip("openvino" if format == "openvino" else "onnx", reason="needs the extra of this format")
        calibrate = [media / "frames"] if precision == "int8" else []
        report = out.with_suffix(".report")
        with FileLock(out.with_suffix(".lock")):
            if not report.exists():
                file = str(media / f"{checkpoint}.safetensors")
                made = exporting.export(file, format, out, precision=precision, calibrate=calibrate)
                report.write_bytes(pickle.dumps(made))
        reports[out.name] = pickle.loads(report.read_bytes())
        return out

    reports = folder.reports = {}
    return folder


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 32 KiB; skips where this user cannot mount one."""
    folder = tmp_path / "small disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", folder]
    if os.name != "posix" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    yield folder
    subprocess.run(["umount", folder], check=True)
