"""Commands that are ended at any moment, politely or not: nothing half written, nothing of the user's changed, nobody
left at work, and nothing hidden left behind once the next run is done."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from commands import COMMAND, moving_disc
from lives import load_all, write_settings
from tiny import tiny_config, write_video

from mtanimate.backends.manifest import read_manifest
from mtanimate.data.cache import Cache
from mtanimate.video import VideoReader

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="watches processes in Linux's /proc")

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
LIVE = "lavfi:testsrc2=size=96x64:rate=25:duration=2"
JOBS = "source,driving,out,crop,driving-crop\n" + "".join(
    f"face.png,talk.mp4,{out},none,none\n" for out in ("a.mp4", "b.gif", "c/")
)
CLIP = "video_id,start,end,bbox,fps,width,height,partition,person_id\n" + "".join(
    f"{name},2,12,0-0-64-64,25,64,64,train,{name}\n" for name in ("ann", "bob")
)


@dataclass(frozen=True)
class Case:
    """A command, in a folder of its own, and what must hold of what it leaves at any time: nothing, or all of it."""

    command: str
    whole: Callable[[Path], None]


def video(path: Path, frames: int | None = None) -> None:
    if path.exists() and path.read_bytes() != b"the old result":
        count = VideoReader(path).frame_count
        assert frames is None or count == frames


def rows(folder: Path) -> None:
    video(folder / "a.mp4", 20)
    video(folder / "b.gif", 20)
    assert not (folder / "c").exists() or len(list((folder / "c").iterdir())) == 20
    report = folder / "jobs.csv.report.jsonl"
    for line in report.read_bytes().split(b"\n")[:-1] if report.exists() else []:
        json.loads(line)


def clips(folder: Path) -> None:
    for clip in (folder / "out").rglob("*.mp4"):
        assert VideoReader(clip).frame_count == 10


def results(folder: Path) -> None:
    for file in (folder / "out").rglob("*.json"):
        json.loads(file.read_text("utf-8"))


def cached(folder: Path) -> None:
    if (folder / "out" / "index.json").exists():
        Cache(folder / "out")


def trained(folder: Path) -> None:
    load_all(folder / "out")


def exported(folder: Path) -> None:
    if (folder / "out").exists():
        read_manifest(folder / "out")


ANIMATE = "animate --source face.png --crop none --checkpoint tiny.safetensors --device cpu"
EVAL = "eval --checkpoint tiny.safetensors --dataset clips --out out --metrics l1,akd --workers 1"
CASES = {
    "animate": Case(
        f"{ANIMATE} --driving talk.mp4 --driving-crop none --out o.mp4 --overwrite",
        lambda folder: video(folder / "o.mp4", 20),
    ),
    "live": Case(f"{ANIMATE} --driving {LIVE} --out o.mp4 --overwrite", lambda folder: video(folder / "o.mp4")),
    "jobs": Case("animate --jobs jobs.csv --checkpoint tiny.safetensors --device cpu", rows),
    "train": Case("train --dataset tiny.yaml --data clips --out out --device cpu --workers 1", trained),
    "eval": Case(EVAL, results),
    "data prepare": Case("data prepare clips --out out --metadata clips.csv --size 64", clips),
    "data cache": Case("data cache clips --out out --resolution 64", cached),
    "export": Case("export --checkpoint tiny.safetensors --format torch --out out --overwrite", exported),
}


class Workplace:
    """A user's folder, and commands that run in it."""

    def __init__(self, media: Path, folder: Path, case: Case) -> None:
        self.folder, self.case, self.mark = folder, case, uuid.uuid4().hex
        folder.mkdir()
        for name in ("face.png", "talk.mp4", "tiny.safetensors"):
            shutil.copy(media / name, folder)
        (folder / ".hidden-0123abcd.mp4").write_text("the user's own")
        for name in ("ann", "bob"):
            write_video(folder / "clips" / f"{name}.mp4", moving_disc(14))
        (folder / "clips.csv").write_text(CLIP)
        (folder / "jobs.csv").write_text(JOBS)
        write_settings(folder / "tiny.yaml", tiny_config(steps=6, precision="fp32", checkpoint_every=2))
        self.own = self._content()
        self.cache = folder.with_name(f"{folder.name} cache")
        if "o.mp4" in case.command:
            (folder / "o.mp4").write_text("the old result")

    def _content(self) -> dict[Path, bytes]:
        return {file: file.read_bytes() for file in self.folder.rglob("*") if file.is_file()}

    def start(self) -> subprocess.Popen:
        environment = os.environ | {"MARK": self.mark, "OMP_NUM_THREADS": "1", "MTANIMATE_CACHE": str(self.cache)}
        return subprocess.Popen(
            [COMMAND, *self.case.command.split()], cwd=self.folder, env=environment, text=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self) -> float:
        """To its end; what is there then is whole, and nothing is hidden. Returns the seconds."""
        began = time.monotonic()
        process = self.start()
        said = process.communicate(timeout=120)[1]
        assert process.returncode == 0, said
        self.check()
        hidden = [file for top in (self.folder, self.cache) for file in top.rglob(".*") if file not in self.own]
        assert hidden == []
        return time.monotonic() - began

    def end(self, number: int, moment: float) -> int:
        """Begins a run and sends it the signal, so many seconds after it listens. Returns its exit code."""
        process = self.start()
        while not _listens(process):
            time.sleep(0.005)
        time.sleep(moment)
        process.send_signal(number)
        said = process.communicate(timeout=60)[1]
        # Below zero: SIGKILL; or it was done, and Python was taking itself down. Shells do not tell from 128 + number.
        assert process.returncode in (0, -number, 128 + number), said
        assert "Traceback" not in said
        self.check()
        return process.returncode

    def check(self) -> None:
        content = self._content()
        assert {file: content.get(file) for file in self.own} == self.own
        self.case.whole(self.folder)
        until = time.monotonic() + 15  # processes that decode for a training look every five seconds
        while others := _marked(self.mark):
            assert time.monotonic() < until, others
            time.sleep(0.05)


def _listens(process: subprocess.Popen) -> bool:
    """Whether it has begun, or ended: handlers are there."""
    caught = Path(f"/proc/{process.pid}/status").read_text().partition("SigCgt:")[2].split()
    return process.poll() is not None or bool(caught and int(caught[0], 16) >> (signal.SIGTERM - 1) & 1)


def _marked(mark: str) -> list[str]:
    """The commands that run with this mark in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:  # another user's, or it has just ended
            continue
    return found


def endings(media: Path, folder: Path, name: str, count: int, runs_after: int) -> Counter[str]:
    """So many, at moments spread over a whole run; after some of them one is let run to its end. What came of them."""
    chance = random.Random(f"{name} {count}")
    place = Workplace(media, folder / "first", CASES[name])
    seconds = place.run()
    outcomes: Counter[str] = Counter()
    for number in range(count):
        if number % runs_after == 0:
            place = Workplace(media, folder / str(number), CASES[name])
        ending = SIGNALS[number % len(SIGNALS)]
        code = place.end(ending, chance.uniform(0, 1.1 * seconds))
        outcomes[f"{ending.name} {'done before' if code == 0 else 'ended'}"] += 1
        if number % runs_after == runs_after - 1 or number == count - 1:
            place.run()
    return outcomes


def test_four_endings_of_animate(media, tmp_path):
    assert endings(media, tmp_path, "animate", 4, 4).total() == 4


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_hundred_endings_of_eight_commands(name, media, tmp_path, capsys):
    if name == "eval":
        pytest.importorskip("dlib", reason="landmarks need dlib: pip install 'mtanimate[eval]'")
    outcomes = endings(media, tmp_path, name, 13, 3)
    with capsys.disabled():
        print(f"\n{name}: {dict(sorted(outcomes.items()))}")
    assert outcomes.total() == 13
    assert sum(count for what, count in outcomes.items() if what.endswith("ended")) > 6
