"""Folders of videos and the pairs of frames that are drawn from them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import counting_frames, tiny_config, write_video

from mtanimate.config import AugmentationConfig
from mtanimate.data.clips import Clip, find_clips, split_clips
from mtanimate.data.loading import load_batches
from mtanimate.data.pairs import PairDataset, Unreadable
from mtanimate.errors import InputError
from mtanimate.faces.detection import square_frames
from mtanimate.video import write_image

RED, BLUE = 0, 2


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Two clips of 12 and 8 frames, each frame with a grey of its own."""
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "ann__1.mp4", counting_frames(12, RED))
    write_video(folder / "bob__1.mp4", counting_frames(8, BLUE))
    return folder


def pairs_of(folder, resolution=32, seed=0, **data):
    config = tiny_config(data=data, seed=seed)
    return PairDataset(find_clips(folder), replace(config, model=replace(config.model, resolution=resolution)))


def draw(dataset, count):
    """Pairs 0 ... count - 1 of a run, entries in turn."""
    return [dataset[number, number % len(dataset.entries)] for number in range(count)]


def number(frame, count):
    """Which of `count` frames of `counting_frames` it is, by its green."""
    return round((frame[1].float().mean().item() - 20) / 200 * count)


# Clips


@pytest.mark.parametrize(
    ("name", "identity"),
    [
        ("ann.mp4", "ann"),
        ("ann__2.mp4", "ann"),
        ("id10283#abc#001#20.mp4", "id10283"),
        ("ann_smith__x__y.MOV", "ann_smith"),
        ("one_two.gif", "one_two"),
        ("id10283#ab__c#001#20.mp4", "id10283"),
        ("__c-ab#001#20.mp4", "__c-ab"),
    ],
)
def test_identity_ends_before_two_underscores_or_a_hash(tmp_path, name, identity):
    (tmp_path / name).touch()
    assert find_clips(tmp_path) == [Clip(tmp_path / name, identity)]


def test_folders_of_frames_are_clips_too(tmp_path):
    """As data sets that were taken apart have them: a folder named like its video."""
    touch(tmp_path, "id1#x#0#9.mp4/0000000.png", "id2__1/a.jpg", "id3.mp4", ".hidden/c.png", "title.png")
    assert [(clip.path.name, clip.identity) for clip in find_clips(tmp_path)] == [
        ("id1#x#0#9.mp4", "id1"),
        ("id2__1", "id2"),
        ("id3.mp4", "id3"),
    ]


def test_frames_of_a_folder_are_in_the_order_of_their_numbers(tmp_path):
    (tmp_path / "clip").mkdir()
    for index, frame in enumerate(counting_frames(12, RED, 16)):
        write_image(tmp_path / "clip" / f"{index}.png", frame)
    reader = find_clips(tmp_path)[0].open()
    assert reader.frame_count == 12
    greens = reader.frames(range(12))[:, 0, 0, 1].tolist()
    assert greens == sorted(greens)
    assert np.array_equal(np.concatenate(list(reader.batches(5))), reader.frames(range(12)))
    assert np.array_equal(np.concatenate(list(reader.batches(2, 3, 11, 3))), reader.frames([3, 6, 9]))


def test_other_files_are_not_clips(tmp_path):
    for name in ("a.mp4", "notes.txt", "a.mp4.part", "mp4", ".b.mp4"):
        (tmp_path / name).touch()
    assert [clip.path.name for clip in find_clips(tmp_path)] == ["a.mp4"]


def test_a_folder_of_videos_is_not_a_clip(tmp_path):
    (tmp_path / "a.mp4").mkdir()
    (tmp_path / "a.mp4" / "b.mp4").touch()
    assert [clip.path.name for clip in find_clips(tmp_path)] == ["b.mp4"]


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(InputError, match="no data folder"):
        find_clips(tmp_path / "none")
    with pytest.raises(InputError, match="no videos and no folders of frames in"):
        find_clips(tmp_path)


# Train and test


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def names(clips):
    return [clip.path.name for clip in clips]


def test_folders_train_and_test_say_the_split(tmp_path):
    touch(tmp_path, "train/b.mp4", "train/sub/a.webm", "test/c.mp4", "d.mp4")
    split = split_clips(tmp_path, 0.1, 0)
    assert (names(split.train), names(split.test)) == (["b.mp4", "a.webm"], ["c.mp4"])


def test_a_folder_test_alone_is_held_out(tmp_path):
    touch(tmp_path, "a.mp4", "test/c.mp4", "testing/d.mp4")
    split = split_clips(tmp_path, 0.1, 0)
    assert (names(split.train), names(split.test)) == (["a.mp4", "d.mp4"], ["c.mp4"])


def test_identities_are_held_out_by_a_seed(tmp_path):
    touch(tmp_path, *(f"p{person:02}__{clip}.mp4" for person in range(20) for clip in range(2)))
    split = split_clips(tmp_path, 0.1, 0)
    people = {clip.identity for clip in split.test}
    assert len(people) == 2
    assert people.isdisjoint(clip.identity for clip in split.train)
    assert len(split.train) + len(split.test) == 40
    assert split_clips(tmp_path, 0.1, 0) == split
    assert any(split_clips(tmp_path, 0.1, seed).test != split.test for seed in (1, 2, 3))


# Whose clip it is, where names do not say it


def by_person(split):
    """The clips' paths of each identity; those of train and of test must have none in common."""
    people = {}
    for clip in split.train + split.test:
        people.setdefault(clip.identity, set()).add(clip.path)
    assert {clip.identity for clip in split.train}.isdisjoint(clip.identity for clip in split.test)
    return people


@pytest.mark.parametrize(
    "name", ["{person}/{video}.mp4", "{person}/x{video}/00001.mp4", "{person}/{video}/0000000.png"], ids=str
)
@given(counts=st.lists(st.integers(1, 4), min_size=5, max_size=8), seed=st.integers(0, 9))
def test_numbered_clips_are_their_folders(tmp_path_factory, name, counts, seed):
    """As VoxCeleb has them: no person is in train and in test."""
    folder = tmp_path_factory.mktemp("numbered")
    counts[0] = max(counts[0], 2)
    for person, videos in enumerate(counts):
        touch(folder, *(name.format(person=f"id{person}", video=f"{video:05}") for video in range(videos)))
    split = split_clips(folder, 0.2, seed)
    assert {identity: len(paths) for identity, paths in by_person(split).items()} == {
        f"id{person}": videos for person, videos in enumerate(counts)
    }
    assert split.test
    assert all(identity in path.parts for identity, paths in by_person(split).items() for path in paths)
    assert "folder" in split.known_by


def test_train_and_test_together_say_by_what_people_are_known(tmp_path):
    """Neither has a name twice by itself; together they show that 00001 is no person."""
    touch(tmp_path, "train/ann/00001.mp4", "train/ann/00002.mp4", "test/bob/00001.mp4")
    split = split_clips(tmp_path, 0.1, 0)
    assert [clip.identity for clip in split.train] == ["ann", "ann"]
    assert [clip.identity for clip in split.test] == ["bob"]


def test_names_that_say_a_person_count_wherever_they_lie(tmp_path):
    touch(
        tmp_path, "large/ann__1.mp4", "small/ann__1.mp4", "small/bob#1.mp4", "cy.mp4", "small/dan.mp4", "large/eve.mp4"
    )
    split = split_clips(tmp_path, 0.0, 0)
    assert {clip.identity for clip in split.train} == {"ann", "bob", "cy", "dan", "eve"}
    assert "names" in split.known_by


@pytest.mark.parametrize(("people", "held"), [(1, 0), (4, 0), (6, 1), (10, 1), (26, 3)])
def test_few_people_are_not_held_out(tmp_path, people, held):
    touch(tmp_path, *(f"p{person}.mp4" for person in range(people)))
    assert len(split_clips(tmp_path, 0.1, 0).test) == held


# Pairs


def test_the_centred_square_is_taken():
    frames = np.zeros((2, 10, 30, 3), np.uint8)
    frames[:, :, 10:20] = 200
    square = square_frames(frames, 10)
    assert square.shape == (2, 3, 10, 10)
    assert square.dtype == torch.uint8
    assert (square == 200).all()


def test_both_frames_are_of_one_clip_and_all_clips_are_drawn(videos):
    drawn = set()
    for pair in draw(pairs_of(videos), 20):
        assert pair.frames.shape == (2, 3, 32, 32)
        colours = {int(frame.float().mean(dim=(1, 2)).argmax()) for frame in pair.frames}
        assert colours == {RED if pair.clip == "ann__1.mp4" else BLUE}
        drawn |= colours
    assert drawn == {RED, BLUE}


def test_without_a_time_flip_the_earlier_frame_is_the_source(videos):
    numbers = []
    for pair in draw(pairs_of(videos), 80):
        count = 12 if pair.clip == "ann__1.mp4" else 8
        numbers.append((number(pair.frames[0], count), number(pair.frames[1], count), count))
    assert all(first <= second < count for first, second, count in numbers)
    assert sum(first == second for first, second, _ in numbers) < 20  # of one in ten
    assert {first for first, _, count in numbers if count == 8} >= {0, 3}
    assert max(second for _, second, count in numbers if count == 12) == 11


@pytest.mark.parametrize(("least", "kept"), [(3, {12: 3, 8: 3}), (6, {12: 6, 8: 4}), (100, {12: 6, 8: 4})])
def test_min_distance_is_kept_up_to_half_a_clip(videos, least, kept):
    distances = []
    for pair in draw(pairs_of(videos, min_distance=least), 60):
        count = 12 if pair.clip == "ann__1.mp4" else 8
        distances.append((number(pair.frames[1], count) - number(pair.frames[0], count), count))
    assert all(distance >= kept[count] for distance, count in distances)
    assert any(distance > kept[count] for distance, count in distances)


def test_a_pair_depends_on_the_seed_and_its_number_alone(videos):
    augmentation = AugmentationConfig(window=(0.8, 1.0), own_window=0.5)
    pairs = pairs_of(videos, augmentation=augmentation)
    first = pairs[7, 0]
    pairs[3, 1], pairs[4, 0]
    assert torch.equal(pairs[7, 0].frames, first.frames)
    assert torch.equal(pairs[7, 0].recipe.windows, first.recipe.windows)
    assert torch.equal(pairs[7, 0].transform.theta, first.transform.theta)
    for other in (pairs[8, 0], pairs_of(videos, seed=1, augmentation=augmentation)[7, 0]):
        assert not torch.equal(other.recipe.windows, first.recipe.windows)
        assert not torch.equal(other.frames, first.frames)


def test_an_entry_is_an_identity_or_a_clip(tmp_path):
    for name in ("ann__1", "ann__2", "ann__3", "bob"):
        write_video(tmp_path / f"{name}.mp4", counting_frames(2, RED))
    people, clips = pairs_of(tmp_path), pairs_of(tmp_path, by_identity=False)
    assert (len(people.entries), len(clips.entries)) == (2, 4)
    assert len(people) == 2 * 150
    assert {people[number, 0].clip for number in range(20)} == {"ann__1.mp4", "ann__2.mp4", "ann__3.mp4"}
    assert {clips[number, 3].clip for number in range(5)} == {"bob.mp4"}


def test_a_clip_that_cannot_be_read_is_replaced_and_named(videos, tmp_path):
    (tmp_path / "ann__1.mp4").symlink_to(videos / "ann__1.mp4")
    (tmp_path / "broken.mp4").write_bytes(b"no video" * 50)
    write_video(tmp_path / "short.mp4", counting_frames(1, RED))
    pairs = pairs_of(tmp_path)
    assert [clips[0].identity for clips in pairs.entries] == ["ann", "broken", "short"]
    for entry, said in ((1, "broken.mp4"), (2, "short.mp4 has 1 frame: a clip needs two")):
        pair = pairs[0, entry]
        assert pair.clip == "ann__1.mp4"
        assert said in pair.skipped[0]


def test_where_nothing_can_be_read_it_is_said(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video" * 50)
    pairs = pairs_of(tmp_path)
    unreadable = pairs[0, 0]
    assert isinstance(unreadable, Unreadable)
    assert "a.mp4" in unreadable.message
    with pytest.raises(InputError, match=r"a\.mp4"):
        next(load_batches(pairs, start=0, processes=0, pinned=False))


# Batches


@pytest.mark.parametrize("processes", [1, 2])
def test_batches_are_the_same_however_many_processes_decode(videos, processes):
    here = load_batches(pairs_of(videos), start=5, processes=0, pinned=False)
    there = load_batches(pairs_of(videos), start=5, processes=processes, pinned=False)
    for _ in range(3):
        first, second = next(here).augmented(), next(there).augmented()
        assert first.source.shape == (4, 3, 32, 32)
        assert first.transform.theta.shape == (4, 2, 3)
        assert torch.equal(first.source, second.source)
        assert torch.equal(first.driving, second.driving)
        assert torch.equal(first.transform.weights, second.transform.weights)
        assert first.clips == second.clips
    del there
