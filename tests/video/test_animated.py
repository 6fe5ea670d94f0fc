"""Animated WebP, PNG and AVIF are videos: every frame, when it is shown, as driving and as source."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moving import moving
from PIL import Image

from mtanimate.errors import InputError
from mtanimate.video import read_image
from mtanimate.video.footage import AnimatedPicture, FrameFolder, is_moving, open_footage

OPTIONS = {".webp": {"lossless": True}, ".png": {}, ".apng": {}, ".avif": {"quality": 100, "subsampling": "4:4:4"}}


def _write(path: Path, frames: np.ndarray, milliseconds: int | list[int] = 40, **options) -> Path:
    pictures = [Image.fromarray(frame) for frame in frames]
    kind = {"format": "PNG"} if path.suffix == ".apng" else {}
    more = {**OPTIONS.get(path.suffix, {}), **kind, **options}
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=milliseconds, **more)
    return path


@pytest.mark.parametrize("suffix", OPTIONS)
def test_every_frame_is_read_in_order_and_by_number(tmp_path: Path, suffix: str) -> None:
    frames = moving(12)
    reader = open_footage(_write(tmp_path / f"a{suffix}", frames))
    assert isinstance(reader, AnimatedPicture)
    assert (reader.frame_count, reader.width, reader.height, reader.fps) == (12, 64, 48, 25)
    assert not reader.variable
    assert reader.times == [Fraction(number, 25) for number in range(12)]
    whole = np.concatenate(list(reader.batches(5)))
    assert np.abs(whole.astype(int) - frames).max() <= (6 if suffix == ".avif" else 0)
    np.testing.assert_array_equal(np.concatenate(list(reader.batches(2, 3, 11, 3))), whole[3:11:3])
    np.testing.assert_array_equal(reader.frames([7, 0, 7, 11]), whole[[7, 0, 7, 11]])
    assert reader.frames([]).shape == (0, 48, 64, 3)
    with pytest.raises(IndexError):
        reader.frames([12])
    assert reader.frames_between(0.1, 0.2) == range(3, 5)


@pytest.mark.parametrize("suffix", OPTIONS)
def test_frames_keep_their_times(tmp_path: Path, suffix: str) -> None:
    reader = AnimatedPicture(_write(tmp_path / f"a{suffix}", moving(4), [40, 200, 100, 40]))
    assert reader.variable
    assert reader.times == [0, Fraction(1, 25), Fraction(6, 25), Fraction(17, 50)]


@pytest.mark.parametrize("suffix", [".webp", ".png"])
def test_rounded_times_are_a_common_rate(tmp_path: Path, suffix: str) -> None:
    times = [round(1000 * number / 30) for number in range(31)]
    lengths = np.diff(times).tolist()
    reader = AnimatedPicture(_write(tmp_path / f"a{suffix}", moving(30), lengths))
    assert (reader.fps, reader.variable) == (30, False)


def test_what_asks_for_no_time_is_shown_as_browsers_show_it(tmp_path: Path) -> None:
    assert AnimatedPicture(_write(tmp_path / "a.webp", moving(3), 0)).fps == 10


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(2, 9), size=st.integers(1, 9), numbers=st.lists(st.integers(0, 8), max_size=6))
def test_any_numbers_of_any_animation(tmp_path: Path, count: int, size: int, numbers: list[int]) -> None:
    frames = np.random.default_rng(count).integers(0, 256, (count, 4, 5, 3), dtype=np.uint8)
    reader = AnimatedPicture(_write(tmp_path / "a.png", frames))
    np.testing.assert_array_equal(np.concatenate(list(reader.batches(size))), frames)
    there = [number for number in numbers if number < count]
    np.testing.assert_array_equal(reader.frames(there), frames[there])


def test_the_picture_for_those_who_know_no_animation_is_not_of_it(tmp_path: Path) -> None:
    frames = moving(4)
    reader = AnimatedPicture(_write(tmp_path / "a.png", frames, default_image=True))
    np.testing.assert_array_equal(reader.frames(range(3)), frames[1:])
    assert reader.frame_count == 3


def test_transparent_frames_are_laid_over_white(tmp_path: Path) -> None:
    frames = np.zeros((3, 4, 5, 4), np.uint8)
    frames[1, ..., 3] = 51
    reader = AnimatedPicture(_write(tmp_path / "a.webp", frames))
    assert reader.frames(range(3))[:, 0, 0, 0].tolist() == [255, 204, 255]


@pytest.mark.parametrize("name", ["a.webp", "a.png", "a.avif", "a.gif"])
def test_what_moves_is_a_moving_source(tmp_path: Path, name: str) -> None:
    assert is_moving(_write(tmp_path / name, moving(3)))
    assert not is_moving(_write(tmp_path / f"still-{name}", moving(1)))
    assert not is_moving(tmp_path / f"missing-{name}")


@pytest.mark.parametrize("name", ["still.webp", "still.png", "still.avif", "pages.tif"])
def test_a_still_and_pages_are_one_frame(tmp_path: Path, name: str) -> None:
    frames = moving(3 if name == "pages.tif" else 1)
    pictures = [Image.fromarray(frame) for frame in frames]
    pictures[0].save(tmp_path / name, save_all=len(pictures) > 1, append_images=pictures[1:])
    reader = open_footage(tmp_path / name)
    assert isinstance(reader, FrameFolder)
    assert reader.frame_count == 1
    assert not is_moving(tmp_path / name)
    np.testing.assert_array_equal(reader.frames([0])[0], read_image(tmp_path / name))


@pytest.mark.parametrize("name", ["a.webp", "a.png"])
def test_a_cut_off_animation_is_refused(tmp_path: Path, cut, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    with pytest.raises(InputError) as caught:
        open_footage(cut(_write(tmp_path / name, noise), 0.7))
    assert "cut_a" in str(caught.value)
