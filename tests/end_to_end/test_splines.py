"""A network of thin-plate splines behind the commands."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import moving_disc, run_here
from foreign import TPSMM
from forks import run

from mtanimate.checkpoints.file import read_config, write_checkpoint
from mtanimate.config import Config
from mtanimate.models.animator import Animator
from mtanimate.video import VideoReader, VideoWriter, read_image, write_image

PLAIN = ("--crop", "none", "--driving-crop", "none", "--json")
EXACT = ("--precision", "fp32")  # not measured


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """A folder with a checkpoint that tells shape from pose, and one that does not."""
    folder = tmp_path_factory.mktemp("splines")
    torch.manual_seed(0)
    write_checkpoint(folder / "avd.safetensors", Animator(TPSMM), Config(TPSMM), {})
    plain = replace(TPSMM, estimator=replace(TPSMM.estimator, identity_width=0, pose_width=0))
    write_checkpoint(folder / "plain.safetensors", Animator(plain), Config(plain), {})
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Clips of three people."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(3):
        with VideoWriter(folder / f"p{number}__00.mp4", fps=25, width=64, height=64) as writer:
            writer.write(moving_disc(8 + number)[:, :, :: -1 if number else 1])
    return folder


def animated(media, checkpoint, out, *options):
    given = ("--source", media / "face.png", "--driving", media / "talk.mp4", "--checkpoint", checkpoint)
    return run_here("animate", *given, "--out", out, *PLAIN, *EXACT, *options)


def frames_of(path):
    return np.concatenate(list(VideoReader(path).batches(50)))


def test_its_three_modes_are_three_videos(media, networks, tmp_path):
    videos = {}
    for mode in ("relative", "absolute", "avd"):
        done = animated(media, networks / "avd.safetensors", tmp_path / f"{mode}.mp4", "--mode", mode)
        assert done.returncode == 0, done.stderr
        videos[mode] = frames_of(tmp_path / f"{mode}.mp4")
        assert (json.loads(done.stdout)["reference_frame"] is None) == (mode != "relative")
    assert len({video.tobytes() for video in videos.values()}) == 3


def test_results_have_the_photographs_own_size(media, networks, tmp_path):
    """Its last gate passes the source's pixels, too."""
    photo = tmp_path / "photo.png"
    write_image(photo, read_image(media / "face.png").repeat(3, axis=0).repeat(3, axis=1))
    given = (
        "--driving",
        media / "talk.mp4",
        "--checkpoint",
        networks / "plain.safetensors",
        "--out",
        tmp_path / "o.mp4",
    )
    done = run_here("animate", "--source", photo, *given, *PLAIN, *EXACT)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["width"] == 192
    assert frames_of(tmp_path / "o.mp4").std() > 10


def test_avd_is_refused_where_no_network_tells_shape_from_pose(media, networks, tmp_path):
    for checkpoint in (networks / "plain.safetensors", media / "tiny.safetensors"):
        done = animated(media, checkpoint, tmp_path / "o.mp4", "--mode", "avd")
        assert done.returncode == 2
        assert "--mode avd" in done.stderr
        assert done.stderr.strip().count("\n") == 0
        assert not (tmp_path / "o.mp4").exists()


def test_it_has_no_attention(media, networks, tmp_path):
    given = ("--image", media / "face.png", "--checkpoint", networks / "plain.safetensors")
    done = run_here("attention", *given, "--out", tmp_path / "a.png")
    assert done.returncode == 2
    assert "tpsmm" in done.stderr
    assert not (tmp_path / "a.png").exists()


def test_the_figure_has_every_map_of_occlusion(media, networks, tmp_path):
    given = ("--source", media / "face.png", "--driving", media / "talk.mp4", "--out", tmp_path / "i.png")
    done = run_here("inspect", *given, "--checkpoint", networks / "plain.safetensors", *PLAIN)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    maps = [title for title in report["pictures"] if "occlusion" in title]
    assert maps == ["occlusion 1/8", "occlusion 1/4", "occlusion 1/2", "occlusion"]
    assert read_image(tmp_path / "i.png").shape == (report["height"], report["width"], 3)


def test_it_is_trained_and_animated_by_commands(media, clips, tmp_path):
    small = ("--preset", "small", "--resolution", 64, "--batch-size", 2, "--steps", 3)
    changes = ["equivariance_steps=1", "warmup_steps=1", "checkpoint_every=3", "picture_every=3"]
    changes = [f"training.{change}" for change in changes] + ["model.estimator.width=4", "loss.perceptual=0"]
    own = [part for change in changes for part in ("--set", change)]
    given = ("--dataset", clips, "--out", tmp_path / "run", "--device", "cpu", "--json", *EXACT)
    trained = run("train", "--estimator", "tpsmm", *small, *own, *given)
    assert trained.returncode == 0, trained.stderr
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text("utf-8").splitlines()]
    assert len(log) == 3
    assert all(math.isfinite(line["loss"]) for line in log)
    checkpoint = json.loads(trained.stdout)["checkpoint"]
    assert read_config(Path(checkpoint)).model.estimator.motion_kind == "splines"
    done = animated(media, checkpoint, tmp_path / "o.mp4")
    assert done.returncode == 0, done.stderr


def test_it_is_measured(networks, clips, tmp_path):
    """With its background predictor, which `animate` leaves out."""
    given = ("--checkpoint", networks / "plain.safetensors", "--dataset", clips, "--out", tmp_path / "eval")
    done = run("eval", *given, "--detector", "none", "--metrics", "l1,psnr", "--json", *EXACT)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["videos"], result["frames"]) == (3, 27)
    assert 0 < result["metrics"]["l1"] < 1
    assert 0 < result["metrics"]["psnr"] < result["repeating"]["metrics"]["psnr"]  # its weights are random


def test_between_people_avd_is_refused_where_no_network_tells_shape_from_pose(networks, clips, tmp_path):
    pytest.importorskip("dlib", reason="landmarks need dlib: pip install 'mtanimate[eval]'")
    given = ("--checkpoint", networks / "plain.safetensors", "--dataset", clips, "--out", tmp_path / "eval")
    done = run_here("eval", *given, "--cross", 1, "--mode", "avd")
    assert done.returncode == 2
    assert "--mode avd" in done.stderr
    assert done.stderr.strip().count("\n") == 0
    assert not (tmp_path / "eval").exists()
