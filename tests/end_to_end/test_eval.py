"""`mtanimate eval` on small clips of a drawn face, by a network with random weights."""

import csv
import json
import os
import shutil
import signal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from commands import interrupted, moving_disc, run_here
from evaluating import evaluate, figures, moving_face, write_clip
from forks import run

from mtanimate.errors import MTAnimateError
from mtanimate.evaluation.evaluate import run_shards
from mtanimate.metrics.measures import DEFAULT
from mtanimate.video import VideoReader, read_image

pytest.importorskip("dlib", reason="landmarks need dlib: pip install 'mtanimate[eval]'")
pytestmark = pytest.mark.usefixtures("evaluation_cache")

METRICS = "l1,akd,akd_field,mkr,psnr,ssim"


@pytest.fixture(scope="session")
def whole(media, clips, tmp_path_factory) -> dict:
    """By the command in a process of its own, whose detector has another."""
    checkpoint = ["--checkpoint", media / "tiny.safetensors", "--dataset", clips]
    out = ["--out", tmp_path_factory.mktemp("whole") / "eval", "--metrics", METRICS]
    done = run("eval", *checkpoint, *out, "--workers", 1, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_result(whole):
    assert (whole["videos"], whole["frames"], whole["skipped"]) == (3, 22, [])
    assert whole["dataset"].endswith("test")
    assert whole["metrics"].keys() == set(METRICS.split(","))
    assert whole["without_subject"]["truth"] == 6  # the disc's frames
    assert whole["repeating"]["metrics"]["akd"] > 1
    share = whole["repeating"]["metrics"]["akd_field"] / whole["repeating"]["metrics"]["akd"]
    assert 0.5 < share < 0.5**0.5  # of a distance, the mean of its |x| and |y|
    assert whole["repeating"]["metrics"]["mkr"] == 0
    assert whole["worst"]["l1"][0]["value"] == max(each["value"] for each in whole["worst"]["l1"])
    assert "68_face_landmarks.dat (sha256 fbdc2cb8)" in whole["definitions"]["detector"]
    assert "largest" in whole["definitions"]["detector"]
    assert whole["definitions"].keys() >= {"values", "size", "frames", "missing", "mean", "interval", "l1", "akd"}


def test_its_files(whole):
    out = Path(whole["out"])
    with (out / "videos.csv").open(encoding="utf-8") as file:
        table = {row["video"]: row for row in csv.DictReader(file)}
    lines = [json.loads(line) for line in (out / "videos.jsonl").read_text("utf-8").splitlines()]
    assert list(table) == [line["video"] for line in lines] == ["ann__00", "disc__00", "more/bob__00"]
    assert table["disc__00"]["generated.akd"] == ""
    mean = np.mean([line["repeating.l1"] for line in lines])
    assert mean == pytest.approx(whole["repeating"]["metrics"]["l1"])
    truth = moving_face(9, 2).astype(float)
    assert lines[0]["repeating.l1"] == pytest.approx(np.abs(truth - truth[0]).mean() / 255, rel=0.05)  # H.264 is lossy
    assert read_image(out / "strips" / "more" / "bob__00.png").shape == (64, 192, 3)
    assert json.loads((out / "result.json").read_text("utf-8"))["metrics"] == whole["metrics"]


def test_the_same_command_measures_nothing_anew(media, clips, whole):
    again = evaluate(media, clips, whole["out"], "--metrics", METRICS)
    assert "3 of 3 videos were measured before" in again["stderr"]
    assert figures(again) == figures(whole)


def test_other_settings_are_refused_by_name(media, clips, whole):
    arguments = ["--checkpoint", media / "tiny.safetensors", "--dataset", clips, "--out", whole["out"]]
    done = run_here("eval", *arguments, "--every", 2, "--metrics", METRICS)
    assert done.returncode == 2
    assert "every is 1, not 2" in done.stderr


def test_parts_make_the_whole(media, clips, whole, tmp_path):
    names = ("--metrics", METRICS)
    part = evaluate(media, clips, tmp_path / "out", "--shard", "1/2", *names)
    assert (part["videos"], "metrics" in part) == (2, False)
    assert evaluate(media, clips, tmp_path / "out", "--shard", "2/2", *names)["videos"] == 1
    together = evaluate(media, clips, tmp_path / "out", *names)
    assert "3 of 3 videos were measured before" in together["stderr"]
    assert figures(together) == figures(whole)


def test_several_devices_share_the_clips(media, clips, whole, tmp_path):
    command = ["eval", "--checkpoint", media / "tiny.safetensors", "--dataset", clips, "--out", tmp_path / "out"]
    command += ["--metrics", "l1", "--detector", "none"]
    run_shards(["cpu", "cpu"], list(map(str, command)))
    assert sorted(file.stem for file in (tmp_path / "out" / "videos").rglob("*.json")) == [
        *("ann__00", "bob__00", "disc__00"),
    ]
    with pytest.raises(MTAnimateError, match="a part of the evaluation failed"):
        run_shards(["cpu"], ["eval", "--nosuch"])


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_it_goes_on_where_it_was_ended(number, media, clips, whole, tmp_path):
    out = tmp_path / "out"
    command = ["eval", "--checkpoint", media / "tiny.safetensors", "--dataset", clips, "--out", out]
    names = ["--metrics", METRICS]
    for _ in range(5):
        code, stderr = interrupted(number, lambda: any(out.glob("videos/*.json")), *command, *names)
        if code:
            break
        shutil.rmtree(out)  # on a busy machine it was done before the signal came
    assert code in (-signal.SIGKILL, 130)
    assert "Traceback" not in stderr
    assert not (out / "result.json").exists()
    assert figures(evaluate(media, clips, out, *names)) == figures(whole)


def test_broken_clips_are_skipped_and_named(media, clips, tmp_path):
    for clip in (clips / "test").rglob("*.mp4"):
        (tmp_path / "set").mkdir(exist_ok=True)
        (tmp_path / "set" / clip.name).write_bytes(clip.read_bytes())
    (tmp_path / "set" / "broken.mp4").write_bytes(b"no video at all" * 99)
    write_clip(tmp_path / "set" / "one.mp4", moving_disc(1))
    result = evaluate(media, tmp_path / "set", tmp_path / "out", "--metrics", "l1")
    assert result["videos"] == 3
    assert any("broken.mp4" in line for line in result["skipped"])
    assert any("one.mp4 has 1 frame" in line for line in result["skipped"])


def test_nothing_but_broken_clips(media, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "broken.mp4").write_bytes(b"no video at all" * 99)
    done = run(
        "eval", "--checkpoint", media / "tiny.safetensors", "--dataset", tmp_path / "set", "--out", tmp_path / "o"
    )
    assert done.returncode == 2
    assert "no clip of" in done.stderr.splitlines()[-1]


def test_subjects_without_a_face(media, clips, tmp_path):
    write_clip(tmp_path / "set" / "disc.mp4", moving_disc(5))
    result = evaluate(media, tmp_path / "set", tmp_path / "out")
    assert result["metrics"]["l1"] > 0
    assert {value for name, value in result["metrics"].items() if name != "l1"} == {None}
    assert result["metrics"].keys() == result["definitions"].keys() & DEFAULT == set(DEFAULT)
    assert "no subject" in result["reasons"]["akd"]
    assert "--detector" in result["stderr"]


def test_bodies_have_no_identity(media, clips, tmp_path):
    pytest.importorskip("mediapipe", reason="bodies need mediapipe: pip install 'mtanimate[mediapipe]'")
    result = evaluate(media, clips, tmp_path / "out", "--detector", "bodies")
    for name in ("aed", "aed_field"):
        assert result["metrics"][name] is None
        assert "no network" in result["reasons"][name]


def test_videos_and_frames_are_kept_on_request(media, clips, tmp_path):
    kept = ["--videos", tmp_path / "v", "--frames", tmp_path / "f"]
    evaluate(media, clips, tmp_path / "out", "--metrics", "l1", "--every", 2, *kept)
    video = VideoReader(tmp_path / "v" / "ann__00.mp4")
    assert (video.frame_count, video.width, video.height, video.fps) == (5, 128, 64, Fraction(25, 2))
    frames = sorted(file.name for file in (tmp_path / "f" / "generated" / "more" / "bob__00").iterdir())
    assert frames == [f"{number:07d}.png" for number in (0, 2, 4, 6)]
    assert (tmp_path / "f" / "truth" / "ann__00" / "0000000.png").exists()


def test_videos_are_not_written_over_the_clips(media, clips, tmp_path):
    before = {clip: clip.read_bytes() for clip in clips.rglob("*.mp4")}
    files = ["--checkpoint", media / "tiny.safetensors", "--dataset", clips, "--out", tmp_path]
    done = run("eval", *files, "--videos", clips / "test")
    assert done.returncode == 2
    assert "--videos" in done.stderr
    assert before == {clip: clip.read_bytes() for clip in clips.rglob("*.mp4")}


def test_landmarks_are_those_of_the_clips_own_size(media, large_clips, tmp_path):
    """Those that are kept of the same clips at the network's size are not taken for them."""
    usual = evaluate(media, large_clips, tmp_path / "usual", "--metrics", "akd")
    found = evaluate(media, large_clips, tmp_path / "own", "--metrics", "akd,sharpness", "--resolution", "auto")
    assert found["repeating"]["metrics"]["akd"] == pytest.approx(2 * usual["repeating"]["metrics"]["akd"], rel=0.25)
    assert found["without_subject"].keys() == {"truth", "generated", "enlarged"}
    assert found["without_subject"]["truth"] == 0
    assert found["sides"] == [128, 128]
    assert "128 x 128" not in found["definitions"]["size"]
    again = ["--checkpoint", media / "tiny.safetensors", "--dataset", large_clips, "--out", tmp_path / "own"]
    shown = run("eval", *again, "--metrics", "akd,sharpness", "--resolution", "auto")
    assert all(word in shown.stdout for word in ("enlarged", "sharpness ↑", "first-frame baseline"))


def test_comparison(media, clips, whole, tmp_path):
    other = tmp_path / "other"
    evaluate(media, clips, other, "--metrics", METRICS)
    done = run("eval", "--compare", whole["out"], other, "--out", tmp_path / "compared", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["videos"] == 3
    assert result["figures"]["other"]["l1"]["mean"] == whole["metrics"]["l1"]
    assert result["differences"]["other"]["l1"]["mean"] == 0
    quoted = {"l1": 0.038, "akd_field": 1.18, "aed_field": 0.116}
    assert result["quoted"]["rows"]["VoxCeleb, Motion Transformer"] == quoted
    assert "quoted" in result["quoted"]["remark"]
    picture = read_image(result["picture"])
    assert picture.shape[1] == 4 * 64 + 3 * 2
    shown = run("eval", "--compare", whole["out"], other, "--out", tmp_path / "compared")
    assert "quoted from the paper" in " ".join(shown.stdout.split())
    beside = shown.stdout.partition("quoted")[2]
    assert "1.18" in beside
    assert "AKD, field's" in beside
    assert "MKR" not in beside  # nothing is quoted of faces
    assert "AED" not in beside  # not measured


def test_the_table(media, clips, whole):
    checkpoint = ["--checkpoint", media / "tiny.safetensors", "--dataset", clips, "--out", whole["out"]]
    done = run("eval", *checkpoint, "--metrics", METRICS, env=os.environ | {"COLUMNS": "120"})
    assert done.returncode == 0
    assert all(word in done.stdout for word in ("L1 ↓", "SSIM ↑", "first-frame baseline", "worst L1", "videos.csv"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--metrics", "l1,fid"], "--metrics l1,fid: there are l1, akd"),
        (["--shard", "3/2"], "--shard 3/2"),
        (["--detector", "cats"], "--detector cats: not one of faces, face-alignment, bodies, none"),
        (["--dataset", "/nowhere"], "no folder"),
        (["--resolution", "32"], "--resolution 32: this network makes 64 x 64"),
        (["--cross", "99"], "pairs of different people"),
        (["--cross", "nothing.csv"], "neither a number of random pairs nor a CSV file"),
        (["--cross", "1", "--metrics", "l1"], "no truth"),
        (["--sources", "."], "--sources .: photographs are driven between people: add --cross N"),
        (["--cross", "1", "--sources", "/nowhere"], "--sources /nowhere: no such folder"),
        (["--cross", "1", "--sources", Path(__file__).parent], "no pictures in it"),
        (["--cross", "pairs.csv", "--sources", "."], "--sources goes with --cross N"),
        (["--cross", "1", "--detector", "none"], "--cross needs a detector"),
        (["--openpose", "/nowhere"], "--openpose /nowhere"),
        (["--compare", "one"], "--compare needs two or more"),
        (["--gpus", "64"], "--gpus 64"),
        (["extra"], "--compare"),
    ],
)
def test_wrong_options_are_one_line(options, said, media, clips, tmp_path):
    arguments = ["--checkpoint", media / "tiny.safetensors", "--dataset", clips, "--out", tmp_path / "out", *options]
    done = run_here("eval", *arguments)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_missing_extra_is_named(media, clips, tmp_path):
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "dlib.py").write_text("raise ImportError('no dlib here')")
    (tmp_path / "hidden" / "lpips.py").write_text("raise ImportError('no lpips here')")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "hidden")}
    arguments = ["--checkpoint", media / "tiny.safetensors", "--dataset", clips, "--out", tmp_path / "out"]
    for metric, extra in (("akd", "mtanimate[eval]"), ("lpips", "mtanimate[lpips]")):
        done = run("eval", *arguments, "--metrics", metric, env=environment)
        assert done.returncode == 2
        assert f"pip install '{extra}'" in done.stderr
