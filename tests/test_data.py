"""Folders of videos and the pairs of frames that are drawn from them."""

import numpy as np
import pytest
import torch
from tiny import PLAIN, counting_frames, write_video

from mtanimate.config import AugmentationConfig, DataConfig
from mtanimate.data.clips import Clip, find_clips
from mtanimate.data.pairs import PairSampler
from mtanimate.errors import InputError
from mtanimate.video.crop import square_frames

RED, BLUE = 0, 2


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Two clips of 12 and 8 frames, each frame with a grey of its own."""
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "ann__1.mp4", counting_frames(12, RED))
    write_video(folder / "bob__1.mp4", counting_frames(8, BLUE))
    return folder


def sampler(folder, resolution=32, **config):
    return PairSampler(find_clips(folder, "train"), resolution, DataConfig(**{"augmentation": PLAIN, **config}))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def number(frame, count):
    """Which of `count` frames of `counting_frames` it is, by its green."""
    return round((frame[1].mean().item() * 255 - 20) / 200 * count)


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
    assert find_clips(tmp_path, "train") == [Clip(tmp_path / name, identity)]


def test_a_split_folder_is_preferred_and_others_are_left_out(tmp_path):
    for name in ("train/b.mp4", "train/sub/a.webm", "test/c.mp4", "d.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [clip.path.name for clip in find_clips(tmp_path, "train")] == ["b.mp4", "a.webm"]
    assert [clip.path.name for clip in find_clips(tmp_path, "test")] == ["c.mp4"]
    assert len(find_clips(tmp_path, "valid")) == 4


def test_other_files_are_not_clips(tmp_path):
    for name in ("a.mp4", "notes.txt", "a.mp4.part", "mp4"):
        (tmp_path / name).touch()
    assert [clip.path.name for clip in find_clips(tmp_path, "train")] == ["a.mp4"]


def test_a_folder_is_not_a_clip(tmp_path):
    (tmp_path / "a.mp4").mkdir()
    (tmp_path / "a.mp4" / "b.mp4").touch()
    assert [clip.path.name for clip in find_clips(tmp_path, "train")] == ["b.mp4"]


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(InputError, match="no data folder"):
        find_clips(tmp_path / "none", "train")
    with pytest.raises(InputError, match="no videos in"):
        find_clips(tmp_path, "train")


# Pairs


def test_the_centred_square_is_taken():
    frames = np.zeros((2, 10, 30, 3), np.uint8)
    frames[:, :, 10:20] = 200
    square = square_frames(frames, 10)
    assert square.shape == (2, 3, 10, 10)
    assert square.dtype == torch.uint8
    assert (square == 200).all()


def test_batches_have_the_size_asked_for_and_lie_in_range(videos):
    source, driving = sampler(videos).batch(3, seeded())
    assert source.shape == driving.shape == (3, 3, 32, 32)
    assert source.dtype == torch.float32
    assert source.min() >= 0
    assert 0.9 < source.max() <= 1


def test_both_frames_are_of_one_clip_and_all_clips_are_drawn(videos):
    drawn = set()
    pairs = sampler(videos)
    generator = seeded()
    for _ in range(40):
        pair = pairs.draw(generator)
        colours = {int(frame.mean(dim=(1, 2)).argmax()) for frame in pair}
        assert len(colours) == 1
        drawn |= colours
    assert drawn == {RED, BLUE}


def test_without_a_time_flip_the_earlier_frame_is_the_source(videos):
    pairs, generator = sampler(videos), seeded(1)
    numbers = []
    for _ in range(60):
        pair = pairs.draw(generator)
        count = 12 if pair[0].mean(dim=(1, 2)).argmax() == RED else 8
        numbers.append((number(pair[0], count), number(pair[1], count), count))
    assert all(first <= second < count for first, second, count in numbers)
    assert sum(first == second for first, second, _ in numbers) < 15  # of one in ten
    assert {first for first, _, count in numbers if count == 8} >= {0, 3}
    assert max(second for _, second, count in numbers if count == 12) == 11


@pytest.mark.parametrize(("least", "kept"), [(3, {12: 3, 8: 3}), (6, {12: 6, 8: 4}), (100, {12: 6, 8: 4})])
def test_min_distance_is_kept_up_to_half_a_clip(videos, monkeypatch, least, kept):
    pairs, generator = sampler(videos, min_distance=least), seeded(2)
    asked = []
    read = pairs._read

    def spy(source, first, second):
        asked.append((source.frame_count, first, second))
        return read(source, first, second)

    monkeypatch.setattr(pairs, "_read", spy)
    for _ in range(80):
        pairs.draw(generator)
    for count, first, second in asked:
        assert 0 <= first < second < count
        assert second - first >= kept[count]
    assert any(second - first > kept[count] for count, first, second in asked)


def test_cached_equals_uncached(videos):
    cached, uncached = sampler(videos), sampler(videos, cache_gib=0.0)
    assert cached.cached_bytes == 20 * 3 * 32 * 32
    assert uncached.cached_bytes == 0
    for seed in range(8):
        first, second = (pairs.draw(seeded(seed)) for pairs in (cached, uncached))
        assert (first - second).abs().max() <= 2 / 255


def test_the_cache_takes_clips_while_they_fit(videos):
    only_first = sampler(videos, cache_gib=(13 * 3 * 32 * 32) / 2**30)
    assert only_first.cached_bytes == 12 * 3 * 32 * 32


def test_drawing_is_reproducible_by_its_seed(videos):
    pairs = sampler(videos, augmentation=AugmentationConfig(crop=0.8, own_crop=0.5))
    first, second, other = (pairs.batch(4, seeded(seed)) for seed in (7, 7, 8))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], other[0])


def test_an_identity_counts_once_however_many_clips_it_has(tmp_path):
    for name in ("ann__1", "ann__2", "ann__3", "bob"):
        write_video(tmp_path / f"{name}.mp4", counting_frames(2, RED if name != "bob" else BLUE))
    pairs, generator = sampler(tmp_path), seeded(0)
    assert pairs.identities == ["ann", "bob"]
    assert pairs.clip_count == 4
    blue = sum(int(pairs.draw(generator)[0].mean(dim=(1, 2)).argmax() == BLUE) for _ in range(200))
    assert 70 < blue < 130


def test_progress_is_told_of_every_clip(videos):
    seen = []
    PairSampler(find_clips(videos, "train"), 16, DataConfig(), lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]


def test_a_clip_of_one_frame_is_refused(tmp_path):
    write_video(tmp_path / "short.mp4", counting_frames(1, RED))
    with pytest.raises(InputError, match=r"short\.mp4' has 1 frame: a training clip needs two"):
        sampler(tmp_path)


def test_a_file_that_is_no_video_is_refused(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video" * 50)
    with pytest.raises(InputError, match=r"a\.mp4"):
        sampler(tmp_path)
