"""Whole or not at all."""

import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import pytest

from mtanimate.checkpoints.registry import imported
from mtanimate.files import half_written, replacing
from mtanimate.metrics.observer import Seen, TruthCache

WRITING = """
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from mtanimate.files import replacing

tensors = {"weights": torch.zeros(50_000_000)}
with replacing(Path(sys.argv[1])) as partial:
    partial.touch()
    save_file(tensors, partial)
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
    seen = Seen(np.zeros((2, 5, 2)), None)
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
    """Killed while safetensors writes 200 MB, by whatever name it does so, or just after."""
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
