"""Installed exports: what `export --install` keeps, and when `--backend auto` uses it."""

import json
import shutil
import sys
from dataclasses import replace

import pytest
from networks import NETWORKS, network
from typer.testing import CliRunner

from mtanimate.checkpoints.file import write_checkpoint
from mtanimate.cli import app
from mtanimate.config import Config
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.export import export as exporting
from mtanimate.export.installing import install
from mtanimate.files import sha256
from mtanimate.inference.loading import load_network


def run(*arguments):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, (done.output, done.exception)
    return done


@pytest.fixture(scope="session")
def whole(media, tmp_path_factory):
    """A cache in which an export of `tiny.safetensors` for ONNX Runtime is installed, measured to be faster."""
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MTANIMATE_CACHE", str(cache))
        install(str(media / "tiny.safetensors"), "onnx")
    change(cache / "exports" / sha256(media / "tiny.safetensors") / "measurement.json", single=0.6, batch=0.5)
    return cache


@pytest.fixture
def home(whole, media, tmp_path, monkeypatch):
    """The folder of the installed export, in a cache of this test's own."""
    shutil.copytree(whole, tmp_path / "cache")
    monkeypatch.setenv("MTANIMATE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "exports" / sha256(media / "tiny.safetensors")


def change(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def loaded(media, **options):
    """The network of `tiny.safetensors`, and what is said about `--backend`."""
    said = []
    found = load_network(str(media / "tiny.safetensors"), log=said.append, **options)
    return found, [line for line in said if "--backend" in line]


def test_auto_animates_by_an_export_that_was_measured_to_be_faster(home, media, tmp_path):
    jobs, out = tmp_path / "jobs.csv", tmp_path / "out.mkv"
    files = ["--source", media / "large.png", "--driving", media / "frames", "--out", out]
    options = ["--checkpoint", media / "tiny.safetensors", "--crop", "none", "--driving-crop", "none", "--json"]
    done = run("animate", *files, *options, "--background", "lock")
    report = json.loads(done.stdout)
    assert (report["backend"], report["precision"], report["width"]) == ("onnx", "fp32", 128)
    assert sum("--backend auto is onnx" in line for line in done.stderr.splitlines()) == 1
    jobs.write_text(f"source,driving,out\n{media / 'face.png'},{media / 'frames'},{tmp_path / 'row.mp4'}\n")
    run("animate", "--jobs", jobs, *options)
    entries = [json.loads(line) for line in (tmp_path / "jobs.csv.report.jsonl").read_text().splitlines()]
    assert entries[-1]["backend"] == "onnx"


def test_what_is_loaded_is_the_checkpoint_that_was_named(home, media):
    exported, said = loaded(media)
    checkpoint, _ = loaded(media, backend="torch")
    assert (exported.backend, checkpoint.backend, len(said)) == ("onnx", "torch", 1)
    assert (exported.name, exported.sha256) == (checkpoint.name, checkpoint.sha256)
    assert exported.config == checkpoint.config


def test_without_an_installed_export_torch_runs(media, tmp_path, monkeypatch):
    monkeypatch.setenv("MTANIMATE_CACHE", str(tmp_path))
    assert (loaded(media)[0].backend, loaded(media)[1]) == ("torch", [])


def slower(home):
    change(home / "measurement.json", batch=0.95)


def slower_alone(home):
    change(home / "measurement.json", single=1.1)


def measured_elsewhere(home):
    change(home / "measurement.json", machine="another processor, 2 threads, torch 2.4.0, onnx 1.20.0")


def unmeasured(home):
    (home / "measurement.json").unlink()


def measurement_of_another_form(home):
    change(home / "measurement.json", batch="fast")


def damaged(home):
    (home / "export" / "drive.onnx").write_bytes(b"")


def incomplete(home):
    (home / "export" / "estimate.onnx").unlink()


def changed(home):
    """A graph and the manifest together, so that the hashes in it are right."""
    graph, manifest = home / "export" / "encode.onnx", home / "export" / "manifest.json"
    graph.write_bytes(graph.read_bytes() + b"\0")
    change(manifest, files=json.loads(manifest.read_text())["files"] | {"encode.onnx": sha256(graph)})


def rewritten(home, **values):
    """Its manifest, as if it had been measured so."""
    change(home / "export" / "manifest.json", **values)
    change(home / "measurement.json", manifest=sha256(home / "export" / "manifest.json"))


def of_another_version(home):
    rewritten(home, format="mtanimate-export-99")


def of_another_checkpoint(home):
    rewritten(home, checkpoint_sha256="0" * 64)


def not_close(home):
    rewritten(home, differences={"within": False})


def not_compared(home):
    rewritten(home, differences=[])


def a_file(home):
    shutil.rmtree(home)
    home.write_text("")


@pytest.mark.parametrize(
    "spoil",
    [
        slower, slower_alone, measured_elsewhere, unmeasured, measurement_of_another_form, damaged, incomplete, changed,
        of_another_version, of_another_checkpoint, not_close, not_compared, a_file,
    ],
)  # fmt: skip
def test_auto_is_torch_where_the_export_does_not_serve(spoil, home, media):
    spoil(home)
    found, said = loaded(media)
    assert found.backend == "torch"
    assert len(said) == 1
    assert said[0].startswith("--backend auto is torch: ")
    assert "\n" not in said[0]


def test_auto_is_torch_on_other_threads_and_in_another_precision(home, media, monkeypatch):
    assert loaded(media, precision="bf16")[0].backend == "torch"
    assert loaded(media, precision="fp32")[0].backend == "onnx"
    monkeypatch.setattr("torch.get_num_threads", lambda: 77)
    found, said = loaded(media)
    assert (found.backend, len(said)) == ("torch", 1)


def test_auto_is_torch_without_the_runtime(home, media, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    found, said = loaded(media)
    assert found.backend == "torch"
    assert "pip install 'mtanimate[onnx]'" in said[0]


def test_a_backend_by_name(home, media):
    slower(home)
    assert loaded(media, backend="onnx")[0].backend == "onnx"
    with pytest.raises(InputError, match="is for onnx"):
        loaded(media, backend="openvino")
    with pytest.raises(InputError, match="in fp32"):
        loaded(media, backend="onnx", precision="bf16")
    damaged(home)
    with pytest.raises(InputError, match="SHA-256 differs"):
        loaded(media, backend="onnx")
    assert loaded(media, backend="torch")[0].backend == "torch"


def test_doctor_lists_and_uninstall_removes(home, media):
    from mtanimate.doctor import diagnose

    def listed():
        return {finding.ok for finding in diagnose() if finding.what == f"export {home.name[:8]}"}

    assert listed() == {True}
    damaged(home)
    assert listed() == {False}
    checkpoint = ["--checkpoint", media / "tiny.safetensors"]
    assert json.loads(run("export", "--uninstall", *checkpoint, "--json").stdout) == {"removed": str(home)}
    assert listed() == set()
    assert not home.exists()
    assert loaded(media)[0].backend == "torch"
    again = CliRunner().invoke(app, list(map(str, ["export", "--uninstall", *checkpoint])))
    assert (again.exit_code, again.stderr.count("\n")) == (2, 1)


def test_install_by_the_command(media, tmp_path, monkeypatch):
    pytest.importorskip("openvino", reason="needs the extra openvino")
    monkeypatch.setenv("MTANIMATE_CACHE", str(tmp_path))
    done = run("export", "--install", "--checkpoint", media / "tiny.safetensors", "--json")
    report = json.loads(done.stdout)
    assert (report["format"], report["precision"], report["differences"]["within"]) == ("openvino", "fp32", True)
    assert report["faster"] is (max(report["measured"]["batch"], report["measured"]["single"]) < 0.9)
    assert {path.name for path in (tmp_path / "exports").iterdir()} == {sha256(media / "tiny.safetensors")}
    assert loaded(media)[0].backend == ("openvino" if report["faster"] else "torch")
    assert loaded(media, backend="openvino")[0].backend == "openvino"


def test_an_export_that_is_not_close_is_not_installed(home, media, monkeypatch):
    compare = exporting.compare
    monkeypatch.setattr(exporting, "compare", lambda *given: exporting.replace(compare(*given), within=False))
    before = sha256(home / "export" / "manifest.json"), (home / "measurement.json").read_text()
    with pytest.raises(MTAnimateError, match="not exported"):
        install(str(media / "tiny.safetensors"), "onnx")
    assert before == (sha256(home / "export" / "manifest.json"), (home / "measurement.json").read_text())
    assert list(home.parent.iterdir()) == [home]


def test_int8_is_installed_with_its_own_tolerance(home, media):
    checkpoint = str(media / "tiny.safetensors")
    with pytest.raises(InputError, match="--precision int8 needs frames"):
        install(checkpoint, "onnx", precision="int8")
    done = install(checkpoint, "onnx", precision="int8", calibrate=[media / "frames"])
    assert done.export.differences.tolerance == "PSNR 36 dB"
    change(home / "measurement.json", single=0.6, batch=0.5)
    assert loaded(media)[0].precision == "int8"
    assert loaded(media, precision="fp32")[0].backend == "torch"


def test_options_that_do_not_go_together(media, tmp_path):
    for options in ([], ["--install", "--uninstall"], ["--install", "--out", tmp_path], ["--out", tmp_path / "out"]):
        done = CliRunner().invoke(app, list(map(str, ["export", "--checkpoint", media / "tiny.safetensors", *options])))
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1), options
    with pytest.raises(InputError, match="not installed"):
        install(str(media / "tiny.safetensors"), "torch")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tpsmm", "mraa, background, no skips, no occlusion, masks at full size"])
def test_other_networks(name, media, tmp_path, monkeypatch):
    """With a background that moves, with and without layers at the source's own size."""
    monkeypatch.setenv("MTANIMATE_CACHE", str(tmp_path / "cache"))
    config, file = NETWORKS[name], tmp_path / "other.safetensors"
    if config.dense_motion.multi_occlusion:
        config = replace(config, generator=replace(config.generator, num_down_blocks=3))
    write_checkpoint(file, network(config), Config(config), {"steps": 0})
    install(str(file), "onnx")
    for backend in ("onnx", "torch"):
        files = ["--source", media / "large.png", "--driving", media / "frames", "--out", tmp_path / f"{backend}.mp4"]
        options = ["--checkpoint", file, "--crop", "none", "--driving-crop", "none", "--backend", backend, "--json"]
        report = json.loads(run("animate", *files, *options).stdout)
        side = 128 if config.generator.skips else 64
        assert (report["backend"], report["frames"], report["width"]) == (backend, 6, side)
