"""`mtanimate attention` and `mtanimate inspect`, as commands."""

import json
from dataclasses import replace

import numpy as np
import pytest
from commands import tiny_config
from forks import run
from PIL import Image
from typer.testing import CliRunner

from mtanimate.checkpoints.file import write_checkpoint
from mtanimate.cli import app
from mtanimate.config import Config, HeatmapEstimatorConfig
from mtanimate.config.model import FACE_POINTS
from mtanimate.models.animator import Animator
from mtanimate.video import VideoReader

LAYERS, TOKENS = 2, 10  # of tiny.safetensors
PLAIN = ("--crop", "none", "--driving-crop", "none")
SMALL = HeatmapEstimatorConfig(block_expansion=4, max_features=16, num_blocks=2, scale_factor=1.0)


@pytest.fixture(scope="module")
def networks(tmp_path_factory, media):
    """A folder with a checkpoint an estimator, some without occlusion."""
    folder = tmp_path_factory.mktemp("networks")
    model = tiny_config().model
    blind = replace(model.dense_motion, occlusion=False)
    variants = {
        "transformer": model,
        "release": replace(model, estimator=replace(model.estimator, variant="release")),
        "separate": replace(model, estimator=replace(model.estimator, attention="separate")),
        "no-occlusion": replace(model, dense_motion=blind),
        **{name: replace(model, estimator=replace(SMALL, name=name)) for name in ("fomm", "mraa")},
        "monkey-net": replace(model, estimator=replace(SMALL, name="monkey-net"), dense_motion=blind),
    }
    for name, variant in variants.items():
        write_checkpoint(folder / f"{name}.safetensors", Animator(variant), Config(variant), {})
    return folder


def call(*arguments):
    """The command in this process: PyTorch is there already."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def attend(media, *options):
    return call("attention", "--checkpoint", media / "tiny.safetensors", *options)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pair(media):
    return "--source", media / "face.png", "--driving", media / "talk.mp4", *PLAIN


def test_the_portrait_that_ships_needs_nothing_else(tmp_path):
    done = run("attention", "--layer", 6, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["out"] == "attention-layer-6.png"
    assert (result["layers"], result["tokens"]) == ([6], list(range(1, FACE_POINTS + 1)))
    with Image.open(tmp_path / "attention-layer-6.png") as figure:
        assert figure.size == (result["width"], result["height"])
        assert "Eileen Collins" in figure.text["Comment"]
    again = run("visualize-attention", "--layer", 6, cwd=tmp_path)
    assert again.returncode == 2
    assert "exists already" in again.stderr


@pytest.mark.parametrize("out", ["figure.png", "figure.svg", "figure.pdf"])
def test_formats(media, tmp_path, out):
    done = attend(
        media, "--image", media / "face.png", "--crop", "none", "--out", tmp_path / out, "--tokens", "2,1,2", "--json"
    )
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["tokens"] == [2, 1]
    start = (tmp_path / out).read_bytes()[:5]
    assert start == {"png": b"\x89PNG\r", "svg": b"<?xml", "pdf": b"%PDF-"}[out[-3:]]
    assert [file.name for file in tmp_path.iterdir()] == [out]


@pytest.mark.parametrize("options", [[], ["--heads", "each"], ["--heads", "max"], ["--rollout"], ["--motion"]])
@pytest.mark.parametrize("network", ["transformer", "release"])
def test_views(networks, tmp_path, options, network):
    out, raw = tmp_path / "figure.png", tmp_path / "raw.npz"
    done = call("attention", "--checkpoint", networks / f"{network}.safetensors", *options, "--out", out, "--raw", raw)
    assert done.exit_code == 0, done.stderr
    motion_tokens = TOKENS * (1 + (network == "release"))
    with np.load(raw, allow_pickle=False) as arrays:
        rows = arrays["rollout" if "--rollout" in options else "attention"]
        assert rows.dtype == np.float32
        assert rows.shape[:2] == (1, LAYERS)
        assert rows.shape[-1] == motion_tokens + 16 == rows.shape[-2]
        np.testing.assert_allclose(rows.sum(axis=-1), 1, atol=1e-5)
        assert arrays["motion_tokens"] == motion_tokens


@pytest.mark.parametrize("options", [[], ["--motion"], ["--layer", 1, "--heads", "each"]])
def test_a_driving_video(media, tmp_path, options):
    out, raw = tmp_path / "seen.mp4", tmp_path / "raw.npz"
    done = attend(media, *pair(media), "--out", out, "--raw", raw, "--json", *options)
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout)
    video = VideoReader(out)
    assert (video.frame_count, video.fps.limit_denominator(10**6)) == (20, VideoReader(media / "talk.mp4").fps)
    assert result["frames"] == 20
    assert result["frame"] is None
    with np.load(raw, allow_pickle=False) as arrays:
        assert arrays["frames"].tolist() == list(range(20))
        assert len(arrays["attention"]) == 20
        assert np.ptp(arrays["attention"], axis=0).max() > 1e-4  # frames differ
    frames = video.frames([0, 10]).astype(int)
    assert np.abs(frames[0] - frames[1]).max() > 20


def test_one_frame_of_a_driving_video(media, tmp_path):
    out, raw = tmp_path / "seen.png", tmp_path / "raw.npz"
    done = attend(media, *pair(media), "--out", out, "--raw", raw, "--json")
    assert json.loads(done.stdout)["frame"] == 10
    with np.load(raw) as arrays:
        assert arrays["frames"].tolist() == [10]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--layer", 9], "has 2 layers: give 1 to 2, or all"),
        (["--layer", 0], "has 2 layers"),
        (["--layer", "last"], "has 2 layers"),
        (["--tokens", "11"], "the tokens are 1 to 10"),
        (["--tokens", "0,1"], "the tokens are 1 to 10"),
        (["--tokens", "first"], "the tokens are 1 to 10"),
        (["--out", "figure.bmp"], "a figure ends in one of .png, .svg, .pdf"),
        (["--out", "figure"], "a figure ends in one of"),
        (["--out", "figure.mp4"], "would be a video of one picture"),
        (["--driving", "talk.mp4"], "--driving without --source"),
        (["--source", "face.png"], "--source without --driving"),
        (["--image", "face.png", "--source", "face.png", "--driving", "talk.mp4"], "--image is its own source"),
        (["--source", "face.png", "--driving", "face.png", "--out", "figure.mp4"], "would be a video of one picture"),
        (["--image", "nobody.png"], "nobody.png does not exist"),
        (["--image", "face.png", "--crop", "0,0,99,99"], "reaches out of the source"),
        (["--image", "face.png", "--face", "all"], "a figure shows one face"),
        (["--rollout", "--heads", "max"], "--rollout averages the heads"),
        (["--raw", "raw.txt"], ".npz"),
        (["--image", "face.png", "--out", "face.png", "--overwrite"], "is also an input"),
        (["--out", "no folder/figure.png"], "create it first"),
        (["--device", "abacus"], "not one of auto, cpu"),
    ],
)
def test_what_is_refused(media, here, options, said):
    for name in ("face.png", "talk.mp4"):
        (here / name).symlink_to(media / name)
    done = attend(media, *options)
    assert done.exit_code == 2, done.stderr
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert len(list(here.iterdir())) == 2


def test_a_rollout_of_separate_attention_is_refused(networks, here):
    network = networks / "separate.safetensors"
    done = call("attention", "--checkpoint", network, "--rollout")
    assert done.exit_code == 2
    assert "--rollout is defined where all tokens attend to all" in done.stderr
    assert call("attention", "--checkpoint", network).exit_code == 0


@pytest.mark.parametrize("name", ["fomm", "mraa", "monkey-net"])
def test_an_estimator_without_attention(networks, here, name):
    done = call("attention", "--checkpoint", networks / f"{name}.safetensors")
    assert done.exit_code == 2
    assert f"{name}, which has no attention; 'mtanimate inspect' shows its keypoints and masks" in done.stderr


@pytest.mark.parametrize("name", ["transformer", "release", "no-occlusion", "fomm", "mraa", "monkey-net"])
def test_inspect_every_estimator(networks, media, tmp_path, name):
    network = networks / f"{name}.safetensors"
    options = ("inspect", "--checkpoint", network, *pair(media), "--json")
    one = call(*options, "--frame", 3, "--out", tmp_path / "one.png")
    assert one.exit_code == 0, one.stderr
    result = json.loads(one.stdout)
    assert result["frame"] == 3
    assert ("occlusion" in result["pictures"]) == (name not in ("no-occlusion", "monkey-net"))
    with Image.open(tmp_path / "one.png") as figure:
        assert figure.size == (result["width"], result["height"])
        assert "AI-generated" in figure.text["Comment"]
        still = np.array(figure).astype(int)
    whole = call(*options, "--out", tmp_path / "all.mp4")
    assert whole.exit_code == 0, whole.stderr
    video = VideoReader(tmp_path / "all.mp4")
    assert video.frame_count == json.loads(whole.stdout)["frames"] == 20
    frame = video.frames([3])[0][: still.shape[0], : still.shape[1]]
    assert np.abs(frame - still).mean() < 6  # H.264 halves the resolution of colours


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--frame", 20], "are 0 to 19"),
        (["--frame", 1, "--out", "a.mp4"], "is one figure"),
        (["--out", "a.txt"], "a figure ends in one of"),
        (["--checkpoint", "nothing"], "no checkpoint"),
    ],
)
def test_what_inspect_refuses(media, here, options, said):
    done = call("inspect", "--checkpoint", media / "tiny.safetensors", *pair(media), *options)
    assert done.exit_code == 2
    assert said in done.stderr
    assert list(here.iterdir()) == []


def test_inspect_of_two_pictures(media, here):
    face = media / "face.png"
    done = call("inspect", "--checkpoint", media / "tiny.safetensors", "--source", face, "--driving", face)
    assert done.exit_code == 0, done.stderr
    assert "inspect.png: frame 0" in done.stdout


def test_a_full_disk(media, small_disk):
    done = attend(media, "--out", small_disk / "figure.pdf")
    assert done.exit_code == 1
    assert "disk full" in done.stderr
    assert list(small_disk.iterdir()) == []
