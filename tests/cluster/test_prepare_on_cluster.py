"""`mtanimate data prepare --cluster`: the same clips, planned and cut by workers on other nodes."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from clusters import kill_a_worker
from drawn_face import scene
from forks import Running, run
from telling import write_telling_video
from tiny import write_video

pytest.importorskip("ray", reason="a cluster needs Ray: pip install 'mtanimate[cluster]'")

HEADER = "video_id,start,end,bbox,fps,width,height,partition\n"
VIDEOS = 10


@pytest.fixture(scope="session")
def raw(tmp_path_factory) -> Path:
    """In `listed`, videos of 40 frames; in `faces`, one of a face, and what is no video. `clips.csv`: 2 of each."""
    folder = tmp_path_factory.mktemp("raw ü")
    (folder / "listed").mkdir()
    video = write_telling_video(folder / "listed" / "v0.mp4").read_bytes()
    lines = []
    for number in range(VIDEOS):
        (folder / "listed" / f"v{number}.mp4").write_bytes(video)
        lines += [f"v{number},{start},{start + 20},20-10-100-90,25,160,120,train\n" for start in (2, 15)]
    lines.append("missing,0,20,20-10-100-90,25,160,120,train\n")
    (folder / "clips.csv").write_text(HEADER + "".join(lines))
    write_video(folder / "faces" / "ann.mp4", np.stack([scene(240, 180, (20 + t, 40, 100)) for t in range(36)]))
    (folder / "faces" / "broken.mp4").write_bytes(b"no video at all" * 99)
    return folder


def command(raw: Path, videos: str, out: Path, *options: object) -> list[object]:
    listed = ["--metadata", "clips.csv"] if videos == "listed" else []
    return ["data", "prepare", videos, "--out", out, "--size", 64, "--json", *listed, *options]


def prepare(raw: Path, videos: str, out: Path, *options: object) -> dict:
    """Relative paths: they are the same for the workers."""
    done = run(*command(raw, videos, out, *options), cwd=raw)
    assert done.returncode == 0, done.stderr
    return counts(json.loads(done.stdout))


def counts(result: dict) -> dict:
    return {name: result[name] for name in ("videos", "written", "already_there", "skipped")}


def content(folder: Path) -> dict[str, object]:
    """Of its files; of the journal, the lines in any order."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return files | {"journal.jsonl": sorted(files["journal.jsonl"].splitlines())}


def clips(folder: Path) -> dict[str, object]:
    """All but the journal, in which a run that goes on adds lines."""
    return {name: made for name, made in content(folder).items() if name != "journal.jsonl"}


def on_cluster(cluster) -> list[object]:
    return ["--cluster", cluster.address, "--cores", 1]


def test_the_same_clips(ray_cluster, raw, tmp_path):
    """A file of the user's with a clip's name stays, and is named."""
    for name in ("alone", "spread"):
        (tmp_path / name / "train").mkdir(parents=True)
        (tmp_path / name / "train" / "v3#000002#000022.mp4").write_text("the user's own")
    alone = prepare(raw, "listed", tmp_path / "alone")
    spread = prepare(raw, "listed", tmp_path / "spread", *on_cluster(ray_cluster))
    assert {name: spread[name] for name in ("videos", "written")} == {"videos": VIDEOS + 1, "written": 2 * VIDEOS - 2}
    assert str(spread).replace("spread", "alone") == str(alone)
    assert content(tmp_path / "spread") == content(tmp_path / "alone")
    assert (tmp_path / "spread" / "train" / "v3#000002#000022.mp4").read_text() == "the user's own"


def test_faces_are_followed_and_a_finished_video_is_not_planned_again(ray_cluster, raw, tmp_path):
    pytest.importorskip("dlib", reason="faces need dlib: pip install 'mtanimate[faces]'")
    alone = prepare(raw, "faces", tmp_path / "alone")
    assert alone["written"] == 1
    assert prepare(raw, "faces", tmp_path / "spread", *on_cluster(ray_cluster)) == alone
    assert content(tmp_path / "spread") == content(tmp_path / "alone")
    (clip,) = (tmp_path / "spread" / "train").iterdir()
    clip.unlink()
    assert prepare(raw, "faces", tmp_path / "spread", *on_cluster(ray_cluster)) == alone
    assert clips(tmp_path / "spread") == clips(tmp_path / "alone")


@pytest.mark.skipif(sys.platform != "linux", reason="finds workers in Linux's /proc")
def test_a_worker_and_then_the_driver_are_killed(ray_cluster, raw, tmp_path):
    out = tmp_path / "spread"
    given = command(raw, "listed", out, *on_cluster(ray_cluster))
    with Running(*given, cwd=raw) as running:
        kill_a_worker(ray_cluster, running, lambda: any(out.glob("train/*.mp4")))
        done = len(list(out.glob("train/*.mp4")))
        while running.process.is_alive() and len(list(out.glob("train/*.mp4"))) < done + 4:
            running.process.join(0.01)
        running.process.kill()
    result = prepare(raw, "listed", out, *on_cluster(ray_cluster))
    assert result["written"] + result["already_there"] == 2 * VIDEOS
    assert result["already_there"] >= done
    assert result["skipped"] == {"the raw video is missing": 1}
    prepare(raw, "listed", tmp_path / "alone")
    assert [name for name in content(out) if "/." in name] == []
    made, expected = (
        {k: v for k, v in content(folder).items() if k != "journal.jsonl"} for folder in (out, tmp_path / "alone")
    )
    assert made == expected
