"""`animate --jobs` where sources, driving videos and results are at URLs."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "end_to_end"))
from commands import write_media

from mtanimate.animation.jobs import run_jobs
from mtanimate.errors import InputError
from mtanimate.video import VideoReader


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    return write_media(tmp_path_factory.mktemp("row media"), 5)


@pytest.fixture
def perform(media, store, tmp_path):
    """Performs rows of a source, a driving video and an out; a source and a driving video are in the bucket."""
    for name in ("face.png", "talk.mp4"):
        store.put(f"in/{name}", (media / name).read_bytes())

    def run(*rows, **options):
        (tmp_path / "jobs.csv").write_text("\n".join(["source,driving,out", *map(",".join, rows)]) + "\n", "utf-8")
        given = {"checkpoint": str(media / "tiny.safetensors"), "device": "cpu", "precision": "fp32"}
        said = []
        done = run_jobs(tmp_path / "jobs.csv", crop="none", driving_crop="none", log=said.append, **given | options)
        return done, [line for line in said if line.startswith("line ")]

    return run


FACE, TALK = "s3://clips/in/face.png", "s3://clips/in/talk.mp4"


def entries(tmp_path):
    return [json.loads(line) for line in (tmp_path / "jobs.csv.report.jsonl").read_text("utf-8").splitlines()]


def test_all_three_are_in_a_bucket(perform, store, media, tmp_path):
    rows = (FACE, TALK, "s3://clips/out/a.mp4"), (str(media / "face.png"), TALK, str(tmp_path / "b.mp4"))
    done, said = perform(*rows)
    assert (done.done, done.failed, said) == (2, 0, [])
    (tmp_path / "a.mp4").write_bytes(store.content("out/a.mp4"))
    assert VideoReader(tmp_path / "a.mp4").frame_count == VideoReader(tmp_path / "b.mp4").frame_count == 5
    assert {entry["out"] for entry in entries(tmp_path)} == {"s3://clips/out/a.mp4", str(tmp_path / "b.mp4")}
    again, _ = perform(*rows)
    assert (again.done, again.skipped) == (0, 2)


def test_a_missing_key_and_a_broken_file_are_their_rows_matter(perform, store, tmp_path):
    store.put("in/broken.mp4", b"no video" * 100)
    done, said = perform(
        (FACE, "s3://clips/in/none.mp4", "s3://clips/out/a.mp4"),
        (FACE, "s3://clips/in/broken.mp4", "s3://clips/out/b.mp4"),
        (FACE, TALK, "s3://clips/out/c.mp4"),
    )
    assert (done.done, done.failed) == (1, 2)
    assert [line.partition(":")[0] for line in said] == ["line 2", "line 3"]
    assert "s3://clips/in/none.mp4" in said[0]
    assert [name for name in store.names() if name.startswith("out/")] == ["out/c.mp4"]


def test_what_is_there_stays_and_is_replaced_where_that_is_allowed(perform, store):
    store.put("out/a.mp4", b"precious")
    row = FACE, TALK, "s3://clips/out/a.mp4"
    done, said = perform(row)
    assert done.failed == 1
    assert "exists already" in said[0]
    assert store.content("out/a.mp4") == b"precious"
    assert perform(row, overwrite=True)[0].done == 1
    assert store.content("out/a.mp4") != b"precious"


def test_a_result_that_was_sent_before_the_report_could_tell_is_not_made_again(perform, store, tmp_path):
    """The run was killed between the two."""
    row = FACE, TALK, "s3://clips/out/a.mp4"
    perform(row)
    report = tmp_path / "jobs.csv.report.jsonl"
    report.write_text(report.read_text("utf-8").splitlines(keepends=True)[0], "utf-8")  # it begins
    store.put("out/a.mp4", b"whole, by this row")
    done, _ = perform(row)
    assert done.done == 1
    assert store.content("out/a.mp4") == b"whole, by this row"
    assert [entry["status"] for entry in entries(tmp_path)] == ["begun", "done"]


def test_a_store_that_does_not_answer_is_one_line(perform, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    done, said = perform((FACE, TALK, "s3://clips/out/a.mp4"))
    assert done.failed == 1
    assert len(said) == 1
    assert "s3://clips/" in said[0]


@pytest.mark.parametrize("row", [("ftp://host/a.png", TALK, "a.mp4"), (FACE, TALK, "https://example.org/a.mp4")])
def test_a_url_that_cannot_be_used_is_named_by_its_line_before_any_row(perform, row):
    with pytest.raises(InputError, match="line 3: "):
        perform((FACE, TALK, "s3://clips/out/a.mp4"), row)
