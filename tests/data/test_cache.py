"""`data cache`: what is kept is what was there; the same command mends what a kill, a full disk or a cut file left."""

import importlib.util
import json
import os
import pickle
import shutil
import signal
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from forks import FORK
from hypothesis import given
from hypothesis import strategies as st
from lives import _die_at
from tiny import PLAIN, counting_frames, tiny_config, write_video

from mtanimate.data.cache import (
    Cache,
    CacheEntry,
    from_fixed_point,
    is_cache,
    open_cache_writer,
    read_index,
    to_fixed_point,
)
from mtanimate.data.caching import cache_dataset
from mtanimate.data.clips import find_clips
from mtanimate.data.loading import collate, load_batches
from mtanimate.data.pairs import PairDataset
from mtanimate.data.people import FaceLandmarks
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.faces import mesh as mediapipe_models
from mtanimate.faces.detection import resize_frames
from mtanimate.inspection.subject import PORTRAIT
from mtanimate.video import VideoReader, read_image, write_image

SIZE = 64
FILES = ("frames.bin", "landmarks.bin", "mattes.bin")
needs_mediapipe = pytest.mark.skipif(
    importlib.util.find_spec("mediapipe") is None, reason="faces need mediapipe: pip install 'mtanimate[mediapipe]'"
)


def talking(count, size=128):
    """A face that wanders sideways: uint8 (count, 128, 128, 3)."""
    portrait = resize_frames(read_image(PORTRAIT)[None], size)[0].permute(1, 2, 0).numpy()
    return np.stack([np.roll(portrait, number, axis=1) for number in range(count)])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two clips to train on, one to test, a still."""
    folder = tmp_path_factory.mktemp("data")
    write_video(folder / "train" / "ann__1.mp4", talking(6))
    write_video(folder / "train" / "bob__1.mp4", counting_frames(9, 0, 96))
    write_video(folder / "test" / "eve__1.mp4", counting_frames(4, 2))
    (folder / "stills").mkdir()
    write_image(folder / "stills" / "zoe.png", read_image(PORTRAIT))
    return folder


@pytest.fixture(scope="module")
def cached(data, tmp_path_factory):
    """That data set's cache."""
    if importlib.util.find_spec("mediapipe") is None:
        pytest.skip("faces need mediapipe: pip install 'mtanimate[mediapipe]'")
    folder = tmp_path_factory.mktemp("cached") / "cache"
    told, lines = [], []
    result = cache_dataset(
        data, folder, resolution=SIZE, progress=lambda done, total: told.append((done, total)), log=lines.append
    )
    assert (result.clips, result.stills, result.frames, result.new, result.without_faces) == (3, 1, 20, 4, 0)
    assert told == [(done, 4) for done in range(1, 5)]
    assert lines == []
    return folder


def contents(folder):
    return [read_index(folder), *((folder / name).read_bytes() for name in FILES)]


def by_name(cache):
    return {entry.name: entry for entry in cache.entries.values()}


def no_mediapipe(monkeypatch):
    monkeypatch.setattr(mediapipe_models.importlib.util, "find_spec", lambda name: None)


# What is kept


def test_every_frame_is_kept_and_whose_it_is(data, cached):
    cache = Cache(cached)
    entries = by_name(cache)
    assert [(name, entry.identity, entry.split, entry.count, entry.rate) for name, entry in entries.items()] == [
        ("ann__1.mp4", "ann", "train", 6, "25"),
        ("bob__1.mp4", "bob", "train", 9, "25"),
        ("eve__1.mp4", "eve", "test", 4, "25"),
        ("zoe.png", "zoe", "stills", 1, ""),
    ]
    for path in (data / "train").iterdir():
        frames = np.concatenate(list(VideoReader(path).batches(4)))
        kept = cache.frames(entries[path.name], range(len(frames)))
        assert np.array_equal(kept, resize_frames(frames, SIZE).permute(0, 2, 3, 1).numpy())
    assert np.array_equal(
        cache.frames(entries["bob__1.mp4"], [7, 2]), cache.frames(entries["bob__1.mp4"], range(9))[[7, 2]]
    )


def test_faces_are_where_they_are_found_and_nobody_has_none(cached):
    cache = Cache(cached)
    ann, bob = (by_name(cache)[name] for name in ("ann__1.mp4", "bob__1.mp4"))
    found = FaceLandmarks().meshes(cache.frames(ann, range(6)))
    assert np.abs(cache.meshes(ann, range(6)) - found).max() <= 0.5 / 8192 + 1e-6
    assert np.isnan(cache.meshes(bob, range(9))).all()
    mattes = cache.mattes(ann, [0])
    assert mattes.shape == (1, 64, 64)
    assert mattes[0, 30:40, 28:36].min() > 200
    assert mattes[0, :4, :4].max() < 30


@given(st.lists(st.floats(-3.9, 3.9), min_size=3, max_size=3))
def test_fixed_point_is_exact_to_half_a_step(values):
    meshes = np.stack([np.tile(np.float32(values), (478, 1)), np.full((478, 3), np.nan, np.float32)])
    back = from_fixed_point(to_fixed_point(meshes))
    assert back.dtype == np.float32
    np.testing.assert_allclose(back[0], meshes[0], atol=0.51 / 8192)
    assert np.isnan(back[1]).all()


# Again


def test_the_same_command_adds_nothing(data, cached):
    before = contents(cached)
    result = cache_dataset(data, cached, resolution=SIZE)
    assert (result.clips, result.stills, result.frames, result.new) == (3, 1, 20, 0)
    assert contents(cached) == before


@needs_mediapipe
def test_new_and_changed_content_is_added_and_another_name_is_not_new(data, cached, tmp_path):
    shutil.copytree(cached, tmp_path / "cache")
    shutil.copytree(data, tmp_path / "data")
    train = tmp_path / "data" / "train"
    (train / "ann__1.mp4").rename(train / "amy__3.mp4")
    (train / "bob__1.mp4").unlink()
    write_video(train / "bob__1.mp4", counting_frames(5, 1))
    result = cache_dataset(tmp_path / "data", tmp_path / "cache", resolution=SIZE)
    assert (result.new, result.frames) == (1, 6 + 5 + 4 + 1)
    cache = Cache(tmp_path / "cache")
    assert len(cache.entries) == 5
    assert by_name(cache)["amy__3.mp4"].identity == "amy"
    assert cache.frames(by_name(cache)["bob__1.mp4"], [4])[0, :, :, 1].min() > 240


def test_what_cannot_be_read_is_named_and_skipped(tmp_path, monkeypatch):
    no_mediapipe(monkeypatch)
    write_video(tmp_path / "videos" / "one.mp4", counting_frames(3, 0))
    (tmp_path / "videos" / "text.mp4").write_text("no video")
    write_video(tmp_path / "videos" / "short.mp4", counting_frames(1, 0))
    lines = []
    result = cache_dataset(tmp_path / "videos", tmp_path / "cache", resolution=SIZE, log=lines.append)
    assert (result.clips, len(result.skipped)) == (1, 2)
    for name in ("text.mp4", "short.mp4"):
        assert sum(name in line for line in lines) == 1
    assert sum(line.startswith("1 clips and stills are without landmarks and mattes: ") for line in lines) == 1
    assert "pip install 'mtanimate[mediapipe]'" in lines[-1]


@needs_mediapipe
def test_faces_are_added_to_the_frames_that_were_kept_without(data, cached, tmp_path, monkeypatch):
    with monkeypatch.context() as without:
        no_mediapipe(without)
        assert cache_dataset(data, tmp_path / "cache", resolution=SIZE).without_faces == 4
        config = tiny_config(data={"cache": str(tmp_path / "cache")}, loss={"landmarks": 1.0})
        with pytest.raises(InputError, match=r"'mtanimate\[mediapipe\]'; the cache lacks them for 2 files, 'ann__1"):
            PairDataset(find_clips(data / "train"), config)
    result = cache_dataset(data, tmp_path / "cache", resolution=SIZE)
    assert (result.new, result.without_faces) == (0, 0)
    assert contents(tmp_path / "cache")[1:] == contents(cached)[1:]


def test_another_resolution_and_another_folder_are_refused(cached, data, tmp_path):
    with pytest.raises(InputError, match="is of 64 x 64 pixels, not 128 x 128"):
        cache_dataset(data, cached, resolution=128)
    with pytest.raises(InputError, match="no cache in"):
        Cache(tmp_path)
    config = tiny_config(data={"cache": str(cached)})
    config = replace(config, model=replace(config.model, resolution=128))
    with pytest.raises(InputError, match=r"is of 64 x 64 pixels: make another with .* --resolution 128"):
        PairDataset(find_clips(data), config)


def test_a_cache_that_is_being_filled_is_refused(cached, data):
    with open_cache_writer(cached, SIZE), pytest.raises(MTAnimateError, match="another process is filling the cache"):
        cache_dataset(data, cached, resolution=SIZE)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(
            ("index.json", text)
            for text in ("", "{}", '{"version": 1, "resolution": 64, "entries": [{}]}', '{"version": 0}')
        ),
        *(("index.jsonl", text) for text in ("", "\n", "{}\n", '{"version": 2, "resolution": 64}', '{"version": 1}\n')),
        ("index.jsonl", '{"version": 2, "resolution": 64}\n{"digest"\n{}\n'),
    ],
)
def test_a_damaged_index_is_refused(cached, tmp_path, name, text):
    shutil.copytree(cached, tmp_path / "cache")
    (tmp_path / "cache" / "index.jsonl").unlink()
    (tmp_path / "cache" / name).write_text(text)
    with pytest.raises(InputError, match=r"make (the cache|it) anew"):
        Cache(tmp_path / "cache")


@pytest.mark.parametrize(
    "changes",
    [
        {"first": "0"},
        {"first": -1},
        {"first": 10**400},
        {"count": None},
        {"count": 2.5},
        {"rate": "1e999999999"},
        {"rate": "1/0"},
        {"rate": []},
        {"digest": 3},
        {"name": {}},
    ],
    ids=str,
)
def test_an_index_with_other_values_is_refused(tmp_path, changes):
    entry = CacheEntry("d", "a.mp4", "a", "train", 0, 0, "25")
    with open_cache_writer(tmp_path, SIZE) as cache:
        cache.add(entry, [np.zeros((2, SIZE, SIZE, 3), np.uint8)])
    header, line = (tmp_path / "index.jsonl").read_text("utf-8").splitlines()
    assert Cache(tmp_path).entries["d"].count == 2
    (tmp_path / "index.jsonl").write_text(f"{header}\n{json.dumps(json.loads(line) | changes)}\n", "utf-8")
    with pytest.raises(InputError, match="make the cache anew"):
        Cache(tmp_path)


@pytest.mark.parametrize("resolution", [0, -64, "64", None, 64.5])
def test_an_index_of_no_resolution_is_refused(tmp_path, resolution):
    (tmp_path / "index.json").write_text(json.dumps({"version": 1, "resolution": resolution, "entries": []}), "utf-8")
    with pytest.raises(InputError, match="make the cache anew"):
        Cache(tmp_path)


# An index grows line by line


def some(digest, count=1):
    """An entry, and its frames, whose grey tells its number of frames."""
    return CacheEntry(digest, f"{digest}.mp4", "a", "train", 0, 0, "25"), [np.full((count, 4, 4, 3), count, np.uint8)]


def test_a_clip_adds_a_line_to_the_index_and_nothing_is_written_again(tmp_path):
    file = tmp_path / "index.jsonl"
    with open_cache_writer(tmp_path, 4) as cache:
        for number in range(1, 6):
            before, same = file.read_bytes(), file.stat().st_ino
            entry = cache.add(*some(str(number), number))
            assert file.read_bytes().startswith(before)
            assert (file.stat().st_ino, file.read_bytes().count(b"\n")) == (same, 1 + number)
        cache.add_faces(entry, np.zeros((5, 478, 3), np.int16), np.zeros((5, 64, 64), np.uint8))
    read = Cache(tmp_path)
    assert [(entry.count, entry.faces) for entry in read.entries.values()] == [(n, n == 5) for n in range(1, 6)]
    assert (read.frames(read.entries["3"], range(3)) == 3).all()
    with open_cache_writer(tmp_path, 4):
        assert len(file.read_text().splitlines()) == 1 + 5  # the entry's two lines are one again


def test_a_last_line_that_was_cut_off_does_not_count_and_its_clip_is_added_again(tmp_path):
    with open_cache_writer(tmp_path, 4) as cache:
        cache.add(*some("one", 2))
        cache.add(*some("two", 3))
    file = tmp_path / "index.jsonl"
    whole = file.read_bytes()
    for cut in (1, 9, len(whole.splitlines()[-1]) - 1):
        file.write_bytes(whole[:-cut])
        assert list(Cache(tmp_path).entries) == ["one"]
        assert file.read_bytes() == whole[:-cut]  # another process may be writing the line
        with open_cache_writer(tmp_path, 4) as cache:
            cache.add(*some("two", 3))
        assert file.read_bytes() == whole


def test_an_index_of_an_earlier_version_is_read_and_added_to(tmp_path):
    with open_cache_writer(tmp_path, 4) as cache:
        entry = cache.add(*some("one", 2))
    (tmp_path / "index.jsonl").unlink()
    content = {"version": 1, "resolution": 4, "entries": [asdict(entry)]}
    (tmp_path / "index.json").write_text(json.dumps(content, indent=0), "utf-8")
    assert Cache(tmp_path).entries == {"one": entry}
    with open_cache_writer(tmp_path, 4) as cache:
        cache.add(*some("two", 3))
    assert [(entry.first, entry.count) for entry in Cache(tmp_path).entries.values()] == [(0, 2), (2, 3)]
    assert not (tmp_path / "index.json").exists()
    (tmp_path / "index.json").write_text("mine")  # beside an index of this version it is not a cache's
    with open_cache_writer(tmp_path, 4):
        pass
    assert (tmp_path / "index.json").read_text() == "mine"


# Kills, cut files, full disks


def fill(data, out, at_event, limit, lines):
    """In a process of its own."""
    if at_event:
        _die_at(str(out), at_event)
    if limit:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        cache_dataset(data, out, resolution=SIZE)
    except MTAnimateError as error:
        lines.put(str(error))
        os._exit(error.exit_code)


def live(data, out, at_event=0, limit=0):
    """Its exit code, and the error's line."""
    lines = FORK.SimpleQueue()
    process = FORK.Process(target=fill, args=(data, out, at_event, limit, lines))
    process.start()
    process.join(120)
    return process.exitcode, None if lines.empty() else lines.get()


@pytest.mark.parametrize("events", [(2, 9, 20), pytest.param((5, 14, 27), marks=pytest.mark.slow)], ids=str)
def test_a_kill_at_any_file_operation_leaves_what_the_same_command_completes(data, cached, tmp_path, events):
    kills = 0
    for event in events:
        out = tmp_path / f"cache {event}"  # a process clears what others left in a folder only once
        ended, _ = live(data, out, at_event=event)
        kills += ended == -signal.SIGKILL
        if is_cache(out):
            Cache(out)
        cache_dataset(data, out, resolution=SIZE)
        assert contents(out) == contents(cached)
        assert list(out.glob(".*")) == []
    assert kills == 3


@pytest.mark.parametrize(("name", "bytes_left"), [("frames.bin", 15 * SIZE**2 * 3 - 1), ("mattes.bin", 5000)])
def test_a_file_that_was_cut_is_said_and_mended(data, cached, tmp_path, name, bytes_left):
    shutil.copytree(cached, tmp_path / "cache")
    os.truncate(tmp_path / "cache" / name, bytes_left)
    with pytest.raises(InputError, match="shorter than its index says: complete it with mtanimate data cache"):
        Cache(tmp_path / "cache")
    cache_dataset(data, tmp_path / "cache", resolution=SIZE)
    mended, whole = Cache(tmp_path / "cache"), Cache(cached)
    for digest, entry in whole.entries.items():
        for read in (Cache.frames, Cache.landmarks, Cache.mattes):
            again = read(mended, mended.entries[digest], range(entry.count))
            assert np.array_equal(again, read(whole, entry, range(entry.count)))


def test_a_full_disk_is_one_line_and_nothing_is_lost(data, cached, tmp_path):
    """No file may grow beyond 8 frames: one clip fits."""
    pytest.importorskip("resource")
    out = tmp_path / "cache"
    code, line = live(data, out, limit=8 * SIZE**2 * 3)
    assert code == 1
    assert line.startswith(f"cannot write in the cache '{out}' (File too large): make room")
    assert list(by_name(Cache(out))) == ["ann__1.mp4"]
    cache_dataset(data, out, resolution=SIZE)
    assert contents(out) == contents(cached)


# Training from it


def pairs_of(folder, cache="", loss=None, **data):
    augmentation = replace(PLAIN, horizontal_flip=0.5, rotation=5)
    config = tiny_config(loss=loss, data={"cache": str(cache), "augmentation": augmentation} | data)
    return PairDataset(find_clips(folder / "train"), config)


def test_pairs_from_the_cache_are_those_from_the_files(data, cached):
    from_cache, from_files = pairs_of(data, cached, loss={"landmarks": 1.0}), pairs_of(data, loss={"landmarks": 1.0})
    assert not from_cache.finds_landmarks
    for number in range(8):
        first, second = from_cache[number, number % 2], from_files[number, number % 2]
        assert first.clip == second.clip
        assert (first.frames.int() - second.frames.int()).abs().max() <= 3  # two decoders
        assert torch.equal(first.recipe.windows, second.recipe.windows)
        assert torch.equal(first.landmarks.isnan(), second.landmarks.isnan())
        assert (first.landmarks - second.landmarks).nan_to_num().abs().max() < 0.1


def test_a_run_from_a_cache_needs_no_mediapipe(data, cached, monkeypatch):
    no_mediapipe(monkeypatch)
    settings = {"stills": str(data / "stills"), "stills_share": 0.5, "augmentation": replace(PLAIN, background=1.0)}
    pairs = pairs_of(data, cached, loss={"landmarks": 1.0}, **settings)
    drawn = [pairs[number, number % 2] for number in range(12)]
    assert {pair.clip for pair in drawn} == {"ann__1.mp4", "bob__1.mp4", "zoe.png"}
    batch = collate(drawn).augmented()
    assert batch.landmarks.shape == (2, 12, 478, 2)
    assert any(pair.recipe.backdrop is not None for pair in drawn)


@pytest.mark.parametrize("processes", [1, 2])
def test_batches_are_the_same_however_many_processes_read(data, cached, processes):
    here = load_batches(pairs_of(data, cached), start=3, processes=0, pinned=False)
    there = load_batches(pairs_of(data, cached), start=3, processes=processes, pinned=False)
    for _ in range(3):
        first, second = next(here), next(there)
        assert torch.equal(first.frames, second.frames)
        assert torch.equal(first.recipe.windows, second.recipe.windows)
        assert first.clips == second.clips


def test_a_clip_that_is_not_in_the_cache_is_read_from_its_file(data, cached, tmp_path):
    shutil.copytree(data / "train", tmp_path / "train")
    write_video(tmp_path / "train" / "new__1.mp4", counting_frames(5, 1))
    pairs = pairs_of(tmp_path, cached)
    assert len(pairs.raw.entries) == 2
    assert {pairs[number, number % 3].clip for number in range(6)} == {"ann__1.mp4", "bob__1.mp4", "new__1.mp4"}


def test_a_cache_goes_to_another_process_without_its_pages(cached):
    cache = Cache(cached)
    entry = by_name(cache)["ann__1.mp4"]
    cache.frames(entry, [0])
    cache.meshes(entry, [0])
    data = pickle.dumps(cache)
    assert len(data) < 5000
    assert np.array_equal(pickle.loads(data).frames(entry, [2]), cache.frames(entry, [2]))


# What needs faces


def test_the_most_different_of_some_frames_is_drawn(data, cached):
    """What differs is judged by the expression alone."""
    with pytest.raises(InputError, match=r"data\.differing needs to know all faces of the clips: make a cache"):
        pairs_of(data, differing=1.0)
    dataset = pairs_of(data, cached, differing=1.0)
    clip = next(clip for clip in dataset.clips if clip.identity == "ann")
    meshes = dataset.raw.meshes(clip, range(6), None)
    opened = meshes.copy()
    opened[4, 14, 1] += 0.2  # one frame opens its mouth
    dataset.raw.meshes = lambda clip, numbers, frames: opened[list(numbers)]
    random = np.random.default_rng(0)
    drawn = [dataset._numbers(clip, random) for _ in range(40)]
    assert all(first <= second for first, second in drawn)
    assert sum(4 in numbers for numbers in drawn) > 25  # of six, when it is among them


def test_tokens_are_not_tied_where_no_clip_shows_a_face(data, cached, tmp_path):
    (tmp_path / "train").mkdir()
    shutil.copy(data / "train" / "bob__1.mp4", tmp_path / "train")
    loss = {"token_landmarks": 1}
    with pytest.raises(InputError, match="no clip shows a face"):
        pairs_of(tmp_path, cached, loss)
    assert len(pairs_of(data, cached, loss).clips) == 2


def test_people_before_another_background_are_told_from_it(data, cached):
    dataset = pairs_of(data, cached, augmentation=replace(PLAIN, background=1.0))
    pairs = [dataset[number, entry] for number in range(3) for entry in range(2)]
    batch = collate(pairs).augmented()
    assert batch.people.shape == (2, 6, 1, SIZE, SIZE)
    of_ann, of_bob = batch.people[:, 0::2], batch.people[:, 1::2]
    assert (of_bob == 1).all()  # nobody is there: his pictures stay as they are
    assert 0.05 < of_ann.mean() < 0.95
