"""Two runs of one command at one time: one succeeds, the other says why not, and nothing is lost or half written."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from commands import moving_disc
from foreign import FOMM
from foreign import write as write_foreign
from forks import FORK, Running
from lives import write_settings
from telling import write_telling_video
from tiny import tiny_config, write_video

from mtanimate.checkpoints.file import read_checkpoint, write_checkpoint
from mtanimate.config import Config
from mtanimate.data.cache import CacheEntry, open_cache_writer
from mtanimate.data.clips import find_clips
from mtanimate.data.people import MATTE
from mtanimate.evaluation.evaluate import evaluate
from mtanimate.faces.mesh import VERTICES
from mtanimate.files import half_written
from mtanimate.models.animator import Animator
from mtanimate.video import VideoReader

FRAMES = 6  # in 0.2 seconds of the driving video
FAST = ["--precision", "fp32"]  # nothing to be measured first


@dataclass(frozen=True)
class Case:
    """A command. out: what it writes, below its folder, and what a loser names. check: whether all of it is whole.

    waits: for the other, and goes on with what that made, if it ends soon. slow: for the long tests alone.
    """

    arguments: list[object]
    out: str
    check: Callable[[Path], None]
    waits: bool = False
    slow: bool = False


@pytest.fixture(scope="module")
def inputs(media, tmp_path_factory) -> Path:
    """`media`, and what else commands read: clips, raw videos with a CSV, foreign checkpoints, evaluations."""
    folder = tmp_path_factory.mktemp("inputs")
    for name in ("face.png", "talk.mp4", "tiny.safetensors"):
        shutil.copy(media / name, folder)
    for name in ("ann__0", "bob__0"):
        write_video(folder / "clips" / f"{name}.mp4", moving_disc(6))
    (folder / "raw").mkdir()
    write_telling_video(folder / "raw" / "v.mp4")
    (folder / "rows.csv").write_text("video_id,start,end,bbox,fps,width,height\nv,5,30,20-10-100-90,25,160,120\n")
    write_foreign(folder, "fomm")
    write_checkpoint(folder / "fomm.safetensors", Animator(FOMM), Config(FOMM), {})
    for name in ("one", "two"):
        checkpoint = str(folder / "tiny.safetensors")
        evaluate(checkpoint, folder / "clips", metrics="l1", detector="none", out=folder / name, device="cpu")
    with open_cache_writer(folder / "cached", 64) as cache:
        for clip in find_clips(folder / "clips"):
            entry = CacheEntry(clip.digest(), clip.path.name, clip.identity, "train", 0, 0, "25")
            entry = cache.add(entry, [moving_disc(6)])
            cache.add_faces(entry, np.zeros((6, VERTICES, 3), np.int16), np.zeros((6, MATTE, MATTE), np.uint8))
    config = tiny_config(steps=2, precision="fp32", checkpoint_every=2, validation_clips=1)
    write_settings(folder / "train.yaml", config)
    jobs = "source,driving,out,end,crop,driving-crop\nface.png,talk.mp4,{},0.2,none,none\n"
    (folder / "jobs.csv").write_text(jobs.format("result.mp4"))
    return folder


def frames_of(path: Path) -> None:
    assert VideoReader(path).frame_count == FRAMES


def pictures_in(folder: Path) -> None:
    assert [file.name for file in sorted(folder.iterdir())] == [f"{number:07d}.png" for number in range(FRAMES)]


def whole_checkpoint(path: Path) -> None:
    read_checkpoint(path)


def there(*names: str) -> Callable[[Path], None]:
    def check(path: Path) -> None:
        for name in names:
            assert (path / name if path.is_dir() else path.with_name(name)).exists(), name

    return check


def animating(*more: object) -> list[object]:
    files = ["animate", "--source", "face.png", "--driving", "talk.mp4", "--checkpoint", "./tiny.safetensors"]
    return [*files, "--crop", "none", "--driving-crop", "none", "--end", 0.2, *FAST, *more]


def drawing(command: str, *more: object) -> list[object]:
    files = [command, "--source", "face.png", "--driving", "talk.mp4", "--checkpoint", "./tiny.safetensors"]
    return [*files, "--crop", "none", "--driving-crop", "none", *more]


EVAL = ["eval", "--checkpoint", "./tiny.safetensors", "--dataset", "clips", "--metrics", "l1", "--detector", "none"]
CASES = {
    "animate": Case(animating("--out", "result.mp4"), "result.mp4", frames_of),
    "animate, two names": Case(animating("--out", "clips/../result.mp4"), "result.mp4", frames_of, slow=True),
    "animate, pictures": Case(animating("--out", "result/"), "result", pictures_in, slow=True),
    "animate, gif": Case(animating("--out", "result.gif"), "result.gif", frames_of, slow=True),
    "animate, motion": Case(
        animating("--out", "result.mp4", "--save-motion", "result.npz"),
        "result.",
        there("result.npz", "result.mp4"),
        slow=True,
    ),
    "animate --jobs": Case(
        ["animate", "--jobs", "jobs.csv", "--checkpoint", "./tiny.safetensors", *FAST],
        "jobs.csv.report.jsonl",
        there("result.mp4"),
        slow=True,
    ),
    "inspect": Case(drawing("inspect", "--out", "result.png"), "result.png", Path.stat, slow=True),
    "attention": Case(
        drawing("attention", "--layer", 1, "--out", "result.png", "--raw", "result.npz"),
        "result.",
        there("result.npz", "result.png"),
        slow=True,
    ),
    "export": Case(
        ["export", "--checkpoint", "./tiny.safetensors", "--format", "torch", "--out", "result"],
        "result",
        there("manifest.json"),
        slow=True,
    ),
    "checkpoints import": Case(
        ["checkpoints", "import", "theirs.pth.tar", "--config", "config.yaml"],
        "cache/checkpoints/theirs.safetensors",
        whole_checkpoint,
        slow=True,
    ),
    "checkpoints export": Case(
        ["checkpoints", "export", "./fomm.safetensors", "--layout", "fomm", "--out", "result.pth.tar"],
        "result.pth.tar",
        there("result.yaml"),
    ),
    "eval": Case(
        [*EVAL, "--out", "result", "--videos", "v", "--frames", "f"],
        "result",
        there("result.json", "videos.csv"),
        slow=True,
    ),
    "eval --compare": Case(
        ["eval", "--compare", "one", "two", "--out", "result"],
        "result/comparison.png",
        there("comparison.json"),
        slow=True,
        waits=True,  # as with other results of its own, it replaces a comparison
    ),
    "data prepare": Case(
        ["data", "prepare", "raw", "--metadata", "rows.csv", "--out", "result"],
        "result",
        there("manifest.csv", "train"),
        slow=True,
    ),
    "data cache": Case(
        ["data", "cache", "clips", "--out", "result", "--resolution", 64], "result", there("index.jsonl")
    ),
    "data pack": Case(
        ["data", "pack", "clips", "--cache", "cached", "--out", "result", "--size", "1MiB"],
        "result",
        there("faces.npz"),
        slow=True,
    ),
    "train": Case(
        ["train", "--dataset", "train.yaml", "--data", "clips", "--device", "cpu", "--out", "result"],
        "result",
        there("checkpoints/step-0000002.safetensors", "state/last.pt"),
        waits=True,
        slow=True,
    ),
}


def race_once(case: Case, inputs: Path, folder: Path) -> None:
    shutil.copytree(inputs, folder, copy_function=os.link)
    command = [*case.arguments, "--quiet"]
    environment = os.environ | {"MTANIMATE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    together = {"cwd": folder, "env": environment, "barrier": FORK.Barrier(2)}
    with Running(*command, **together) as one, Running(*command, **together) as other:
        ended = [running.end(600) for running in (one, other)]  # an export on a busy machine takes minutes
    won, lost = sorted(ended, key=lambda done: done.returncode)
    said = lost.stderr
    assert won.returncode == 0, said
    if not (case.waits and lost.returncode == 0):
        assert lost.returncode in (1, 2), said  # 2: it began when the other was done
        assert said.startswith("mtanimate: ")
        assert said.count("\n") == 1
        assert case.out in said
    case.check(folder / case.out)
    assert [half for place in (folder, *folder.rglob("*/")) for half in half_written(place)] == []
    assert list((folder / "cache" / "claims").glob("*")) == []
    for file in inputs.rglob("*.*"):
        assert (folder / file.relative_to(inputs)).samefile(file), f"{file.name} was replaced"


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.slow])
def test_two_at_once(name: str, inputs: Path, tmp_path: Path) -> None:
    for number in range(2):
        race_once(CASES[name], inputs, tmp_path / str(number))


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("number", range(20))
def test_twenty_times_two_at_once(name: str, number: int, inputs: Path, tmp_path: Path) -> None:
    race_once(CASES[name], inputs, tmp_path / "race")
