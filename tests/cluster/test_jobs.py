"""`mtanimate animate --jobs --cluster`: the same rows, performed by workers on other nodes."""

import json
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from clusters import started_cluster
from forks import Running, run

sys.path.insert(0, str(Path(__file__).parents[1] / "end_to_end"))
from commands import installed, write_media

from mtanimate.animation import jobs as jobs_module
from mtanimate.animation.job_rows import JobsFile
from mtanimate.animation.jobs import Asked, ClusterRows, RowOptions
from mtanimate.animation.settings import Settings
from mtanimate.reading import MAX_PIXELS
from mtanimate.video import VideoReader

pytest.importorskip("ray", reason="a cluster needs Ray: pip install 'mtanimate[cluster]'")

HEAD = "source,driving,out,end,crop,driving-crop\n"


@pytest.fixture(scope="session")
def media(tmp_path_factory):
    return write_media(tmp_path_factory.mktemp("cluster media"), 8)


@pytest.fixture
def folder(media, tmp_path):
    for name in ("face.png", "talk.mp4", "tiny.safetensors"):
        (tmp_path / name).write_bytes((media / name).read_bytes())
    return tmp_path


def write_rows(folder, *rows):
    (folder / "jobs.csv").write_text(HEAD + "".join(f"{row},none,none\n" for row in rows), "utf-8")


def options(folder, address, *others):
    checkpoint = folder / "tiny.safetensors"
    return ("animate", "--jobs", folder / "jobs.csv", "--checkpoint", checkpoint, "--cluster", address, *others)


def perform(folder, address, *others):
    return run(*options(folder, address, "--cores", "1", "--precision", "fp32", "--json", *others))


def report_of(folder):
    report = folder / "jobs.csv.report.jsonl"
    return [json.loads(line) for line in report.read_text("utf-8").splitlines()] if report.exists() else []


def test_rows_are_performed_once_and_a_bad_one_is_that_rows(ray_cluster, folder):
    """By the same command without a cluster, they are skipped: the report is the same."""
    (folder / "broken.mp4").write_bytes(b"no video" * 100)
    write_rows(folder, "face.png,talk.mp4,a.mp4,0.2", "face.png,broken.mp4,b.mp4,0.2", "face.png,talk.mp4,c/,0.2")
    done = perform(folder, ray_cluster.address)
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout) | {"report": ""} == {"done": 2, "skipped": 0, "failed": 1, "report": ""}
    assert [line for line in done.stderr.splitlines() if line.startswith("line 3: ")]
    assert VideoReader(folder / "a.mp4").frame_count == len(list((folder / "c").iterdir())) == 5
    lines = report_of(folder)
    assert Counter((entry["line"], entry["status"]) for entry in lines) == Counter(
        [(2, "begun"), (2, "done"), (3, "begun"), (3, "failed"), (4, "begun"), (4, "done")]
    )
    assert all(entry["node"] for entry in lines)
    (folder / "broken.mp4").write_bytes((folder / "talk.mp4").read_bytes())
    rest = "--checkpoint", folder / "tiny.safetensors", "--precision", "fp32", "--json"
    again = run("animate", "--jobs", folder / "jobs.csv", *rest)
    assert json.loads(again.stdout) | {"report": ""} == {"done": 1, "skipped": 2, "failed": 0, "report": ""}
    alone, by_worker = (np.concatenate([*VideoReader(folder / name).batches(8)]) for name in ("b.mp4", "a.mp4"))
    assert (alone == by_worker).all()


@pytest.mark.slow
def test_wrong_rows_are_named_as_without_a_cluster(ray_cluster, folder):
    write_rows(folder, "face.png,talk.mp4,a.mp4,0.2", "face.png,talk.mp4,b.mp4,soon")
    done = perform(folder, ray_cluster.address)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "line 3: end 'soon': expected a number" in done.stderr
    assert not (folder / "a.mp4").exists()


@pytest.mark.slow
def test_a_checkpoint_that_no_node_has_is_named_once(ray_cluster, folder):
    write_rows(folder, "face.png,talk.mp4,a.mp4,0.2")
    (folder / "tiny.safetensors").write_bytes(b"no weights")
    done = perform(folder, ray_cluster.address)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "node " in done.stderr
    assert "tiny.safetensors" in done.stderr


def test_what_a_node_does_not_see_is_named_with_the_node(media, folder, monkeypatch):
    """A stand-in for another machine: the file goes between the check and the work."""
    monkeypatch.setattr(jobs_module, "this_node", lambda: "10.0.0.7")
    write_rows(folder, "face.png,talk.mp4,a.mp4,0.2")
    (row,) = JobsFile(folder / "jobs.csv", Settings())
    checkpoint = str(folder / "tiny.safetensors")
    given = RowOptions(checkpoint, "cpu", "fp32", "torch", None, False, MAX_PIXELS, None, False)
    (folder / "talk.mp4").unlink()
    (entry,) = ClusterRows(given, None).perform(Asked(row, False), None)
    assert entry["status"] == "failed"
    assert "10.0.0.7" in entry["error"]
    assert "talk.mp4" in entry["error"]


def rows_done(folder):
    return sum(entry["status"] == "done" for entry in report_of(folder))


def wait_for(condition, running):
    deadline = time.monotonic() + 120
    while not condition():
        assert running.process.is_alive(), f"it ended too early: {running.end()}"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_node_and_then_the_driver_are_killed(folder):
    """All rows are done once, all results are whole, and only rows in flight were computed twice."""
    rows, nodes = 16, 2
    write_rows(folder, *(f"face.png,talk.mp4,{number:02}.mp4,0.2" for number in range(rows)))
    with started_cluster(nodes) as cluster:
        given = options(folder, cluster.address, "--cores", "1")
        with Running(*given, "--quiet") as running:
            wait_for(lambda: rows_done(folder) >= rows // 4, running)
            (victim,) = cluster.worker_nodes
            for info in victim.all_processes["raylet"]:  # with it go its workers, as with the power
                os.kill(info.process.pid, signal.SIGKILL)
            wait_for(lambda: rows_done(folder) >= rows // 2, running)
            running.process.kill()
        again = installed(*given)  # it takes seconds, in which the first one's workers end
    assert again.returncode == 0, again.stderr
    lines = report_of(folder)
    assert sorted(entry["line"] for entry in lines if entry["status"] == "done") == [*range(2, rows + 2)]
    assert sum(entry["status"] == "begun" for entry in lines) <= rows + 1 + nodes  # the dead node's, and the driver's
    assert not [entry for entry in lines if entry["status"] == "failed"]
    assert all(VideoReader(folder / f"{number:02}.mp4").frame_count == 5 for number in range(rows))


@pytest.mark.slow
def test_ctrl_c_leaves_a_report_from_which_the_command_goes_on(ray_cluster, folder):
    rows = 12
    write_rows(folder, *(f"face.png,talk.mp4,{number:02}.mp4,0.2" for number in range(rows)))
    with Running(*options(folder, ray_cluster.address, "--cores", "1", "--quiet")) as running:
        wait_for(lambda: rows_done(folder) >= 2, running)
        os.kill(running.process.pid, signal.SIGINT)
        done = running.end(60)
    assert done.returncode == 130, done.stderr
    assert done.stderr == "mtanimate: interrupted\n"
    again = perform(folder, ray_cluster.address)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["skipped"] >= 2
    assert len(list(folder.glob("*.mp4"))) == rows + 1
    assert not list(folder.glob(".*"))
