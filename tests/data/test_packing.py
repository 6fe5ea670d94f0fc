"""`data pack`: never larger than asked for, everybody in it, and what comes out of it is what went in, nearly."""

import importlib.util

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cache import SIZE, by_name, no_mediapipe, talking
from tiny import counting_frames, write_video

from mtanimate.data.cache import NO_FACE, Cache
from mtanimate.data.caching import cache_dataset
from mtanimate.data.packing import STEPS, FaceCode, PackedFaces, movement, pack_dataset, parse_size, write_faces
from mtanimate.errors import InputError
from mtanimate.inspection.subject import PORTRAIT
from mtanimate.video import read_image, write_image

KIB = 1024


def size_of(folder):
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Of ann one clip in which she moves and one in which she does not; of bob and eve one each; a still."""
    folder = tmp_path_factory.mktemp("data")
    write_video(folder / "train" / "ann__1.mp4", np.repeat(talking(1), 60, axis=0))
    write_video(folder / "train" / "ann__2.mp4", np.concatenate([np.repeat(talking(1), 40, axis=0), talking(30)]))
    write_video(folder / "train" / "bob__1.mp4", counting_frames(9, 0, 96))
    write_video(folder / "test" / "eve__1.mp4", talking(12))
    (folder / "stills").mkdir()
    write_image(folder / "stills" / "zoe.png", read_image(PORTRAIT))
    return folder


@pytest.fixture(scope="module")
def cached(data, tmp_path_factory):
    if importlib.util.find_spec("mediapipe") is None:
        pytest.skip("faces need mediapipe: pip install 'mtanimate[mediapipe]'")
    folder = tmp_path_factory.mktemp("cached") / "cache"
    cache_dataset(data, folder, resolution=SIZE)
    return folder


def test_all_of_it_where_there_is_room_and_a_cache_of_it_needs_no_mediapipe(data, cached, tmp_path, monkeypatch):
    result = pack_dataset(data, cached, tmp_path / "pack", 500 * KIB, stills=data / "stills")
    assert (result.people, result.clips, result.stills) == (3, 4, 1)
    assert result.bytes == size_of(tmp_path / "pack") <= 500 * KIB
    no_mediapipe(monkeypatch)
    again = cache_dataset(tmp_path / "pack", tmp_path / "cache", resolution=SIZE)
    assert (again.clips, again.stills, again.without_faces) == (4, 1, 0)
    packed, whole = Cache(tmp_path / "cache"), Cache(cached)
    entry, original = by_name(packed)["ann__2.mp4"], by_name(whole)["ann__2.mp4"]
    assert (entry.identity, entry.split, entry.rate) == ("ann", "train", "25/2")
    frames = packed.frames(entry, range(entry.count)).astype(int)
    candidates = whole.frames(original, range(original.count)).astype(int)
    nearest = [int(np.abs(candidates - frame).mean(axis=(1, 2, 3)).argmin()) for frame in frames[-10:]]
    assert np.diff(nearest).tolist() == [2] * 9  # every second frame
    meshes, theirs = packed.meshes(entry, range(entry.count))[-10:], whole.meshes(original, nearest)
    assert np.abs(meshes - theirs)[..., :2].max() <= 4.1 / 8192
    assert np.abs(packed.mattes(entry, [0]).astype(int) - whole.mattes(original, [0])).max() <= 43


def test_a_small_pack_has_everybody_and_of_the_clips_what_moves(data, cached, tmp_path):
    with pytest.raises(InputError, match=r"3 people do not fit into 0\.0 MiB: the least .* is 0\.\d+MiB"):
        pack_dataset(data, cached, tmp_path / "pack", 9 * KIB)
    assert list(tmp_path.iterdir()) == []
    for least in range(20, 100, 4):
        try:
            result = pack_dataset(data, cached, tmp_path / "pack", least * KIB)
            break
        except InputError:
            continue
    assert result.bytes == size_of(tmp_path / "pack") <= least * KIB
    files = sorted(file.name for file in (tmp_path / "pack" / "train").iterdir())
    assert files == ["ann__2.mp4", "bob__1.mp4"]
    assert (tmp_path / "pack" / "test" / "eve__1.mp4").exists()


def test_what_is_there_is_not_overwritten_and_what_is_missing_is_said(data, cached, tmp_path):
    (tmp_path / "pack").mkdir()
    with pytest.raises(InputError, match="is there already"):
        pack_dataset(data, cached, tmp_path / "pack", 500 * KIB)
    write_video(tmp_path / "videos" / "new.mp4", counting_frames(4, 0))
    with pytest.raises(InputError, match="has none of the clips of"):
        pack_dataset(tmp_path / "videos", cached, tmp_path / "other", 500 * KIB)


@pytest.mark.parametrize(
    ("text", "bytes"), [("25MiB", 25 * 2**20), ("1.5 GB", 1_500_000_000), ("400KiB", 400 * 1024), ("3MB", 3_000_000)]
)
def test_sizes(text, bytes):
    assert parse_size(text) == bytes


@pytest.mark.parametrize("text", ["25", "MiB", "-3MiB", "25 mib", "1.2.3GB"])
def test_other_sizes_are_refused(text):
    with pytest.raises(InputError, match=r"expected a number and one of .* as in 25MiB"):
        parse_size(text)


# Faces


def random_faces(seed, count):
    random = np.random.default_rng(seed)
    places = random.integers(-6000, 6000, (1, 478, 3)) + random.integers(-300, 300, (count, 478, 3)).cumsum(axis=0)
    landmarks = places.clip(-32000, 32000).astype(np.int16)
    landmarks[random.uniform(size=count) < 0.3] = NO_FACE
    return landmarks, random.integers(0, 256, (count, 64, 64)).astype(np.uint8)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), count=st.integers(1, 6))
def test_faces_come_back_to_half_a_step_and_none_as_none(seed, count):
    landmarks, mattes = random_faces(seed, count)
    code = FaceCode(random_faces(1, 1)[0].clip(-6000)[0])
    again, levels = code.decompress(code.compress(landmarks, mattes), count)
    none = landmarks[:, 0, 0] == NO_FACE
    assert (again[none] == NO_FACE).all()
    assert (np.abs(again[~none].astype(int) - landmarks[~none]) <= STEPS // 2).all()
    assert np.abs(levels.astype(int) - mattes).max() <= 43  # of 255, in four levels


def test_a_damaged_file_of_faces_is_said(tmp_path):
    landmarks, mattes = random_faces(0, 4)
    code = FaceCode(random_faces(1, 1)[0].clip(-6000)[0])
    file = tmp_path / "faces.npz"
    write_faces(file, code, {"a" * 64: (4, code.compress(landmarks, mattes)), "b" * 64: (4, b"something")})
    faces = PackedFaces(file)
    assert faces("a" * 64, 4) is not None
    assert faces("c" * 64, 4) is None
    for digest, count in (("a" * 64, 5), ("b" * 64, 4)):
        with pytest.raises(InputError, match="is damaged"):
            faces(digest, count)
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(InputError, match="cannot be read"):
        PackedFaces(file)


def test_movement_is_of_heads_and_more_of_their_features():
    still = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 478, 2)).repeat(20, axis=0)
    shifts = np.linspace(-0.1, 0.1, 20)[:, None, None]
    lips = still.copy()
    lips[:, 13] += 10 * shifts[:, 0]
    assert movement(still) == pytest.approx(0, abs=1e-9)
    assert movement(still + shifts) > 0.05
    assert movement(lips) > movement(still)
    assert movement(np.full((20, 478, 2), np.nan)) == 0
