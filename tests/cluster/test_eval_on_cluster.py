"""`mtanimate eval --cluster`: what one process measures, measured by workers on other nodes."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from clusters import kill_a_worker
from drawn_face import scene
from forks import Running, run
from tiny import CONFIG, moving_square, tiny_animator, write_video

from mtanimate.checkpoints.file import write_checkpoint
from mtanimate.data.clips import Clip
from mtanimate.errors import InputError
from mtanimate.evaluation import spreading
from mtanimate.evaluation.run import EvaluationPlan, EvaluationRun
from mtanimate.evaluation.samples import SampleFolders
from mtanimate.evaluation.spreading import ClipOptions, ClusterClips
from mtanimate.evaluation.tasks import Reconstruction
from mtanimate.metrics.detector_pool import DetectorChoice
from mtanimate.metrics.measures import METRICS

pytest.importorskip("ray", reason="a cluster needs Ray: pip install 'mtanimate[cluster]'")


@pytest.fixture(scope="session")
def media(tmp_path_factory) -> Path:
    """tiny.safetensors; `faces`: two people, one in a folder of its own, and what is no video; `long`: squares."""
    folder = tmp_path_factory.mktemp("media ü")
    write_checkpoint(folder / "tiny.safetensors", tiny_animator(), CONFIG, {"steps": 0})
    for name, frames in (("ann__00", 5), ("more/bob__00", 3)):
        write_video(folder / "faces" / f"{name}.mp4", np.stack([scene(64, 64, (t, 4, 50)) for t in range(frames)]))
    (folder / "faces" / "broken.mp4").write_bytes(b"no video at all" * 99)
    for number in range(8):
        write_video(folder / "long" / f"{number}.mp4", moving_square(30, 0.1 * (number + 1)))
    return folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MTANIMATE_CACHE", str(tmp_path / "cache"))


def command(media: Path, clips: str, *options: object) -> list[object]:
    """Relative paths: they are the same for the workers."""
    return ["eval", "--checkpoint", "./tiny.safetensors", "--dataset", clips, "--json", *options]


def evaluate(media: Path, clips: str, *options: object) -> dict:
    done = run(*command(media, clips, *options), cwd=media)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) | {"stderr": done.stderr}


def figures(result: dict) -> dict:
    """All but what changes from run to run."""
    return {key: value for key, value in result.items() if key not in ("stderr", "milliseconds_per_frame", "out")}


def content(folder: Path) -> dict[str, bytes]:
    """Of its files. In those of single clips, without the seconds that they took."""
    found = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "result.json"):
        found[file.relative_to(folder).as_posix()] = file.read_bytes()
        if file.suffix == ".json":
            found[file.relative_to(folder).as_posix()] = json.loads(file.read_bytes()) | {"seconds": None}
    return found


def test_the_result_is_one_machines_to_the_bit(ray_cluster, media, tmp_path):
    """So are strips, videos and frames; and in the order of the clips."""
    pytest.importorskip("dlib", reason="landmarks need dlib: pip install 'mtanimate[eval]'")
    found, same = [], ["--every", 2, "--metrics", "l1,akd"]
    for number, more in enumerate((["--workers", 1], ["--cluster", ray_cluster.address, "--cores", 1])):
        out = tmp_path / str(number)
        kept = ["--videos", out / "v", "--frames", out / "f"]
        found.append((evaluate(media, "faces", "--out", out, *same, *kept, *more), content(out)))
    (alone, files), (spread, files_of_workers) = found
    assert figures(spread) == figures(alone)
    assert files_of_workers == files
    assert len(files) > 10
    assert any("broken.mp4" in line for line in spread["skipped"])
    assert "skipped: faces/broken.mp4" in spread["stderr"]
    again = evaluate(media, "faces", "--out", tmp_path / "1", *same)
    assert "2 of 3 videos were measured before" in again["stderr"]
    assert figures(again) == figures(alone)


@pytest.mark.skipif(sys.platform != "linux", reason="finds workers in Linux's /proc")
@pytest.mark.slow
def test_a_worker_is_killed(ray_cluster, media, tmp_path):
    options = ["--metrics", "l1", "--detector", "none"]
    on_cluster = ["--cluster", ray_cluster.address, "--cores", 1]
    out = tmp_path / "out"
    with Running(*command(media, "long", "--out", out, *options, *on_cluster), cwd=media) as running:
        kill_a_worker(ray_cluster, running, lambda: any(out.glob("videos/*.json")))
        done = running.end()
    assert done.returncode == 0, done.stderr
    assert "was lost" in done.stderr
    alone = evaluate(media, "long", "--out", tmp_path / "alone", *options)
    assert figures(json.loads(done.stdout)) == figures(alone)
    assert content(out) == content(tmp_path / "alone")


def clip_options(media: Path, **changed: object) -> ClipOptions:
    plan = EvaluationPlan("reconstruction", "", (), [METRICS["l1"]], False, gestures=False)
    choice, samples = DetectorChoice("none"), SampleFolders(media / "strips")
    file = media / "tiny.safetensors"
    settings = EvaluationRun(file, plan, choice, 1, "fp32", torch.device("cpu")).settings | changed
    return ClipOptions(str(file), plan, choice, 1, "fp32", "cpu", settings, samples, [media], 1)


def test_what_a_node_does_not_see_is_named_with_the_node(media, monkeypatch):
    """A stand-in for another machine: a file that this one does not see."""
    monkeypatch.setattr(spreading, "this_node", lambda: "10.0.0.7")
    clips = ClusterClips(clip_options(media), None)
    with pytest.raises(InputError, match=r"^node 10\.0\.0\.7: .*elsewhere\.mp4"):
        list(clips.perform(Reconstruction("a", Clip(media / "elsewhere.mp4", "a"), ["l1"]), None))


def test_a_worker_that_would_measure_otherwise_is_refused(media):
    with pytest.raises(InputError, match=r"checkpoint is [0-9a-f]{64}, and another for this run"):
        ClusterClips(clip_options(media, checkpoint="another"), None)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--shard", "1/2", "--cluster", "local"], "--shard 1/2"),
        (["--gpus", "2", "--cluster", "local"], "--gpus 2"),
        (["--cores", "2"], "--cores goes with --cluster"),
        (["--cluster", "nonsense"], "--cluster nonsense"),
    ],
)
def test_options_that_do_not_go_together(options, said, media):
    done = run(*command(media, "long", *options), cwd=media, env=os.environ | {"COLUMNS": "80"})
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
