"""Raw videos become clips once, whatever happens on the way."""

import csv
import subprocess
from fractions import Fraction

import pytest
from drawn_face import FACE, scene
from telling import told, write_telling_video

from mtanimate.data import preparation as preparing
from mtanimate.data.clips import find_clips
from mtanimate.data.planning import plan_by_face
from mtanimate.data.preparation import prepare
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.faces.detection import find_faces
from mtanimate.video import VideoReader, VideoWriter
from mtanimate.video.ffmpeg import executable

HEADER = "video_id,start,end,bbox,fps,width,height,partition"


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Three telling videos a, b, c; their box is the left half, twice as large as they are."""
    folder = tmp_path_factory.mktemp("raw")
    for name in "abc":
        write_telling_video(folder / f"{name}.mp4")
    return folder


def table(folder, *lines):
    path = folder / "metadata.csv"
    path.write_text("\n".join([HEADER, *lines]) + "\n")
    return path


def line(video, start, end, partition="train", box="0-0-160-160"):
    return f"{video},{start},{end},{box},25,320,240,{partition}"


def manifest(out):
    with (out / "manifest.csv").open(newline="") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def times(out):
    return {path.name: path.stat().st_mtime_ns for path in out.rglob("*.mp4")}


def test_a_csv_makes_the_clips_it_lists(raw, tmp_path):
    metadata = table(tmp_path, line("a#ann", 5, 30), line("a#ann", 30, 40), line("b#bob", 0, 20, "test"))
    result = prepare(raw, tmp_path / "out", metadata=metadata, size=64, workers=2)
    assert (result.videos, result.written, result.already_there, result.skipped) == (2, 3, 0, {})
    (clip,) = find_clips(tmp_path / "out" / "test")
    assert (clip.path.name, clip.identity) == ("bob#b#000000#000020.mp4", "bob")
    first, second = find_clips(tmp_path / "out" / "train")
    assert first.identity == second.identity == "ann"
    assert told(first.path)[0] == list(range(5, 30))
    rows = manifest(tmp_path / "out")
    assert len(rows) == 3
    assert rows["train/ann#a#000005#000030.mp4"]["source"] == "a.mp4"
    assert [rows["train/ann#a#000005#000030.mp4"][key] for key in ("x", "y", "side")] == ["0", "0", "80"]


def test_a_second_run_makes_nothing_again(raw, tmp_path):
    metadata = table(tmp_path, line("a", 5, 30), line("b", 0, 20))
    prepare(raw, tmp_path / "out", metadata=metadata, size=64)
    before = times(tmp_path / "out")
    removed = tmp_path / "out" / "train" / "a#000005#000030.mp4"
    removed.unlink()
    result = prepare(raw, tmp_path / "out", metadata=metadata, size=64)
    assert (result.written, result.already_there) == (1, 1)
    after = times(tmp_path / "out")
    assert after.keys() == before.keys()
    assert [name for name in after if after[name] != before[name]] == [removed.name]


def test_what_changed_is_made_again_and_more_is_added(raw, tmp_path):
    out = tmp_path / "out"
    prepare(raw, out, metadata=table(tmp_path, line("a", 5, 30), line("b", 0, 20)), size=64)
    changed = table(tmp_path, line("a", 5, 30, box="100-0-260-160"), line("c", 0, 20))
    result = prepare(raw, out, metadata=changed, size=64)
    assert (result.written, result.already_there) == (2, 0)
    assert told(out / "train" / "a#000005#000030.mp4")[1][0] == pytest.approx(50, abs=2)
    assert len(manifest(out)) == 3
    result = prepare(raw, out, metadata=changed, size=96)
    assert result.written == 2
    assert VideoReader(out / "train" / "a#000005#000030.mp4").width == 96


def test_missing_and_broken_videos_are_named_and_counted(raw, tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    content = (raw / "a.mp4").read_bytes()
    (folder / "a.mp4").write_bytes(content)
    (folder / "b.mp4").write_bytes(content[: len(content) // 2])
    metadata = table(tmp_path, line("a", 0, 20), line("a", 900, 920), line("b", 0, 20), line("gone", 0, 20))
    said = []
    result = prepare(folder, tmp_path / "out", metadata=metadata, size=64, log=said.append)
    assert (result.videos, result.written) == (3, 1)
    assert sum(result.skipped.values()) == 3
    assert result.skipped["the raw video is missing"] == 1
    assert any(line.startswith("skipped b: is ") and "cut off" in line for line in said)
    assert any(line.startswith("skipped gone: ") for line in said)
    assert any(line.startswith("skipped a: fewer than two frames") for line in said)
    assert list(manifest(tmp_path / "out")) == ["train/a#000000#000020.mp4"]


def test_nothing_at_all_is_a_failure(raw, tmp_path):
    with pytest.raises(MTAnimateError, match="the raw video is missing"):
        prepare(raw, tmp_path / "out", metadata=table(tmp_path, line("gone", 0, 20)))


def test_wrong_options_leave_no_folder(raw, tmp_path):
    for options, said in (({"size": 65}, "even"), ({"metadata": tmp_path / "none.csv"}, "does not exist")):
        with pytest.raises(InputError, match=said):
            prepare(raw, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="--out"):
        prepare(raw, tmp_path / "file", metadata=table(tmp_path, line("a", 0, 20)))


def test_an_interruption_ends_what_is_under_way(raw, tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "a.mp4").write_bytes((raw / "a.mp4").read_bytes())
    long = ["-f", "lavfi", "-i", "testsrc2=s=640x480:d=40", "-c:v", "libx264", "-preset", "ultrafast"]
    subprocess.run([executable(), "-loglevel", "error", *long, folder / "long.mp4"], check=True)
    metadata = table(tmp_path, line("a", 0, 20), line("long", 0, 1000))

    def progress(done, total, note=""):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(folder, tmp_path / "out", metadata=metadata, size=512, workers=2, progress=progress)
    assert list(manifest(tmp_path / "out")) == ["train/a#000000#000020.mp4"]
    assert sorted(path.name for path in tmp_path.rglob("*#*")) == ["a#000000#000020.mp4"]
    assert not list(tmp_path.rglob("*.part"))


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """raw/talk.mp4: a face for 50 frames, away for 30, elsewhere for 50, and then for 10. raw/wall.mp4: no face."""
    folder = tmp_path_factory.mktemp("faces") / "raw"
    folder.mkdir()
    with VideoWriter(folder / "talk.mp4", fps=Fraction(30000, 1001), width=480, height=320) as writer:
        for place, count in (((40, 60, 160), 50), (None, 30), ((250, 90, 180), 50), ((30, 100, 150), 10)):
            picture = scene(480, 320, *([place] if place else []))
            for _ in range(count):
                writer.write(picture[None])
    with VideoWriter(folder / "wall.mp4", fps=Fraction(25), width=320, height=240) as writer:
        writer.write(scene(320, 240)[None].repeat(40, axis=0))
    return folder


def test_a_face_is_followed(faces, tmp_path, monkeypatch):
    asked = []

    def counted(raw, source, *rest):
        asked.append(source)
        return plan_by_face(raw, source, *rest)

    monkeypatch.setattr(preparing, "plan_by_face", counted)
    result = prepare(faces, tmp_path, size=128)
    assert (result.written, result.videos) == (2, 2)
    assert result.skipped == {"no face was found": 1, "a piece with a face is shorter than 32 frames": 1}
    rows = manifest(tmp_path)
    assert list(rows) == ["train/talk__00.mp4", "train/talk__01.mp4"]
    spans = [(int(row["first_frame"]), int(row["end_frame"])) for row in rows.values()]
    assert spans[0] == (0, 49)
    assert 80 <= spans[1][0] <= 84
    assert spans[1][1] - 1 <= 130
    for file, (x, y, drawn) in zip(rows, ((40, 60, 160), (250, 90, 180)), strict=True):
        clip = VideoReader(tmp_path / file)
        assert clip.fps == Fraction(30000, 1001)
        (face,) = find_faces(clip.frames([20])[0])
        assert 0.4 < face.width / 128 < 0.6
        left, top, side = (int(rows[file][key]) for key in ("x", "y", "side"))
        assert left + side / 2 == pytest.approx(x + FACE[0] * drawn, abs=0.1 * drawn)
        assert top + 0.53 * side == pytest.approx(y + FACE[1] * drawn, abs=0.1 * drawn)

    assert sorted(asked) == ["talk.mp4", "wall.mp4"]
    again = prepare(faces, tmp_path, size=128)
    assert (again.written, again.already_there, again.skipped) == (0, 2, result.skipped)
    (tmp_path / "train" / "talk__01.mp4").unlink()
    assert prepare(faces, tmp_path, size=128).written == 1
    assert len(asked) == 2  # nothing was looked for again, a video without a face neither


def test_a_folder_for_each_person(faces, tmp_path):
    (tmp_path / "raw" / "ann").mkdir(parents=True)
    (tmp_path / "raw" / "ann" / "1.mp4").write_bytes((faces / "talk.mp4").read_bytes())
    prepare(tmp_path / "raw", tmp_path / "out", size=64)
    names = [(clip.path.name, clip.identity) for clip in find_clips(tmp_path / "out" / "train")]
    assert names == [("ann#1__00.mp4", "ann"), ("ann#1__01.mp4", "ann")]
