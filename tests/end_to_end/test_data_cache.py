"""`mtanimate data cache` and `data pack` as a user runs them, and a training from what they make."""

import importlib.util
import json
import os
from pathlib import Path

import pytest
from commands import moving_disc
from forks import run
from lives import write_settings
from tiny import tiny_config, write_video

from mtanimate.inspection.subject import PORTRAIT
from mtanimate.video import read_image, write_image

ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "talking-heads"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mediapipe") is None, reason="faces need mediapipe: pip install 'mtanimate[mediapipe]'"
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three people, real ones where they are at hand, and a still."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "train").mkdir()
    (folder / "stills").mkdir()
    real = sorted((SHARED / "train").glob("*.mp4"), key=lambda path: path.stat().st_size)[:3]
    for number in range(3):
        path = folder / "train" / f"p{number}__00.mp4"
        if len(real) == 3:
            path.symlink_to(real[number])
        else:
            write_video(path, moving_disc(12 + number))
    write_image(folder / "stills" / "zoe.png", read_image(PORTRAIT))
    return folder


def test_a_cache_a_pack_a_cache_of_it_and_a_training_without_mediapipe(data, tmp_path):
    cached = run("data", "cache", data, "--out", tmp_path / "cache", "--resolution", 64, "--json", env=ONE_THREAD)
    assert cached.returncode == 0, cached.stderr
    result = json.loads(cached.stdout)
    assert (result["clips"], result["stills"], result["new"], result["without_faces"]) == (3, 1, 4, 0)
    options = ["--cache", tmp_path / "cache", "--stills", data / "stills"]
    packed = run("data", "pack", data, *options, "--out", tmp_path / "pack", "--size", "1MiB", env=ONE_THREAD)
    assert packed.returncode == 0, packed.stderr
    assert "3 of 3 clips, of all 3 people" in packed.stdout
    assert sum(file.stat().st_size for file in (tmp_path / "pack").rglob("*") if file.is_file()) <= 2**20
    (tmp_path / "no" / "mediapipe").mkdir(parents=True)
    (tmp_path / "no" / "mediapipe" / "__init__.py").touch()
    without = {**ONE_THREAD, "PYTHONPATH": os.pathsep.join([str(tmp_path / "no"), os.environ.get("PYTHONPATH", "")])}
    again = run("data", "cache", tmp_path / "pack", "--out", tmp_path / "there", "--resolution", 64, env=without)
    assert again.returncode == 0, again.stderr
    assert "3 clips and 1 stills" in again.stdout
    stills = {"stills": str(tmp_path / "pack" / "stills"), "stills_share": 0.5}
    config = tiny_config(steps=2, precision="fp32", validation_clips=1, loss={"landmarks": 1.0}, data=stills)
    settings = write_settings(tmp_path / "tiny.yaml", config)
    train = ["train", "--dataset", settings, "--data", tmp_path / "pack", "--device", "cpu"]
    trained = run(*train, "--out", tmp_path / "run", "--set", f"data.cache={tmp_path / 'there'}", env=without)
    assert trained.returncode == 0, trained.stderr
    assert f"4 of 4 clips and stills are read from the cache '{tmp_path / 'there'}'" in trained.stderr
    assert not (tmp_path / "run" / "cache").exists()
    kept = (tmp_path / "run" / "checkpoints" / "step-0000002.safetensors").read_bytes()
    assert str(tmp_path).encode() not in kept, "a checkpoint names no folders of the machine it was trained on"
    refused = run(*train, "--out", tmp_path / "other", env=without)
    assert refused.returncode == 2
    assert "a mediapipe that carries its models" in refused.stderr.splitlines()[-1]


def test_what_is_wrong_is_one_line(data, tmp_path):
    for arguments, said in (
        (["cache", tmp_path / "none", "--out", tmp_path / "cache"], "no data folder"),
        (["pack", data, "--cache", tmp_path, "--out", tmp_path / "pack", "--size", "1MiB"], "no cache in"),
        (["pack", data, "--cache", tmp_path, "--out", tmp_path / "pack", "--size", "much"], "--size much: expected"),
    ):
        done = run("data", *arguments, env=ONE_THREAD)
        assert done.returncode == 2
        assert said in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "pack").exists()
