"""Whole or not at all."""

import errno
import os
import re
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier

import numpy as np
import pytest

from mtanimate.checkpoints.registry import imported
from mtanimate.files import CameMeanwhile, _clear, half_written, hidden_beside, owner_lives, replacing, replacing_folder
from mtanimate.metrics.detector_pool import TruthCache
from mtanimate.metrics.detectors import Detections

WRITING = """
import sys
from pathlib import Path

import torch
from safetensors.torch import save

from mtanimate.files import replacing

tensors = {"weights": torch.zeros(50_000_000)}
with replacing(Path(sys.argv[1])) as partial:
    with partial.open("wb") as file:
        for start in range(0, len(data := save(tensors)), 1 << 20):
            file.write(data[start : start + (1 << 20)])
    sys.stdin.read()
"""


@pytest.fixture
def homeless(monkeypatch):
    """As in a container whose user has neither HOME nor an entry in passwd."""
    pwd = pytest.importorskip("pwd", reason="users as POSIX has them")

    def missing(user):
        raise KeyError(user)

    for name in ("HOME", "XDG_CACHE_HOME", "MTANIMATE_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", missing)
    monkeypatch.setattr(pwd, "getpwnam", missing)


def test_without_a_home_nothing_is_cached(homeless, monkeypatch, tmp_path):
    assert imported() == {}
    cache = TruthCache()
    seen = Detections(np.zeros((2, 5, 2)), None)
    assert cache.get("key", 2) is None
    with pytest.raises(OSError, match="MTANIMATE_CACHE"):
        cache.put("key", seen)
    monkeypatch.setenv("MTANIMATE_CACHE", str(tmp_path))
    TruthCache().put("key", seen)
    assert TruthCache().get("key", 2) is not None


def test_a_file_is_replaced_when_it_is_done(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failure_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail():
        with replacing(path) as partial:
            partial.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(OSError, match="none"), replacing(tmp_path / "none" / "a.txt") as partial:
        partial.write_text("x")


def written(folder):
    """Bytes in each of its files."""
    for file in folder.iterdir():
        with suppress(FileNotFoundError):  # renamed just now
            yield file.stat().st_size


def test_what_a_killed_process_leaves_is_known_for_it(tmp_path):
    """Killed while 200 MB are written, or just after."""
    child = subprocess.Popen([sys.executable, "-c", WRITING, str(tmp_path / "a.safetensors")], stdin=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while not any(written(tmp_path)):
            assert time.monotonic() < deadline
            time.sleep(0.001)
    finally:
        child.kill()
        child.communicate()
    left = set(tmp_path.iterdir())
    assert left
    assert left == set(half_written(tmp_path))


@pytest.fixture(params=["links", "no links"])
def any_file_system(request, monkeypatch):
    """As it is, and as on exFAT, where a file has one name."""
    if request.param == "no links":

        def refuse(*names):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(os, "link", refuse)


def test_a_new_name_is_taken_once(tmp_path, any_file_system):
    """However many write at once."""
    path, ready = tmp_path / "a.txt", Barrier(8)

    def write(number):
        try:
            with replacing(path, overwrite=False) as partial:
                partial.write_text(str(number))
                ready.wait()
        except CameMeanwhile:
            return None
        return str(number)

    with ThreadPoolExecutor(8) as pool:
        won = [number for number in pool.map(write, range(8)) if number]
    assert won == [path.read_text()]
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_came_meanwhile_stays(tmp_path, any_file_system):
    path = tmp_path / "a.txt"

    def write():
        with replacing(path, overwrite=False) as partial:
            partial.write_text("new")
            path.write_text("precious")

    with pytest.raises(CameMeanwhile, match=re.escape(str(path))):
        write()
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_came_meanwhile_stays(tmp_path):
    path = tmp_path / "a"

    def write():
        with replacing_folder(path, overwrite=False) as partial:
            (partial / "new.txt").touch()
            path.mkdir()
            (path / "precious.txt").touch()

    with pytest.raises(CameMeanwhile, match=re.escape(str(path))):
        write()
    assert list(tmp_path.rglob("*")) == [path, path / "precious.txt"]
    with replacing_folder(path, overwrite=True) as partial:
        (partial / "new.txt").touch()
    assert list(tmp_path.rglob("*")) == [path, path / "new.txt"]


@pytest.mark.skipif(os.name != "posix", reason="only there are folders synced")
@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_drive_whose_folders_cannot_be_synced_will_do(tmp_path, monkeypatch, number):
    sync = os.fsync

    def refuse_folders(file):
        if stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(number, os.strerror(number))
        sync(file)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    with replacing(tmp_path / "a.txt") as partial:
        partial.write_text("new")
    assert (tmp_path / "a.txt").read_text() == "new"


@pytest.mark.skipif(os.name != "posix", reason="only there are folders synced")
def test_a_broken_disk_is_said(tmp_path, monkeypatch):
    def fail(file):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=re.escape(os.strerror(errno.EIO))), replacing(tmp_path / "a.txt") as partial:
        partial.write_text("new")


LEAVING = """
import sys
from pathlib import Path
from mtanimate.files import aside, hidden_beside
folder = Path(sys.argv[1])
hidden_beside(folder / "result.mp4").write_text("half")
hidden_beside(folder / "pictures.png").mkdir()
(folder / "kept").mkdir()
(folder / "kept" / "old.png").write_text("old")
(folder / "kept").rename(aside(folder / "kept"))
print("left", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(os.name != "posix", reason="Windows does not tell which processes run")
def test_leftovers_are_cleared_when_their_owner_is_dead(tmp_path):
    own = tmp_path / ".result-0123abcd.mp4"
    own.write_text("of somebody else")
    child = subprocess.Popen(
        [sys.executable, "-c", LEAVING, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert child.stdout.readline() == b"left\n"
        left = set(tmp_path.iterdir())
        assert len(left) == 4
        hidden_beside(tmp_path / "result.mp4")
        assert set(tmp_path.iterdir()) == left  # it lives
    finally:
        child.kill()
        child.communicate()
    _clear.cache_clear()  # as in the next process
    hidden_beside(tmp_path / "result.mp4")
    assert set(tmp_path.iterdir()) == {own, tmp_path / "kept"}
    assert (tmp_path / "kept" / "old.png").read_text() == "old"


def test_of_another_machine_only_what_is_old_is_cleared(tmp_path):
    new, old = (tmp_path / f".result-mtanimate-0123abcd-1-{number}-0123abcd.mp4" for number in (1, 2))
    new.touch()
    old.touch()
    week_ago = time.time() - 7 * 86400
    os.utime(old, (week_ago, week_ago))
    assert owner_lives(new)
    hidden_beside(tmp_path / "result.mp4")
    assert list(tmp_path.iterdir()) == [new]


def test_what_was_set_aside_gives_way_to_what_stands_there(tmp_path):
    left = tmp_path / ".kept-mtanimate-0123abcd-1-1-0123abcd.old"
    for folder in (left, tmp_path / "kept"):
        folder.mkdir()
        (folder / "file").write_text(folder.name)
    os.utime(left, (0, 0))
    hidden_beside(tmp_path / "result.mp4")
    assert list(tmp_path.iterdir()) == [tmp_path / "kept"]
    assert (tmp_path / "kept" / "file").read_text() == "kept"
