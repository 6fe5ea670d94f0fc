"""`mtanimate animate --jobs`: many at once."""

import json
import threading

import pytest
from commands import run_here

from mtanimate.animation import attending
from mtanimate.animation.jobs import run_jobs
from mtanimate.video import VideoReader


@pytest.fixture
def jobs(media, tmp_path):
    """Writes a jobs file with these rows below source, driving, out, end, crop, driving-crop."""
    for name in ("face.png", "talk.mp4"):
        (tmp_path / name).write_bytes((media / name).read_bytes())

    def write(*rows: str, head: str = "source,driving,out,end,crop,driving-crop"):
        (tmp_path / "jobs.csv").write_text("\n".join([head, *rows]) + "\n", "utf-8")
        return tmp_path / "jobs.csv"

    return write


def perform(media, file, *options):
    return run_here("animate", "--jobs", file, "--checkpoint", media / "tiny.safetensors", *options)


def row(out: str, end: str = "0.2", driving: str = "talk.mp4") -> str:
    return f"face.png,{driving},{out},{end},none,none"


@pytest.mark.parametrize("workers", [1, 2])
def test_rows_are_made_and_not_made_again(workers, media, jobs, tmp_path):
    file = jobs(row("a.mp4"), row("b ü.mkv", "0.4"), row("pictures/"))
    done = perform(media, file, "--json", "--workers", workers)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) | {"report": ""} == {"done": 3, "skipped": 0, "failed": 0, "report": ""}
    assert VideoReader(tmp_path / "a.mp4").frame_count == 6
    assert VideoReader(tmp_path / "b ü.mkv").frame_count == 12
    assert len(list((tmp_path / "pictures").iterdir())) == 6
    written = (tmp_path / "a.mp4").stat().st_mtime_ns
    again = perform(media, file, "--json")
    assert json.loads(again.stdout)["skipped"] == 3
    assert (tmp_path / "a.mp4").stat().st_mtime_ns == written
    (tmp_path / "a.mp4").unlink()
    assert json.loads(perform(media, file, "--json").stdout)["done"] == 1


def test_a_job_whose_report_was_torn_is_done(media, jobs, tmp_path):
    """A run that was killed while it wrote, however much of the last line: its result is whole, and stays."""
    file = jobs(row("a.mp4"), row("b.mp4"))
    assert perform(media, file, "--quiet").returncode == 0
    report = tmp_path / "jobs.csv.report.jsonl"
    *_, last = report.read_bytes().splitlines(keepends=True)
    for kept in (0, 1, len(last) // 2, len(last) - 1):
        report.write_bytes(report.read_bytes().removesuffix(last) + last[:kept])
        again = run_jobs(file, checkpoint="none is read")
        assert (again.done, again.skipped, again.failed) == (0, 2, 0)
        assert report.read_bytes().endswith(b"\n")


def test_options_beside_the_file_are_the_rows_defaults(media, jobs, tmp_path):
    """A cell that is not empty says otherwise."""
    file = jobs(
        "face.png,talk.mp4,a.mp4,,", "face.png,talk.mp4,b.mp4,0.4,no", head="source,driving,out,end,compare"
    )  # fmt: skip
    options = ("--end", "0.2", "--crop", "none", "--driving-crop", "none", "--compare", "--no-audio")
    done = perform(media, file, *options)
    assert done.returncode == 0, done.stderr
    first, second = (VideoReader(tmp_path / name) for name in ("a.mp4", "b.mp4"))
    assert (first.frame_count, second.frame_count) == (6, 12)
    assert (first.width, second.width) == (3 * 64, 64)
    assert not first.has_audio
    assert not second.has_audio
    assert perform(media, file, *options, "--quiet").returncode == 0  # all is done


@pytest.mark.parametrize("between", [";", "\t"])
def test_a_table_of_a_spreadsheet(between, media, jobs, tmp_path):
    """With the decimal commas that come with semicolons."""
    head, cells = ("source", "driving", "out", "end", "crop", "driving-crop"), row("a.mp4", "0-2").split(",")
    file = jobs(between.join(cells).replace("0-2", "0,2"), head=between.join(head))
    done = perform(media, file)
    assert done.returncode == 0, done.stderr
    assert VideoReader(tmp_path / "a.mp4").frame_count == 6


def test_a_table_of_parquet(media, jobs, tmp_path):
    """Its numbers stay numbers, and an empty cell is one."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    jobs()
    names = [f"{number}.mp4" for number in range(2)]
    columns = {"source": ["face.png"] * 2, "driving": ["talk.mp4"] * 2, "out": names, "end": [0.2, None]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "jobs.parquet")
    done = perform(media, tmp_path / "jobs.parquet", "--json", "--crop", "none", "--driving-crop", "none", "--end", 0.4)
    assert json.loads(done.stdout)["done"] == 2, done.stderr
    assert [VideoReader(tmp_path / name).frame_count for name in names] == [6, 12]


def test_a_file_that_is_no_parquet_is_told(media, jobs, tmp_path):
    pytest.importorskip("pyarrow")
    jobs(row("a.mp4")).rename(tmp_path / "jobs.parquet")
    done = perform(media, tmp_path / "jobs.parquet")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "is not a Parquet file" in done.stderr


def test_a_row_that_fails_does_not_stop_the_others(media, jobs, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video" * 100)
    file = jobs(row("a.mp4"), row("b.mp4", driving="broken.mp4"), row("c.mp4"))
    done = perform(media, file, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["failed"] == 1
    assert "line 3: " in done.stderr
    report = [json.loads(line) for line in (tmp_path / "jobs.csv.report.jsonl").read_text("utf-8").splitlines()]
    assert [(entry["line"], entry["status"]) for entry in report] == [
        *((2, "begun"), (2, "done"), (3, "begun"), (3, "failed"), (4, "begun"), (4, "done")),
    ]
    assert "broken.mp4" in next(entry["error"] for entry in report if entry["status"] == "failed")


def test_a_row_that_hangs_does_not_stop_the_others(media, jobs, tmp_path, monkeypatch):
    """A stand-in for a decoder that never comes back."""
    hangs, for_ever = VideoReader.batches, threading.Event()

    def batches(reader, *arguments):
        if reader.path.name == "hangs.mp4":
            for_ever.wait()
        return hangs(reader, *arguments)

    monkeypatch.setattr(VideoReader, "batches", batches)
    monkeypatch.setattr(attending, "LONGEST_SILENCE", 4.0)
    (tmp_path / "hangs.mp4").write_bytes((media / "talk.mp4").read_bytes())
    done = perform(media, jobs(row("a.mp4"), row("b.mp4", driving="hangs.mp4"), row("c.mp4")), "--json")
    for_ever.set()
    assert done.returncode == 1
    assert json.loads(done.stdout) | {"report": ""} == {"done": 2, "skipped": 0, "failed": 1, "report": ""}
    assert "line 3: " in done.stderr
    report = [json.loads(line) for line in (tmp_path / "jobs.csv.report.jsonl").read_text("utf-8").splitlines()]
    assert [entry["line"] for entry in report if entry["status"] == "failed"] == [3]
    assert VideoReader(tmp_path / "c.mp4").frame_count == 6


def test_a_file_that_is_there_is_not_overwritten(media, jobs, tmp_path):
    (tmp_path / "a.mp4").write_text("precious")
    assert perform(media, jobs(row("a.mp4")), "--quiet").returncode == 1
    assert (tmp_path / "a.mp4").read_text() == "precious"


@pytest.mark.parametrize(
    ("rows", "head", "said"),
    [
        ([], None, "is empty"),
        ([row("a.mp4"), row("b.mp4", "soon")], None, "line 3: end 'soon': expected a number"),
        ([row("a.mp4"), row("b.mp4", driving="tak.mp4")], None, "line 3: "),
        ([row("a.mp4"), row("a.mp4")], None, "line 3: line 2 writes"),
        (["face.png,talk.mp4,a.mp4,1"], "source,driving,out,smoth", "line 2: unknown column 'smoth'"),
        (["face.png|talk.mp4|a.mp4"], "source|driving|out", "line 2: unknown column 'source|driving|out'"),
        (["face.png,talk.mp4"], "source,driving", "line 2: a job needs a source and an out"),
        (["face.png,talk.mp4,a.mp4,1,2"], "source,driving,out", "line 2: it has more or fewer fields"),
        (["face.png,talk.mp4,a.mp4,absolute,2"], "source,driving,out,mode,strength", "line 2: --strength"),
    ],
)
def test_what_is_wrong_is_named_by_line_before_anything_is_made(rows, head, said, media, jobs, tmp_path):
    file = jobs(*rows, head=head) if head else jobs(*rows)
    done = perform(media, file)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "a.mp4").exists()


def test_files_and_jobs_are_not_both_given(media, jobs, tmp_path):
    done = perform(media, jobs(row("a.mp4")), "--source", media / "face.png")
    assert done.returncode == 2
    assert "leave out" in done.stderr
