"""`mtanimate export` and `animate --backend`, through the command."""

import itertools
import json
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from forks import run
from typer.testing import CliRunner

from mtanimate.cli import app
from mtanimate.errors import InputError
from mtanimate.files import sha256
from mtanimate.inference import backends as runtimes
from mtanimate.inference.loading import load_network
from mtanimate.video import VideoReader, VideoWriter
from mtanimate.video.image import write_image


def fails(*arguments):
    """The one line of an error that the command says, in this process, after its remarks; exit code 2."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 2, (done.exit_code, done.output, done.exception)
    assert [line.startswith("mtanimate: ") for line in done.stderr.splitlines()].count(True) == 1, done.output
    assert not done.stdout
    return done.stderr.splitlines()[-1]


def export(media, out, *arguments, checkpoint="tiny.safetensors", format="onnx"):
    return fails("export", "--checkpoint", media / checkpoint, "--format", format, "--out", out, *arguments)


def animating(media, out, checkpoint, source="face.png"):
    files = ["--source", media / source, "--driving", media / "frames", "--out", out]
    return ["animate", *files, "--checkpoint", checkpoint, "--crop", "none", "--driving-crop", "none"]


def animate(media, out, checkpoint, *arguments):
    return fails(*animating(media, out, checkpoint), *arguments)


@pytest.mark.parametrize(
    ("network", "formats"),
    [("tiny", ("torch", "onnx", "openvino")), pytest.param("tpsmm", ("onnx", "openvino"), marks=pytest.mark.slow)],
)
def test_the_same_video_from_every_backend(network, formats, media, exported, tmp_path):
    videos = {}
    folders = {format: exported(format, checkpoint=network) for format in formats}
    for name, checkpoint in {"checkpoint": media / f"{network}.safetensors", **folders}.items():
        out = tmp_path / f"{name}.mkv"
        backend = ["--backend", name] if name == "onnx" else []
        arguments = [
            *animating(media, out, checkpoint, "large.png"),
            "--codec",
            "ffv1",
            "--background",
            "lock",
            *backend,
            "--json",
        ]
        arguments += ["--precision", "fp32", *(["--allow-code"] if name == "torch" else [])]
        if name in ("onnx", "openvino"):
            done = run(*arguments)
            assert done.returncode == 0, done.stderr
        else:
            done = CliRunner().invoke(app, [str(argument) for argument in arguments])
            assert done.exit_code == 0, done.output
        report = json.loads(done.stdout)
        assert (report["frames"], report["precision"]) == (6, "fp32")
        assert report["width"] == 128  # the picture's own size, by each backend's flow and occlusion
        assert report["backend"] == ("torch" if name == "checkpoint" else name)
        videos[name] = np.concatenate(list(VideoReader(out).batches(6))).astype(float)
    for first, second in itertools.combinations(videos, 2):
        error = ((videos[first] - videos[second]) ** 2).mean()
        assert error < 255**2 * 10**-4.5, f"{first} and {second}: less than 45 dB"


def test_motion_that_was_kept_serves_every_backend(media, exported, tmp_path):
    kept, out = tmp_path / "kept.safetensors", tmp_path / "out.mp4"
    shared = ["--source", media / "face.png", "--out", out, "--overwrite"]
    first = [*shared, "--driving", media / "frames", "--save-motion", kept, "--checkpoint", media / "tiny.safetensors"]
    runner = CliRunner()
    assert runner.invoke(app, ["animate", *map(str, first)]).exit_code == 0
    second = [*shared, "--motion", kept, "--checkpoint", exported("onnx"), "--json", "--quiet"]
    done = runner.invoke(app, ["animate", *map(str, second)])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["frames"] == 6


GROWTH = """
import sys, mtanimate

sizes = {}

def progress(done, total, note=""):
    sizes[done] = int(open("/proc/self/statm").read().split()[1]) * 4 / 1024  # MiB
    if done == total:
        print(sizes[done] - sizes[400])
        raise KeyboardInterrupt  # the motion is read

try:
    mtanimate.animate(*sys.argv[1:4], checkpoint=sys.argv[4], crop="none", driving_crop="none", progress=progress)
except KeyboardInterrupt:
    pass
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the size of a process as Linux tells it")
@pytest.mark.parametrize("format", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)])  # what grew is shared
def test_memory_does_not_grow_with_the_video(format, media, exported, tmp_path):
    """Each batch's motion, kept by itself, held its frames' room: 100 MiB here, 1.5 MiB a frame at 256 x 256."""
    folder = exported(format)
    with VideoWriter(tmp_path / "long.mp4", fps=Fraction(25), width=64, height=64) as writer:
        for _ in range(100):
            writer.write(np.zeros((12, 64, 64, 3), np.uint8))
    files = [media / "face.png", tmp_path / "long.mp4", tmp_path / "out.mp4", folder]
    done = subprocess.run([sys.executable, "-c", GROWTH, *map(str, files)], capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 10


def test_export_by_the_command(media, tmp_path):
    out = tmp_path / "an exported network"
    done = run("export", "--checkpoint", media / "fomm.safetensors", "--format", "torch", "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["graphs"] == ["encode", "estimate", "drive"]
    assert report["differences"]["within"] is True
    assert {path.name for path in out.iterdir()} == {"manifest.json", "encode.pt2", "estimate.pt2", "drive.pt2"}
    assert list(tmp_path.iterdir()) == [out]


def test_a_jobs_file_and_its_workers(media, exported, tmp_path):
    """Two animations at once by one network."""
    jobs = tmp_path / "jobs.csv"
    rows = [f"{media / 'face.png'},{media / 'frames'},{tmp_path / f'{n}.mp4'}" for n in range(4)]
    jobs.write_text("\n".join(["source,driving,out", *rows]))
    arguments = ["animate", "--jobs", jobs, "--workers", 2, "--checkpoint", exported("openvino"), "--json", "--quiet"]
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["done"] == 4
    assert len({sha256(tmp_path / f"{n}.mp4") for n in range(4)}) == 1


# What is wrong is said in one line.


def test_what_cannot_be_exported(media, tmp_path):
    out = tmp_path / "out"
    assert "--format torch has fp32" in export(media, out, "--precision", "int8", format="torch")
    assert "--precision int8 needs frames" in export(media, out, "--precision", "int8")
    assert "no checkpoint" in export(tmp_path, out)
    assert "not a whole safetensors file" in export(media, out, checkpoint="face.png")
    assert "does not exist" in export(media, tmp_path / "no" / "folder")
    assert list(tmp_path.iterdir()) == []


def test_unknown_formats(media, tmp_path):
    done = CliRunner().invoke(app, ["export", "--format", "tensorrt", "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "'tensorrt' is not one of" in done.output


def test_a_network_that_cannot_be_traced(media, tmp_path, monkeypatch):
    from mtanimate.export import programs
    from mtanimate.models.motion_transformer import MotionTransformer

    regress = MotionTransformer._regress

    def branching(self, tokens):
        return regress(self, tokens if tokens.sum() > 0 else -tokens)

    monkeypatch.setattr(MotionTransformer, "_regress", branching)
    monkeypatch.setattr("mtanimate.export.export.trace", programs.trace)
    arguments = ["export", "--checkpoint", media / "tiny.safetensors", "--format", "torch", "--out", tmp_path / "out"]
    done = CliRunner().invoke(app, [*map(str, arguments), "--quiet"])
    assert done.exit_code == 1
    assert "the graph 'encode' of this network cannot be exported" in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_replaced_when_told_to_and_ours(media, exported, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(exported("onnx"), out)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "weights.bin").write_text("precious")
    (mine / "manifest.json").write_text("{}")
    assert "exists already" in export(media, out)
    (out / "notes.txt").write_text("mine")
    assert "notes.txt is of no export" in export(media, out, "--overwrite")
    (out / "notes.txt").rename(out / "weights.bin")  # a suffix of ours
    assert "weights.bin is of no export" in export(media, out, "--overwrite")
    (out / "weights.bin").unlink()
    for other in (media / "frames", mine):
        assert f"{other.name} is of no export" in export(media, other, "--overwrite")
    assert (mine / "weights.bin").read_text() == "precious"
    shutil.rmtree(mine)
    arguments = ["export", "--checkpoint", media / "tiny.safetensors", "--format", "onnx", "--out", out, "--overwrite"]
    before = (out / "manifest.json").stat().st_ino
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == 0, done.output
    assert (out / "manifest.json").stat().st_ino != before
    assert list(tmp_path.iterdir()) == [out]


def test_calibration_frames_that_cannot_be_read(media, tmp_path):
    out, empty, cut = tmp_path / "out", tmp_path / "empty", tmp_path / "cut.mp4"
    empty.mkdir()
    cut.write_bytes(b"not a video")
    int8 = ("--precision", "int8", "--calibrate")
    assert "no such file" in export(media, out, *int8, tmp_path / "none.mp4")
    assert "holds no pictures" in export(media, out, *int8, empty)
    assert "cut.mp4" in export(media, out, *int8, cut)
    assert "two frames or more" in export(media, out, *int8, media / "face.png")
    assert not out.exists()


def test_an_exported_folder_that_was_changed(media, exported, tmp_path):
    folder, out = tmp_path / "folder", tmp_path / "out.mp4"
    manifest = folder / "manifest.json"

    def anew():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(exported("onnx"), folder)

    def rewritten(**changes):
        anew()
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | changes))

    anew()
    with (folder / "drive.onnx").open("rb+") as file:
        file.truncate(1000)
    assert "drive.onnx is not the file that was exported" in animate(media, out, folder)
    anew()
    (folder / "encode.onnx").unlink()
    assert "encode.onnx is missing" in animate(media, out, folder)
    rewritten(format="mtanimate-export-99")
    assert "as mtanimate-export-99, this one reads mtanimate-export-1" in animate(media, out, folder)
    rewritten(backend="tensorrt")
    assert "is damaged" in animate(media, out, folder)
    rewritten(files={"../elsewhere.onnx": "0"})
    assert "its files are not those of its network" in animate(media, out, folder)
    rewritten(model={"resolution": "large"})
    assert "is damaged" in animate(media, out, folder)
    manifest.write_text("[]")
    assert "is damaged" in animate(media, out, folder)
    manifest.unlink()
    assert "is a folder" in animate(media, out, folder)
    assert not out.exists()


def test_options_that_do_not_go_with_a_folder(media, exported, tmp_path):
    folder, out = exported("onnx"), tmp_path / "out.mp4"
    assert "was exported for onnx" in animate(media, out, folder, "--backend", "openvino")
    assert "was exported in fp32" in animate(media, out, folder, "--precision", "bf16")
    with pytest.raises(InputError, match="run on the CPU"):  # on a machine that has a GPU
        load_network(str(folder), device="cuda")
    assert "mtanimate export --checkpoint default" in animate(media, out, "default", "--backend", "onnx")
    evaluated = fails("eval", "--checkpoint", folder, "--dataset", media / "frames")
    assert "serves 'mtanimate animate' alone" in evaluated


@pytest.mark.parametrize(("format", "module"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_a_package_that_is_not_there(format, module, media, exported, tmp_path, monkeypatch):
    folder = exported(format)
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(runtimes, "openvino_core", runtimes.openvino_core.__wrapped__)
    assert f"pip install 'mtanimate[{format}]'" in animate(media, tmp_path / "out.mp4", folder)
    said = export(media, tmp_path / "out", format=format)
    assert module in said
    assert f"pip install 'mtanimate[{format}]'" in said


@pytest.mark.parametrize("format", ["torch", "onnx", "openvino"])
def test_a_full_disk(format, media, exported, small_disk):
    exported(format)
    arguments = ["export", "--checkpoint", media / "tiny.safetensors", "--format", format, "--out", small_disk / "out"]
    done = CliRunner().invoke(app, [*map(str, arguments), "--quiet"])
    assert done.exit_code == 1, (done.output, done.exception)
    assert done.stderr.count("\n") == 1
    assert "could not be written" in done.stderr
    assert list(small_disk.iterdir()) == []


def test_pictures_calibrate_too(media, tmp_path):
    """Of unlike sizes, and beside a folder."""
    from mtanimate.export.parity import calibration_frames

    write_image(tmp_path / "wide.png", np.zeros((40, 64, 3), np.uint8))
    pictures = [media / "face.png", tmp_path / "wide.png"]
    first, second = calibration_frames([media / "frames", *pictures], 32)
    assert (first.shape, second.shape) == ((6, 3, 32, 32), (2, 3, 32, 32))
    assert 0 <= float(first.min()) < float(first.max()) <= 1
