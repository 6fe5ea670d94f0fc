"""`mtanimate eval` on small clips of a drawn face, by a network with random weights."""

import csv
import importlib.util
import json
import os
import shutil
import signal
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from commands import interrupted, moving_disc, run_here
from drawn_face import scene
from forks import run
from golden import SHARED

from mtanimate.errors import MTAnimateError
from mtanimate.evaluation.evaluate import run_shards
from mtanimate.metrics import detector_pool
from mtanimate.metrics.detector_pool import open_detector
from mtanimate.metrics.measures import DEFAULT
from mtanimate.video import VideoReader, VideoWriter, read_image, write_image

pytest.importorskip("dlib", reason="landmarks need dlib: pip install 'mtanimate[eval]'")

METRICS = "l1,akd,akd_field,mkr,psnr,ssim"
TEST_CLIPS = SHARED / "data" / "talking-heads" / "test"
needs_clips = pytest.mark.skipif(not TEST_CLIPS.is_dir(), reason=f"no test clips at {TEST_CLIPS}")
needs_mediapipe = pytest.mark.skipif(
    importlib.util.find_spec("mediapipe") is None,
    reason="the face mesh needs mediapipe: pip install 'mtanimate[mediapipe]'",
)


def write_clip(path: Path, frames: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, fps=Fraction(25), width=frames.shape[2], height=frames.shape[1]) as writer:
        writer.write(frames)


def moving_face(frames: int, start: int) -> np.ndarray:
    """(frames, 64, 64, 3): a face that wanders to the right."""
    return np.stack([scene(64, 64, (start + t, 4 + t % 3, 50)) for t in range(frames)])


@pytest.fixture(scope="session")
def clips(tmp_path_factory) -> Path:
    """A data set: in `test`, two people's faces, one in a folder of its own, and a disc; in `train`, a file."""
    folder = tmp_path_factory.mktemp("clips") / "talks ü"
    write_clip(folder / "test" / "ann__00.mp4", moving_face(9, 2))
    write_clip(folder / "test" / "more" / "bob__00.mp4", moving_face(7, 6))
    write_clip(folder / "test" / "disc__00.mp4", moving_disc(6))
    write_clip(folder / "train" / "cy__00.mp4", moving_disc(4))
    return folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch) -> None:
    monkeypatch.setenv("MTANIMATE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


class InThisProcess:
    """Stands in for the pool of processes, each of which takes seconds to begin and to read its networks."""

    opened = staticmethod(cache(open_detector))

    def __init__(self, processes, context, begin, arguments) -> None:
        self.detector = self.opened(*arguments)

    def map(self, detect, *given):
        detector_pool._detector = self.detector
        return map(detect, *given)

    def shutdown(self, cancel_futures) -> None:
        pass


def evaluate(media: Path, clips: Path, out: Path, *options: object) -> dict:
    checkpoint = ["--checkpoint", media / "tiny.safetensors", "--dataset", clips, "--out", out]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detector_pool, "ProcessPoolExecutor", InThisProcess)
        done = run_here("eval", *checkpoint, "--workers", 1, "--json", *options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) | {"stderr": done.stderr}


def figures(result: dict) -> dict:
    """All but what changes from run to run."""
    return {key: value for key, value in result.items() if key not in ("stderr", "milliseconds_per_frame", "out")}


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


def test_between_people(media, clips, tmp_path):
    options = ("--cross", 3, "--seed", 5, "--every", 2)
    first = evaluate(media, clips, tmp_path / "one", *options)
    again = evaluate(media, clips, tmp_path / "two", *options)
    assert figures(first) == figures(again)
    follows = {"yaw", "pitch", "mouth"}
    assert first["metrics"].keys() == {"similarity", "pose", "movement", "jitter", *follows}
    assert all(first["driving"]["metrics"][name] in (None, pytest.approx(1)) for name in follows)
    assert first["source"]["metrics"]["similarity"] == pytest.approx(1)
    assert first["driving"]["metrics"]["pose"] == 0
    assert first["source"]["metrics"]["jitter"] == 0
    assert "fifty people" in first["definitions"]["kind"]


@pytest.fixture(scope="module")
def large_clips(tmp_path_factory) -> Path:
    """Two people's faces in 128 x 128."""
    folder = tmp_path_factory.mktemp("large clips")
    for name, start in (("ann__00", 4), ("bob__00", 12)):
        frames = [scene(128, 128, (start + 2 * t, 8 + 2 * (t % 3), 100)) for t in range(4)]
        write_clip(folder / f"{name}.mp4", np.stack(frames))
    return folder


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


def test_between_people_at_the_sources_own_size(media, large_clips, tmp_path):
    write_image(tmp_path / "cy.png", scene(90, 90, (5, 5, 80)))
    (tmp_path / "pairs.csv").write_text("source,driving\nann__00,bob__00\ncy.png,ann__00\n")
    found = evaluate(media, large_clips, tmp_path / "out", "--cross", tmp_path / "pairs.csv", "--resolution", "auto")
    assert found["sides"] == [90, 128]
    assert found["driving"]["metrics"]["pose"] == 0
    assert found["source"]["metrics"]["similarity"] == pytest.approx(1)
    assert found["enlarged"]["metrics"].keys() == found["metrics"].keys()
    assert read_image(tmp_path / "out" / "strips" / "cy by ann__00.png").shape == (90, 270, 3)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    """A folder with two pictures, and what is none."""
    folder = tmp_path_factory.mktemp("photographs ü")
    for number in (1, 2):
        write_image(folder / f"ann__0{number}.png", moving_face(1, 4 * number)[0])
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.mark.slow
def test_photographs_driven_by_clips(media, clips, photographs, tmp_path):
    """A photograph is nobody's but its own, whatever its name."""
    options = ["--cross", 4, "--sources", photographs, "--every", 3]
    result = evaluate(media, clips, tmp_path / "out", *options)
    rows = [json.loads(file.read_text("utf-8")) for file in (tmp_path / "out" / "videos").glob("*.json")]
    every = {f"ann__0{number} by {clip}" for number in (1, 2) for clip in ("ann__00", "more_bob__00", "disc__00")}
    assert (result["kind"], len(rows)) == ("cross-relative-photographs", 4)
    assert {row["name"] for row in rows} < every
    assert {row["source"] for row in rows} == {"ann__01.png", "ann__02.png"}
    again = evaluate(media, clips, tmp_path / "out", *options)
    assert "4 of 4 videos were measured before" in again["stderr"]
    assert figures(again) == figures(result)


@pytest.mark.slow
@needs_mediapipe
@needs_clips
def test_gestures_of_unseen_people(tmp_path):
    """A head that is driven by one that turns, nods and leans; each pair's figures are in the table."""
    for name in ("p002__00", "p043__00"):
        (tmp_path / f"{name}.mp4").write_bytes((TEST_CLIPS / f"{name}.mp4").read_bytes())
    (tmp_path / "pairs.csv").write_text("source,driving\np002__00,p043__00\n")
    arguments = ["--dataset", tmp_path, "--cross", tmp_path / "pairs.csv", "--every", 6, "--out", tmp_path / "out"]
    done = run("eval", *arguments, "--workers", 1, env=os.environ | {"COLUMNS": "120"})
    assert done.returncode == 0, done.stderr
    assert "gestures by the face mesh" in done.stdout
    result = json.loads((tmp_path / "out" / "result.json").read_text("utf-8"))
    found = result["gestures"]
    assert found.keys() == {"yaw", "pitch", "roll", "mouth", "width", "eyes", "gaze", "brows"}
    for name in ("yaw", "pitch", "roll"):
        assert (found[name]["pairs"], found[name]["missing"]) == (1, 0)
        assert found[name]["correlation"]["median"] > 0.8
        assert 0.3 < found[name]["gain"]["median"] < 1.5
    with (tmp_path / "out" / "videos.csv").open(encoding="utf-8") as file:
        (line,) = csv.DictReader(file)
    for name in found:
        assert float(line[f"gestures.{name}.gain"]) == found[name]["gain"]["median"]
    assert result["definitions"]["gestures.yaw"].startswith("turn of the head")
    assert result["without_subject"]["generated_mesh"] == 0


def test_without_mediapipe_the_other_figures_are_there(media, clips, tmp_path):
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "mediapipe.py").write_text("raise ImportError('no mediapipe here')")
    arguments = ["--checkpoint", media / "tiny.safetensors", "--dataset", clips, "--out", tmp_path / "out"]
    paths = os.pathsep.join([str(tmp_path / "hidden"), os.environ.get("PYTHONPATH", "")])
    done = run("eval", *arguments, "--cross", 1, "--seed", 5, "--workers", 1, env=os.environ | {"PYTHONPATH": paths})
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "mesh" in line]
    assert line.startswith("gestures by the face mesh are left out: ")
    assert "pip install 'mtanimate[mediapipe]'" in line
    result = json.loads((tmp_path / "out" / "result.json").read_text("utf-8"))
    assert result["metrics"]["similarity"] is not None
    assert "gestures" not in result
    assert "mtanimate[mediapipe]" in result["reasons"]["gestures"]


@pytest.mark.slow
@needs_mediapipe
def test_pairs_that_were_measured_without_gestures_are_refused(media, clips, tmp_path):
    arguments = ["--checkpoint", media / "tiny.safetensors", "--dataset", clips, "--out", tmp_path / "out"]
    evaluate(media, clips, tmp_path / "out", "--cross", 1)
    file = tmp_path / "out" / "settings.json"
    settings = json.loads(file.read_text("utf-8"))
    del settings["mesh"]
    file.write_text(json.dumps(settings), "utf-8")
    done = run("eval", *arguments, "--cross", 1)
    assert done.returncode == 2
    assert "an evaluation where mesh is None, not mediapipe" in done.stderr


def test_listed_pairs(media, clips, tmp_path):
    pairs = tmp_path / "pairs.csv"
    pairs.write_text(f"distance,source,driving\n1,ann__00,more/bob__00.mp4\n2,{media / 'face.png'},ann__00\n", "utf-8")
    result = evaluate(media, clips, tmp_path / "out", "--cross", pairs, "--mode", "absolute")
    videos = [json.loads(line)["video"] for line in (tmp_path / "out" / "videos.jsonl").read_text("utf-8").splitlines()]
    assert videos == ["ann__00 by more_bob__00", "face by ann__00"]
    assert result["kind"] == "cross-absolute"


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
