"""`mtanimate data prepare` as a user runs it."""

import csv
import json
import os
import signal

import numpy as np
import pytest
from commands import ffmpeg, interrupted, run_here
from drawn_face import scene
from forks import run
from golden import SHARED
from telling import told, write_telling_video

from mtanimate.data.clips import find_clips
from mtanimate.faces.detection import find_faces
from mtanimate.video import VideoReader, VideoWriter

HEADER = "video_id,start,end,bbox,fps,width,height,partition,person_id"
TALKING_HEAD = SHARED / "data" / "raw-examples" / "talking-head.mp4"
NAMES = [f"v{number}" for number in range(6)]


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Six raw videos of 40 frames."""
    folder = tmp_path_factory.mktemp("raw videos ü")
    first = write_telling_video(folder / f"{NAMES[0]}.mp4").read_bytes()
    for name in NAMES[1:]:
        (folder / f"{name}.mp4").write_bytes(first)
    return folder


def table(folder, *lines, header=HEADER):
    path = folder / "metadata.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


@pytest.fixture
def metadata(tmp_path):
    """Two clips of each video, of a person each: frames 5 to 29, and 20 to 39 of another square, for testing."""
    lines = [
        line
        for name in NAMES
        for line in (
            f"{name},5,30,20-10-100-90,25,160,120,train,p-{name}",
            f"{name},40,80,80-60-240-140,50,320,240,test,p-{name}",
        )
    ]
    return table(tmp_path, *lines)


def manifest(out):
    with (out / "manifest.csv").open(newline="") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def whole_clips(out):
    """The clips that data sets find; each is checked to be whole."""
    found = sorted(path for path in out.rglob("*.mp4"))
    for path in found:
        assert VideoReader(path).frame_count == {"train": 25, "test": 20}[path.parent.name]
    return found


def one_line(done, code):
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("mtanimate: ")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_the_right_frames_and_the_right_squares(raw, metadata, tmp_path):
    out = tmp_path / "clips ü"
    done = run("data", "prepare", raw, "--out", out, "--metadata", metadata, "--size", 80, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["videos"], result["written"], result["already_there"], result["skipped"]) == (6, 12, 0, {})
    assert "6 of 6 videos" in done.stderr
    assert len(whole_clips(out)) == 12
    numbers, square = told(out / "train" / "p-v3#v3#000005#000030.mp4")
    assert numbers == list(range(5, 30))
    assert square == pytest.approx((20, 10, 80), abs=2)
    numbers, square = told(out / "test" / "p-v3#v3#000040#000080.mp4")
    assert numbers == list(range(20, 40))
    assert square == pytest.approx((40, 10, 80), abs=2)  # 80 x 40, enlarged about its middle
    assert {clip.identity for clip in find_clips(out / "test")} == {f"p-{name}" for name in NAMES}
    rows = manifest(out)
    assert rows.keys() == {path.relative_to(out).as_posix() for path in whole_clips(out)}
    assert rows["test/p-v0#v0#000040#000080.mp4"] == {
        "file": "test/p-v0#v0#000040#000080.mp4", "identity": "p-v0", "partition": "test", "source": "v0.mp4",
        "first_frame": "20", "end_frame": "40", "x": "40", "y": "10", "side": "80", "size": "80", "fps": "25",
        "frames": "20",
    }  # fmt: skip
    again = run("data", "prepare", raw, "--out", out, "--metadata", metadata, "--size", 80, "--quiet")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_ended_goes_on(raw, metadata, tmp_path, signal_number):
    out = tmp_path / "out"
    arguments = ("data", "prepare", raw, "--out", out, "--metadata", metadata, "--size", 64, "--workers", 1)
    begun = lambda: len(list(out.glob("t*/*.mp4"))) >= 2  # noqa: E731
    code, stderr = interrupted(signal_number, begun, *arguments, "--quiet")
    first = {path: path.stat().st_mtime_ns for path in whole_clips(out)}
    assert 2 <= len(first) < 12
    if signal_number == signal.SIGINT:
        assert (code, stderr) == (130, "mtanimate: interrupted\n")
        assert len(manifest(out)) == len(first)
        assert not list(out.rglob("*.part"))
    left = out / "train" / ".left-mtanimate-0123abcd-1-1-12345678.part"  # another machine's, long ago
    left.write_text("half a clip")
    os.utime(left, (0, 0))
    done = run(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["written"], result["already_there"]) == (12 - len(first), len(first))
    assert {path: path.stat().st_mtime_ns for path in first} == first
    assert len(whole_clips(out)) == 12
    assert manifest(out).keys() == {path.relative_to(out).as_posix() for path in whole_clips(out)}
    assert not [path for path in out.rglob(".*") if path.is_file()]


def test_a_corrupt_and_a_missing_video_among_good_ones(raw, metadata, tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    content = (raw / "v0.mp4").read_bytes()
    for name in NAMES[:4]:
        (folder / f"{name}.mp4").write_bytes(content)
    (folder / "v4.mp4").write_bytes(content[: len(content) // 2])
    done = run("data", "prepare", folder, "--out", tmp_path / "out", "--metadata", metadata, "--size", 64)
    assert done.returncode == 0
    assert "skipped v4: " in done.stderr
    assert "skipped v5: the raw video is missing" in done.stderr
    assert "8 clips, 8 of them new; 2 skipped" in done.stdout
    assert len(whole_clips(tmp_path / "out")) == 8


@pytest.mark.parametrize(
    ("header", "lines", "said"),
    [
        (HEADER, ["v0,5,30,20-10-100-90,25,160,120,train,p", "v1,5,30,20-10,25,160,120,train,p"], "line 3"),
        ("video,start,end", ["v0,5,30"], "no column video_id, bbox"),
        (HEADER, [], "lists no clips"),
    ],
)
def test_a_wrong_csv(raw, tmp_path, header, lines, said):
    path = table(tmp_path, *lines, header=header)
    done = run_here("data", "prepare", raw, "--out", tmp_path / "out", "--metadata", path)
    one_line(done, 2)
    assert said in done.stderr
    assert str(path) in done.stderr
    assert not (tmp_path / "out").exists()


def test_other_wrong_input(raw, metadata, tmp_path):
    one_line(run_here("data", "prepare", tmp_path / "none", "--out", tmp_path / "out"), 2)
    one_line(run_here("data", "prepare", raw, "--out", raw), 2)
    one_line(run_here("data", "prepare", raw, "--out", tmp_path / "out", "--metadata", metadata, "--size", 65), 2)
    assert not (tmp_path / "out").exists()
    (tmp_path / "dlib.py").write_text("raise ImportError")
    without = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = run("data", "prepare", raw, "--out", tmp_path / "out", env=without)
    one_line(done, 2)
    assert "pip install 'mtanimate[faces]'" in done.stderr
    done = run("data", "prepare", raw, "--out", tmp_path / "out", "--metadata", metadata, "--size", 64, env=without)
    assert done.returncode == 0  # a CSV needs no dlib


def test_a_full_disk(raw, metadata, small_disk):
    done = run("data", "prepare", raw, "--out", small_disk / "out", "--metadata", metadata, "--quiet")
    one_line(done, 1)
    assert "disk is full" in done.stderr or "No space" in done.stderr
    assert not list(small_disk.rglob("*.mp4"))
    assert not list(small_disk.rglob("*.part"))


def test_faces_are_followed(tmp_path):
    (tmp_path / "raw").mkdir()
    with VideoWriter(tmp_path / "raw" / "ann.mp4", fps=25, width=480, height=320) as writer:
        for number in range(40):
            writer.write(scene(480, 320, (60 + number, 80, 160))[None])
    done = run("data", "prepare", tmp_path / "raw", "--out", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["written"] == 1
    ((_, row),) = manifest(tmp_path / "out").items()
    assert (row["identity"], row["frames"], row["size"]) == ("ann", "40", "256")
    clip = VideoReader(tmp_path / "out" / row["file"])
    shares = [face.width / 256 for frame in clip.frames([0, 20, 39]) for face in find_faces(frame)]
    assert len(shares) == 3
    assert 0.4 < np.median(shares) < 0.6


@pytest.mark.skipif(not TALKING_HEAD.is_file(), reason=f"no raw talking head at {TALKING_HEAD}")
def test_a_real_talking_head(tmp_path):
    """Two seconds of 1080 x 1920: a clip in which the face fills half and stays in the middle."""
    (tmp_path / "raw").mkdir()
    ffmpeg("-i", TALKING_HEAD, "-frames:v", 50, "-crf", 15, "-preset", "ultrafast", tmp_path / "raw" / "ann.mp4")
    done = run("data", "prepare", tmp_path / "raw", "--out", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    ((file, row),) = manifest(tmp_path / "out").items()
    clip = VideoReader(tmp_path / "out" / file)
    assert (clip.width, clip.height, clip.fps, clip.has_audio) == (256, 256, 25, False)
    assert clip.frame_count == int(row["frames"]) == 50
    faces = [find_faces(frame) for frame in clip.frames(range(0, 50, 10))]
    assert [len(found) for found in faces] == [1] * 5
    assert 0.42 < np.median([found[0].width / 256 for found in faces]) < 0.58
    middles = np.median([found[0].centre for found in faces], axis=0) / 256
    assert middles == pytest.approx([0.5, 0.53], abs=0.06)
