"""What was seen in true frames is kept, and a broken file of it is as good as none."""

import random
from pathlib import Path

import numpy as np
import platformdirs
import pytest

from mtanimate.metrics.detector_pool import TruthCache
from mtanimate.metrics.detectors import Detections


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MTANIMATE_CACHE", str(tmp_path / "cache ü"))
    return TruthCache()


def seen(described=True, frames=6):
    draw = np.random.default_rng(0)
    landmarks = draw.uniform(0, 256, (frames, 5, 2))
    landmarks[2] = np.nan
    return Detections(landmarks, draw.normal(size=(frames, 16)) if described else None)


def same(one, other):
    if one is None or (one.descriptors is None) != (other.descriptors is None):
        return False
    pairs = [(one.landmarks, other.landmarks), (one.descriptors, other.descriptors)]
    return all(np.array_equal(a, b, equal_nan=True) for a, b in pairs if a is not None)


@pytest.mark.parametrize("described", [True, False])
def test_what_was_put_is_got(cache, tmp_path, described):
    assert cache.get("key", 6) is None
    cache.put("key", seen(described))
    assert same(cache.get("key", 6), seen(described))
    assert cache.get("other", 6) is None
    assert cache.get("key", 5) is None
    assert [file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*.npz")] == ["cache ü/landmarks/key.npz"]
    cache.put("key", seen(described, frames=7))
    assert same(cache.get("key", 7), seen(described, frames=7))
    assert len(list(cache.folder.iterdir())) == 1


def test_the_systems_place_without_a_wish(monkeypatch):
    usual = Path(platformdirs.user_cache_dir("mtanimate")) / "landmarks"
    monkeypatch.setenv("MTANIMATE_CACHE", "")
    assert TruthCache().folder == usual
    monkeypatch.delenv("MTANIMATE_CACHE")
    assert TruthCache().folder == usual


def test_a_cut_off_file_is_none(cache):
    cache.put("key", seen())
    file = cache.folder / "key.npz"
    whole = file.read_bytes()
    for length in (*range(0, 60, 7), *range(60, len(whole), 61), len(whole) - 1):
        file.write_bytes(whole[:length])
        assert cache.get("key", 6) is None


def test_a_damaged_file_is_none_or_says_the_same(cache):
    """A byte that says when the file was written may change nothing."""
    cache.put("key", seen())
    file = cache.folder / "key.npz"
    whole = file.read_bytes()
    draw, none = random.Random(1), 0
    for _ in range(500):
        damaged = bytearray(whole)
        for place in draw.sample(range(len(whole)), draw.choice((1, 1, 8))):
            damaged[place] ^= draw.randrange(1, 256)
        file.write_bytes(damaged)
        found = cache.get("key", 6)
        assert found is None or same(found, seen())
        none += found is None
    assert none > 400


def write_array(file):
    with file.open("wb") as opened:
        np.save(opened, np.zeros((6, 5, 2)))


class Trap:
    """A pickle that tells when it is opened."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was opened",)


@pytest.mark.parametrize(
    "write",
    [
        lambda file: file.write_text("text"),
        lambda file: file.mkdir(),
        write_array,
        lambda file: np.savez(file, landmarks=np.array([Trap()] * 6)),
        lambda file: np.savez(file, landmarks=seen().landmarks, descriptors=np.array([Trap()] * 6)),
        lambda file: np.savez(file, descriptors=seen().descriptors),
        lambda file: np.savez(file, landmarks=seen().landmarks),
        lambda file: np.savez(file, landmarks=np.float64(3), descriptors=np.float64(3)),
        lambda file: np.savez(file, landmarks=seen().landmarks, descriptors=seen().descriptors[:5]),
        lambda file: np.savez(file, landmarks=seen().landmarks[:5], descriptors=seen().descriptors),
    ],
    ids=[
        "text",
        "folder",
        "array",
        "pickle",
        "pickled descriptors",
        "no landmarks",
        "no descriptors",
        "a number",
        "short",
        "shorter",
    ],
)
def test_another_file_is_none(cache, write):
    cache.folder.mkdir(parents=True)
    write(cache.folder / "key.npz")
    assert cache.get("key", 6) is None


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MTANIMATE_CACHE", str(tmp_path / "file"))
    with pytest.raises(OSError, match="file"):
        TruthCache().put("key", seen())
    assert TruthCache().get("key", 6) is None


def test_a_full_disk_leaves_nothing(cache, monkeypatch):
    cache.folder.mkdir(parents=True)

    def full(file, **arrays):
        file.write_bytes(b"PK")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match="No space left"):
        cache.put("key", seen())
    assert list(cache.folder.iterdir()) == []
