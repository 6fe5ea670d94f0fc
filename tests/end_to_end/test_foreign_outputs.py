"""Commands that write into folders, and go on where they stopped, know what is theirs by what is in it."""

import csv
import json
import os
import re
import shutil
from pathlib import Path

import pytest
from commands import moving_disc
from tiny import write_video

from mtanimate.animation.jobs import run_jobs
from mtanimate.data.cache import Cache, open_cache_writer
from mtanimate.data.caching import cache_frames
from mtanimate.data.clips import find_clips
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.evaluation.comparison import compare
from mtanimate.evaluation.evaluate import evaluate
from mtanimate.training.run import MARK, claim
from mtanimate.video import VideoWriter


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MTANIMATE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def clips(tmp_path):
    for number, name in enumerate(("ann__0", "bob__0")):
        write_video(tmp_path / "clips" / f"{name}.mp4", moving_disc(3 + number))
    return tmp_path / "clips"


@pytest.fixture
def measure(media, clips, tmp_path):
    """Evaluates into `out`, `videos` and `frames`."""

    def measure(**more):
        options = {"metrics": "l1", "detector": "none", "device": "cpu", "out": tmp_path / "out"}
        options |= {"videos": tmp_path / "videos", "frames": tmp_path / "frames"}
        return evaluate(str(media / "tiny.safetensors"), clips, **options | more)

    return measure


OURS = ["out/result.json", "out/videos.csv", "out/videos.jsonl", "out/strips/ann__0.png", "out/videos/ann__0.json"]
OURS += ["videos/ann__0.mp4", "frames/generated/ann__0/0000001.png"]


def put(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("precious")


@pytest.mark.parametrize("name", OURS)
def test_eval_leaves_others_files(name, measure, tmp_path):
    put(tmp_path / name)
    with pytest.raises(InputError, match=re.escape(str(tmp_path / name))):
        measure(progress=never)
    assert (tmp_path / name).read_text() == "precious"


@pytest.mark.parametrize("name", ["out/result.json", "out/strips/bob__0.png", "out/videos/bob__0.json"])
def test_eval_leaves_files_that_come_meanwhile(name, measure, tmp_path):
    with pytest.raises(MTAnimateError, match=re.escape(str(tmp_path / name))):
        measure(progress=lambda *counts: put(tmp_path / name))
    assert (tmp_path / name).read_text() == "precious"


def test_eval_replaces_its_own_where_a_clip_has_changed(measure, clips, tmp_path):
    measure()
    before = {name: (tmp_path / name).read_bytes() for name in OURS}
    with VideoWriter(clips / "ann__0.mp4", fps=25, width=64, height=64, overwrite=True) as writer:
        writer.write(255 - moving_disc(3))
    measure()
    changed = {name for name in OURS if (tmp_path / name).read_bytes() != before[name]}
    assert changed == set(OURS)


@pytest.mark.parametrize("name", ["comparison.png", "comparison.json"])
def test_a_comparison_leaves_others_files(name, measure, tmp_path):
    for out in ("one", "two"):
        measure(out=tmp_path / out, videos=None, frames=None)
    evaluations = [str(tmp_path / "one"), str(tmp_path / "two")]
    compare(evaluations, tmp_path / "there")
    compare(evaluations, tmp_path / "there")
    (tmp_path / "there" / name).write_text("precious")
    with pytest.raises(InputError, match=re.escape(name)):
        compare(evaluations, tmp_path / "there")
    assert (tmp_path / "there" / name).read_text() == "precious"


@pytest.mark.parametrize("name", ["frames.bin", "landmarks.bin", "mattes.bin", "index.json", "index.jsonl", "lock"])
def test_a_cache_leaves_others_files(name, clips, tmp_path):
    put(tmp_path / "there" / name)
    with pytest.raises(InputError, match=re.escape(name)):
        cache_frames(find_clips(clips), tmp_path / "there", 64, 1e9)
    assert (tmp_path / "there" / name).read_text() == "precious"
    assert [file.name for file in (tmp_path / "there").iterdir() if file.stat().st_size] == [name]


def test_a_cache_that_was_only_begun_goes_on(clips, tmp_path):
    folder = tmp_path / "there"
    folder.mkdir()
    (folder / "lock").touch()
    with open_cache_writer(folder, 64):
        (folder / "mattes.bin").unlink()
    cache_frames(find_clips(clips), folder, 64, 1e9)
    assert len(Cache(folder).entries) == 2


@pytest.mark.parametrize("name", ["config.yaml", "log.jsonl", "state/last.pt", "checkpoints/best.safetensors"])
def test_a_run_leaves_others_files(name, tmp_path):
    put(tmp_path / "run" / name)
    with pytest.raises(InputError, match=re.escape(name.split("/")[0])), claim(tmp_path / "run"):
        pass
    assert (tmp_path / "run" / name).read_text() == "precious"
    (tmp_path / "run" / "config.yaml").write_text(MARK)
    with claim(tmp_path / "run"):
        pass


def test_a_run_may_have_other_files_beside_its_own(tmp_path):
    put(tmp_path / "run" / "notes.txt")
    with claim(tmp_path / "run"):
        pass


# Jobs


@pytest.fixture
def jobs(media, tmp_path):
    """A function that performs rows of a jobs file, in a folder where `link` is the folder itself."""
    folder = tmp_path / "jobs"
    (folder / "sub").mkdir(parents=True)
    for name in ("face.png", "talk.mp4"):
        shutil.copy(media / name, folder)

    def perform(*rows, **options):
        with (folder / "jobs.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("source", "driving", "out", "save-motion"), *rows])
        common = {"checkpoint": str(media / "tiny.safetensors"), "device": "cpu", "precision": "fp32"}
        return run_jobs(folder / "jobs.csv", crop="none", driving_crop="none", end=0.2, **common, **options)

    perform.folder = folder
    return perform


@pytest.mark.parametrize("other", ["sub/../a.mp4", "./a.mp4", "nowhere/../a.mp4", "link/a.mp4"])
def test_one_place_spelt_in_two_ways_is_named_before_anything_runs(other, jobs):
    if other.startswith("link"):
        if os.name == "nt":
            pytest.skip("links need rights on Windows")
        (jobs.folder / "link").symlink_to(jobs.folder)
    with pytest.raises(InputError, match=r"line 3: line 2 writes .*a\.mp4 too"):
        jobs(("face.png", "talk.mp4", "a.mp4", ""), ("face.png", "talk.mp4", other, ""))
    with pytest.raises(InputError, match=r"line 3: line 2 writes .*m\.npz too"):
        jobs(("face.png", "talk.mp4", "a.mp4", "m.npz"), ("face.png", "talk.mp4", "b.mp4", "sub/../m.npz"))
    assert not [file for file in jobs.folder.rglob("*.mp4") if file.name != "talk.mp4"]


def test_no_row_writes_over_what_another_reads(jobs):
    before = (jobs.folder / "talk.mp4").read_bytes()
    with pytest.raises(InputError, match=r"line 2: .*talk\.mp4 is also an input"):
        jobs(("face.png", "face.png", "sub/../talk.mp4", ""), ("face.png", "talk.mp4", "b.mp4", ""), overwrite=True)
    assert (jobs.folder / "talk.mp4").read_bytes() == before


@pytest.mark.parametrize("content", ["precious", '{"a": 1}\n', "notes\nmore", "\nprecious"])
def test_another_report_is_refused_and_stays(content, jobs):
    report = jobs.folder / "jobs.csv.report.jsonl"
    report.write_text(content)
    with pytest.raises(InputError, match=re.escape(report.name)):
        jobs(("face.png", "talk.mp4", "a.mp4", ""))
    assert report.read_text() == content


def test_a_row_that_is_made_again_leaves_what_came_meanwhile(jobs):
    row = ("face.png", "talk.mp4", "a.mp4", "")
    assert jobs(row).done == 1
    (jobs.folder / "a.mp4").unlink()

    def come(done, total, note=""):  # first when the network is there
        (jobs.folder / "a.mp4").write_text("precious")

    report = jobs(row, progress=come)
    assert report.failed == 1
    assert (jobs.folder / "a.mp4").read_text() == "precious"
    last = (jobs.folder / "jobs.csv.report.jsonl").read_text("utf-8").splitlines()[-1]
    assert "a.mp4" in json.loads(last)["error"]


def never(*said, **more):
    raise AssertionError(f"work had begun: {said}")
