"""Other tools' checkpoints, as a user brings them and uses them."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from commands import COMMAND, ffmpeg, moving_disc, run_here
from foreign import FOMM, described, write
from forks import run
from golden import document
from tiny import write_video

from mtanimate.checkpoints.file import write_checkpoint
from mtanimate.checkpoints.registry import named_file
from mtanimate.config import Config
from mtanimate.models.animator import Animator


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MTANIMATE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def clip(tmp_path):
    return write_video(tmp_path / "clip.mp4", moving_disc(12))


@pytest.fixture
def face(tmp_path, clip):
    ffmpeg("-i", clip, "-frames:v", 1, tmp_path / "face.png")
    return tmp_path / "face.png"


@pytest.mark.parametrize("command", ["import", "export"])
def test_help_with_an_example(command):
    assert f"mtanimate checkpoints {command}" in run("checkpoints", command, "--help").stdout.partition("Example:")[2]


@pytest.mark.parametrize("layout", ["fomm", "release"])
def test_import_animate_evaluate_export(layout, tmp_path, face, clip):
    path, config = write(tmp_path, layout, name="my net.pth.tar")
    done = run("checkpoints", "import", path, "--config", config)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("my-net: ")
    assert "its outputs are finite; left out: discriminator, optimizer_generator" in done.stdout
    assert "use it with --checkpoint my-net" in done.stdout
    out = tmp_path / "out.mp4"
    crops = ("--crop", "none", "--driving-crop", "none")
    done = run("animate", "--source", face, "--driving", clip, "--out", out, "--checkpoint", "my-net", *crops, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["frames"] == 12
    (tmp_path / "set" / "test").mkdir(parents=True)
    clip.rename(tmp_path / "set" / "test" / "clip.mp4")
    done = run(
        *("eval", "--checkpoint", "my-net", "--dataset", tmp_path / "set", "--metrics", "l1", "--out", tmp_path / "e"),
        "--json",
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["frames"] > 0
    listed = json.loads(run("checkpoints", "list", "--json").stdout)["checkpoints"]
    assert ("my-net", "imported") in {(line["name"], line["state"]) for line in listed}
    assert run("checkpoints", "verify", "my-net").returncode == 0
    back = tmp_path / "back.pth.tar"
    done = run("checkpoints", "export", "my-net", "--layout", layout, "--out", back, "--json")
    assert json.loads(done.stdout) == {"out": str(back), "config": str(tmp_path / "back.yaml"), "layout": layout}
    one, other = (torch.load(file, weights_only=True) for file in (path, back))
    for part in ("generator", "kp_detector"):
        assert all(torch.equal(other[part][name], tensor) for name, tensor in one[part].items())


@pytest.mark.parametrize("name", ["mraa", "monkey-net"])
def test_other_estimators_animate_with_a_performance_that_was_kept(name, tmp_path, face, clip):
    network = replace(FOMM, estimator=replace(FOMM.estimator, name=name))
    named_file("mine").parent.mkdir(parents=True)
    write_checkpoint(named_file("mine"), Animator(network), Config(model=network), {})
    given = ("--source", face, "--checkpoint", "mine", "--crop", "none", "--driving-crop", "none", "--smooth", "0.05")
    kept = tmp_path / "kept.safetensors"
    done = run(
        "animate", *given, "--driving", clip, "--out", tmp_path / "a.mkv", "--codec", "ffv1", "--save-motion", kept
    )
    assert done.returncode == 0, done.stderr
    done = run("animate", *given, "--motion", kept, "--out", tmp_path / "b.mkv", "--codec", "ffv1")
    assert done.returncode == 0, done.stderr
    frames = [(tmp_path / f"{name}.png") for name in "ab"]
    for name, picture in zip("ab", frames, strict=True):
        ffmpeg("-i", tmp_path / f"{name}.mkv", "-vf", "tile=4x3", "-frames:v", 1, picture)
    assert frames[0].read_bytes() == frames[1].read_bytes()


def test_mistakes_are_one_line(tmp_path, face, clip):
    path, config = write(tmp_path, "fomm")
    (tmp_path / "notes.txt").write_text("notes")
    for arguments, said in (
        ([path], "--config FILE.yaml"),
        ([tmp_path / "notes.txt"], "no checkpoint"),
        ([tmp_path], "folder"),
        ([tmp_path / "none.pth"], "no file"),
        ([path, "--config", "tpsmm"], "nor a published checkpoint of this layout"),
        ([path, "--config", config, "--name", "a/b"], "cannot be called"),
    ):
        done = run_here("checkpoints", "import", *arguments)
        assert done.returncode == 2, done.stderr
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1
        assert said in done.stderr
    done = run_here("animate", "--source", face, "--driving", clip, "--out", tmp_path / "o.mp4", "--checkpoint", path)
    assert done.returncode == 2
    assert "mtanimate checkpoints import" in done.stderr


FULL = """
import os, resource, subprocess, sys, time
start = time.monotonic()
code = subprocess.call(sys.argv[1:])
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # KiB
print(time.monotonic() - start, peak)
sys.exit(code)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured as Linux counts it")
def test_a_full_size_checkpoint_needs_little_memory(tmp_path):
    """230 MB of weights and their discriminator: under 1 GB. (Alone on two cores it takes 4 s; here it may wait.)"""
    layout = document("fomm_vox_layout.json")
    parts = {
        part: {key: (entry["dtype"], entry["shape"]) for key, entry in layout[part].items()}
        for part in ("generator", "kp_detector")
    }
    torch.save({part: described(entries, 0) for part, entries in parts.items()}, tmp_path / "vox-cpk.pth.tar")
    command = [sys.executable, "-c", FULL, COMMAND, "checkpoints", "import", tmp_path / "vox-cpk.pth.tar", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    seconds, peak = map(float, done.stdout.split())
    assert peak < 1e9 / 1024
    assert seconds < 40
