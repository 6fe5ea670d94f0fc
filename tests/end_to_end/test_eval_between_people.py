"""`mtanimate eval --cross`: people who are driven by others, on small clips of a drawn face."""

import csv
import importlib.util
import json
import os
from pathlib import Path

import pytest
from drawn_face import scene
from evaluating import evaluate, figures, moving_face
from forks import run
from golden import SHARED

from mtanimate.video import read_image, write_image

pytest.importorskip("dlib", reason="landmarks need dlib: pip install 'mtanimate[eval]'")
pytestmark = pytest.mark.usefixtures("evaluation_cache")

TEST_CLIPS = SHARED / "data" / "talking-heads" / "test"
needs_clips = pytest.mark.skipif(not TEST_CLIPS.is_dir(), reason=f"no test clips at {TEST_CLIPS}")
needs_mediapipe = pytest.mark.skipif(
    importlib.util.find_spec("mediapipe") is None,
    reason="the face mesh needs mediapipe: pip install 'mtanimate[mediapipe]'",
)


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
