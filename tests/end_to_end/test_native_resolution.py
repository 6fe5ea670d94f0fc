"""`mtanimate animate` makes results as large as the photograph is."""

import json
import subprocess
import sys

import numpy as np
import pytest
from commands import COMMAND, ffmpeg, run_here
from forks import run
from PIL import Image

from mtanimate.video import VideoReader, read_image

SIDE = 64  # of the network in `media`


@pytest.fixture(scope="module")
def photograph(media, tmp_path_factory):
    """200 x 200, with detail that 64 x 64 cannot hold."""
    file = tmp_path_factory.mktemp("large") / "photo.png"
    enlarged = Image.open(media / "face.png").resize((200, 200))
    grain = np.random.default_rng(0).integers(-40, 41, (200, 200, 1))
    Image.fromarray((np.array(enlarged) + grain).clip(0, 255).astype(np.uint8)).save(file)
    return file


def animate(media, source, out, *options, driving="talk.mp4"):
    given = ["--source", source, "--driving", media / driving, "--out", out, "--checkpoint", media / "tiny.safetensors"]
    done = run_here("animate", *given, "--json", "--crop", "none", "--driving-crop", "none", *options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def detail(frame: np.ndarray) -> float:
    return float(np.abs(np.diff(frame.astype(float), axis=1)).mean())


def test_a_result_has_the_photographs_size_and_detail(media, photograph, tmp_path):
    large, said = animate(media, photograph, tmp_path / "large.mkv", "--codec", "ffv1")
    small, _ = animate(media, photograph, tmp_path / "small.mkv", "--codec", "ffv1", "--resolution", SIDE)
    assert (large["width"], large["height"]) == (200, 200)
    assert (small["width"], small["height"]) == (SIDE, SIDE)
    assert "200 x 200" in said
    frame, soft = (VideoReader(tmp_path / f"{name}.mkv").frames([10])[0] for name in ("large", "small"))
    soft = np.array(Image.fromarray(soft).resize((200, 200), Image.Resampling.BICUBIC))
    assert detail(frame) > 2 * detail(soft)
    assert np.abs(frame.astype(float).mean() - soft.astype(float).mean()) < 3


@pytest.mark.parametrize(("resolution", "side"), [("100", 100), ("64", 64), ("5000", 200), ("auto", 200)])
def test_a_limit_is_kept_and_said(media, photograph, tmp_path, resolution, side):
    result, said = animate(media, photograph, tmp_path / "o.mp4", "--resolution", resolution, "--end", "0.2")
    assert (result["width"], result["height"]) == (side, side)
    assert f"{side} x {side}" in said


@pytest.mark.parametrize("resolution", ["63", "0", "-5", "large", "1.5", "100000", ""])
def test_a_resolution_that_cannot_be_is_refused(media, photograph, tmp_path, resolution):
    given = ["--source", photograph, "--driving", media / "talk.mp4", "--out", tmp_path / "o.mp4"]
    done = run_here("animate", *given, "--checkpoint", media / "tiny.safetensors", f"--resolution={resolution}")
    assert done.returncode == 2
    assert "--resolution" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_small_source_is_made_as_before(media, tmp_path):
    """To the bit: there is no detail beyond what the network sees."""
    for name, options in {"auto": [], "network": ["--resolution", SIDE]}.items():
        result, _ = animate(media, media / "face.png", tmp_path / f"{name}.mkv", "--codec", "ffv1", *options)
        assert result["width"] == SIDE
    auto, network = (VideoReader(tmp_path / f"{name}.mkv").frames(range(20)) for name in ("auto", "network"))
    assert (auto == network).all()


def test_a_square_that_is_pasted_back_joins_the_photograph(media, photograph, tmp_path):
    """Untouched to the bit outside of what the square takes along; no step there, whatever moves inside."""
    out = tmp_path / "o.mkv"
    x, y, side, reach = 40, 50, 120, 19
    animate(media, photograph, out, "--crop", f"{x},{y},{side},{side}", "--codec", "ffv1", "--strength", "2")
    frames, photo = VideoReader(out).frames(range(20)).astype(int), read_image(photograph).astype(int)
    x, y, side = x - reach, y - reach, side + 2 * reach
    outside = np.ones((200, 200), bool)
    outside[y : y + side, x : x + side] = False
    assert (frames[:, outside] == photo[outside]).all()
    changed = np.abs(frames - photo)[:, y : y + side, x : x + side].mean(axis=(0, 3))
    assert changed[0].mean() < 1
    assert changed[:, -1].mean() < 1
    assert changed[50:-50, 50:-50].mean() > 5


def test_a_square_above_the_limit_is_enlarged_into_its_place(media, photograph, tmp_path):
    out = tmp_path / "o.mkv"
    animate(media, photograph, out, "--crop", "40,50,120,120", "--codec", "ffv1", "--resolution", "80")
    frames, photo = VideoReader(out).frames([3, 9]), read_image(photograph)
    outside = np.ones((200, 200), bool)
    outside[50:170, 40:160] = False
    assert (frames[:, outside] == photo[outside]).all()
    assert (frames[:, 80:140, 70:130] != photo[80:140, 70:130]).mean() > 0.5


def test_side_by_side_all_three_have_the_photographs_size(media, photograph, tmp_path):
    result, _ = animate(media, photograph, tmp_path / "o.mkv", "--compare", "--codec", "ffv1")
    assert (result["width"], result["height"]) == (600, 200)
    frame = VideoReader(tmp_path / "o.mkv").frames([5])[0]
    assert (frame[:, :200] == read_image(photograph)).all()


def test_a_video_source_keeps_its_own_size(media, tmp_path):
    moving = tmp_path / "large.mkv"
    ffmpeg("-i", media / "silent.mp4", "-vf", "scale=160:160,noise=alls=30:allf=t", "-c:v", "ffv1", moving)
    result, _ = animate(media, moving, tmp_path / "o.mkv", "--codec", "ffv1")
    assert (result["width"], result["height"], result["frames"]) == (160, 160, 20)
    frames, sources = VideoReader(tmp_path / "o.mkv").frames([2, 11]), VideoReader(moving).frames([2, 11])
    assert detail(frames[0]) > 0.5 * detail(sources[0])
    own, other = (np.abs(frames[1].astype(int) - sources[number]).mean() for number in (1, 0))
    assert own < other  # each frame has its own grain


def test_rows_of_a_jobs_file_choose(media, photograph, tmp_path):
    jobs = tmp_path / "jobs.csv"
    jobs.write_text(
        "source,driving,out,resolution\n"
        f"{photograph},{media / 'talk.mp4'},{tmp_path / 'a.mp4'},\n"
        f"{photograph},{media / 'talk.mp4'},{tmp_path / 'b.mp4'},90\n"
    )
    done = run_here(
        "animate",
        "--jobs",
        jobs,
        "--checkpoint",
        media / "tiny.safetensors",
        "--crop",
        "none",
        "--driving-crop",
        "none",
    )
    assert done.returncode == 0, done.stderr
    assert [VideoReader(tmp_path / name).width for name in ("a.mp4", "b.mp4")] == [200, 90]


def test_a_stream_has_its_own_size_too(media, photograph, tmp_path):
    given = ["--source", photograph, "--checkpoint", media / "tiny.safetensors", "--crop", "none"]
    for resolution, side in {"150": 150, "64": SIDE}.items():
        streams = ["--driving", "-", "--out", "-", "--resolution", resolution]
        done = run("animate", *given, *streams, stdin=media / "talk.mp4", text=False)
        assert done.returncode == 0, done.stderr
        (tmp_path / "kept.mkv").write_bytes(done.stdout)
        assert VideoReader(tmp_path / "kept.mkv").width == side


@pytest.mark.parametrize("side", [3000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_huge_photograph_stays_within_bounds(media, photograph, tmp_path, side):
    """Up to 100 megapixels: the square is made at the limit, which is said. Memory stays bounded."""
    pytest.importorskip("resource", reason="memory is measured as POSIX counts it")
    huge, out = tmp_path / "huge.jpg", tmp_path / "o.mp4"
    Image.open(photograph).convert("RGB").resize((side, side), Image.Resampling.NEAREST).save(huge)
    given = ["--source", huge, "--driving", media / "talk.mp4", "--out", out, "--end", "0.2"]
    network = ["--checkpoint", media / "tiny.safetensors", "--crop", "none", "--driving-crop", "none"]
    # By a small process: a child's memory begins with that of the process that forks it.
    measured = "import resource, subprocess, sys; code = subprocess.run(sys.argv[1:]).returncode; "
    measured += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)"
    command = [sys.executable, "-c", measured, COMMAND, "animate", *given, *network]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "1440" in done.stderr
    assert str(side) in done.stderr
    assert VideoReader(out).width == 1440
    assert int(done.stdout.split()[-1]) < 1_500_000  # KiB
