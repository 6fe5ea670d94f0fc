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
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from commands import COMMAND, moving_disc
from forks import FORK, Running
from lives import load_all, write_settings
from tiny import tiny_config, write_video

from mtanimate.data.cache import Cache, is_cache
from mtanimate.inference.manifest import read_manifest
from mtanimate.video import VideoReader

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="watches processes in Linux's /proc")

LONG = 120.0  # seconds, on a busy machine
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
    if is_cache(folder / "out"):
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

    def start(self) -> Running:
        """Returns as soon as it listens to signals."""
        environment = {"MARK": self.mark, "MTANIMATE_CACHE": str(self.cache), "OMP_NUM_THREADS": "1"}
        running = Running(*self.case.command.split(), cwd=self.folder, env=os.environ | environment)
        while not _listens(running.process.pid):
            time.sleep(0.005)
        return running

    def run(self) -> float:
        """To its end; what is there then is whole, and nothing is hidden. Returns the seconds since it listened."""
        with self.start() as running:
            began = time.monotonic()
            done = running.end(5 * LONG)  # an export takes minutes there
        assert done.returncode == 0, done.stderr
        self.check(running.process)
        hidden = [file for top in (self.folder, self.cache) for file in top.rglob(".*") if file not in self.own]
        assert hidden == []
        return time.monotonic() - began

    def end(self, number: int, moment: float) -> int:
        """Begins a run and sends it the signal, so many seconds after it listens. Returns its exit code."""
        with self.start() as running:
            running.process.join(moment)
            with suppress(ProcessLookupError):  # it is done
                os.kill(running.process.pid, number)
            done = running.end(LONG)
        # Below zero: SIGKILL; or it was done, and Python was taking itself down. Shells do not tell from 128 + number.
        assert done.returncode in (0, -number, 128 + number), done.stderr
        assert "Traceback" not in done.stderr
        self.check(running.process)
        return done.returncode

    def check(self, process: BaseProcess) -> None:
        content = self._content()
        assert {file: content.get(file) for file in self.own} == self.own
        self.case.whole(self.folder)
        until = time.monotonic() + LONG / 4  # processes that decode for a training look every five seconds
        while others := _left(process.pid, self.mark):
            assert time.monotonic() < until, others
            time.sleep(0.05)


def _listens(process: int) -> bool:
    """Whether it has begun, or ended: handlers are there."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return True
    caught = status.partition("SigCgt:")[2].split()
    return "State:\tZ" in status or bool(caught and int(caught[0], 16) >> (signal.SIGTERM - 1) & 1)


def _left(session: int, mark: str) -> list[str]:
    """The commands that run in this session, or with this mark in the environment that they began with."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, *numbers = (folder / "stat").read_text().rpartition(")")[2].split()
            if state != "Z" and (numbers[2] == str(session) or mark.encode() in (folder / "environ").read_bytes()):
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:  # another user's, or it has just ended
            continue
    return found


def endings(media: Path, folder: Path, name: str, count: int, runs_after: int) -> Counter[str]:
    """So many, at moments spread over a whole run; after some of them one is let run to its end. What came of them."""
    chance = random.Random(f"{name} {count}")
    warm = FORK.Process(target=int)  # the server starts, once for all, and is no part of what is timed
    warm.start()
    warm.join()
    place = Workplace(media, folder / "first", CASES[name])
    seconds = place.run()
    outcomes: Counter[str] = Counter()
    for number in range(count):
        if number % runs_after == 0:
            place = Workplace(media, folder / str(number), CASES[name])
        ending = SIGNALS[number % len(SIGNALS)]
        code = place.end(ending, chance.uniform(0, 0.9 * seconds))
        outcomes[f"{ending.name} {'done before' if code == 0 else 'ended'}"] += 1
        if number % runs_after == runs_after - 1 or number == count - 1:
            seconds = min(seconds, place.run())  # the first was on a busier machine
    return outcomes


@pytest.mark.slow
def test_eight_endings_of_animate(media, tmp_path):
    assert endings(media, tmp_path, "animate", 8, 4).total() == 8


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_an_ending_while_torch_is_imported(number, media, tmp_path):
    """Of the installed command, as soon as it listens."""
    command = [COMMAND, "animate", "--source", media / "face.png", "--driving", media / "talk.mp4"]
    command += ["--out", tmp_path / "o.mp4", "--checkpoint", media / "tiny.safetensors"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not _listens(process.pid):
            time.sleep(0.005)
        process.send_signal(number)
        said = process.communicate(timeout=LONG)[1]
    assert (process.returncode, said) == (128 + number, "mtanimate: interrupted\n")


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_hundred_endings_of_eight_commands(name, media, tmp_path, capsys):
    if name == "eval":
        pytest.importorskip("dlib", reason="landmarks need dlib: pip install 'mtanimate[eval]'")
    outcomes = endings(media, tmp_path, name, 13, 3)
    with capsys.disabled():
        print(f"\n{name}: {dict(sorted(outcomes.items()))}")
    assert outcomes.total() == 13
    assert sum(count for what, count in outcomes.items() if what.endswith("ended")) > 2
