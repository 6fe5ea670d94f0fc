"""Videos go out whole, with the exact rate, true colours and the source's sound, or not at all."""

import errno
import os
import signal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moving import FPS, moving, names, write

from mtanimate.errors import InputError, MTAnimateError
from mtanimate.files import CameMeanwhile
from mtanimate.video import Sound, VideoReader, VideoWriter, check_output

X264 = ("-pix_fmt", "yuv420p", "-preset", "ultrafast")


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".m4v", ".MP4"])
def test_what_is_written_is_read_back(tmp_path: Path, suffix: str) -> None:
    frames = moving()
    writer = write(tmp_path / f"a{suffix}", frames)
    reader = VideoReader(tmp_path / f"a{suffix}")
    assert (reader.frame_count, reader.fps, reader.width, reader.height) == (30, FPS, 64, 48)
    assert not reader.has_audio
    assert not writer.audio
    assert np.abs(reader.frames(range(30)).astype(int) - frames).mean() < 3
    assert names(tmp_path) == [f"a{suffix}"]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    fps=st.sampled_from([Fraction(24000, 1001), Fraction(25), Fraction(25, 2), Fraction(60000, 1001), Fraction(7)]),
    count=st.integers(1, 12),
    height=st.integers(16, 40),
    width=st.integers(16, 40),
)
def test_any_size_rate_and_length(tmp_path: Path, fps: Fraction, count: int, height: int, width: int) -> None:
    frames = moving(count, height, width)
    write(tmp_path / "a.mp4", frames, fps=fps, overwrite=True)
    reader = VideoReader(tmp_path / "a.mp4")
    assert (reader.frame_count, reader.fps) == (count, fps)
    assert (reader.height, reader.width) == (height + height % 2, width + width % 2)
    back = reader.frames(range(count))
    assert np.abs(back[:, :height, :width].astype(int) - frames).mean() < 6
    assert np.abs(back[:, height - 1, :width].astype(int) - frames[:, height - 1]).mean() < 12  # no dark seam


COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 120, 40), (30, 160, 150)]


@pytest.mark.parametrize("colour", COLOURS)
def test_colours_stay(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    write(tmp_path / "a.mp4", np.full((3, 64, 64, 3), colour, np.uint8))
    reader = VideoReader(tmp_path / "a.mp4")
    for pixels in (reader.frames([1])[0], next(reader.batches(1))[0]):
        assert np.abs(pixels.astype(int) - colour).max() <= 4


def test_the_colour_tags_are_said(tmp_path: Path, ffmpeg_says) -> None:
    write(tmp_path / "a.mp4", moving(3))
    assert "yuv420p(tv, bt709" in ffmpeg_says(tmp_path / "a.mp4")
    content = (tmp_path / "a.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # the index comes first: it plays while it loads


SOUND = {
    "a.mp4": ("-c:a", "aac"),
    "b.mkv": ("-c:a", "libopus"),
    "c.mkv": ("-c:a", "libmp3lame"),
    "d.mkv": ("-c:a", "ac3"),
    "e.mov": ("-c:a", "alac"),
    "f.mkv": ("-c:a", "libvorbis"),
    "g.avi": ("-c:a", "pcm_s16le"),
}


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("source", SOUND)
def test_sound_is_copied_where_the_container_takes_it(
    make_video, stream_hash, packet_times, ffmpeg_says, tmp_path: Path, source: str, suffix: str
) -> None:
    driving = make_video("in_" + source, seconds=1, sound=1, options=(*X264, *SOUND[source]))
    out = tmp_path / f"out{suffix}"
    assert write(out, moving(60), sound=Sound(driving)).audio
    reader = VideoReader(out)
    assert reader.has_audio
    assert (reader.frame_count, reader.fps) == (60, FPS)
    reencoded = {
        ".mp4": {"f.mkv", "g.avi"},
        ".mov": {"b.mkv", "f.mkv"},
        ".mkv": {"e.mov"},
    }
    end = packet_times(out, "a")[-1][1]
    if source in reencoded[suffix]:
        assert "Audio: aac" in ffmpeg_says(out)
        assert end == pytest.approx(60 / FPS, abs=0.06)  # in silence
    else:
        assert end == pytest.approx(packet_times(driving, "a")[-1][1], abs=0.06)
        assert stream_hash(out, "a") == stream_hash(driving, "a")


def test_long_sound_ends_with_the_picture(make_video, packet_times, tmp_path: Path) -> None:
    driving = make_video("in.mp4", seconds=1, sound=6, options=X264)
    write(tmp_path / "out.mp4", moving(60), sound=Sound(driving))
    assert packet_times(tmp_path / "out.mp4", "v")[-1][1] == pytest.approx(60 / FPS, abs=1e-3)
    assert packet_times(tmp_path / "out.mp4", "a")[-1][1] == pytest.approx(60 / FPS, abs=0.03)


def test_short_sound_leaves_the_picture_whole(make_video, packet_times, tmp_path: Path) -> None:
    driving = make_video("in.mp4", seconds=1, sound=0.5, options=X264)
    write(tmp_path / "out.mp4", moving(60), sound=Sound(driving))
    assert VideoReader(tmp_path / "out.mp4").frame_count == 60
    assert packet_times(tmp_path / "out.mp4", "a")[-1][1] == pytest.approx(0.5, abs=0.05)


def test_a_silent_source_gives_a_silent_video(make_video, tmp_path: Path) -> None:
    driving = make_video("in.mp4", options=X264)
    assert not write(tmp_path / "out.mp4", moving(), sound=Sound(driving)).audio
    assert not VideoReader(tmp_path / "out.mp4").has_audio


def test_a_missing_source_of_sound_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.mp4"):
        write(tmp_path / "out.mp4", moving(), sound=Sound(tmp_path / "none.mp4"))
    assert not names(tmp_path)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_break_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "a.mp4").write_text("the old file")
    writer = VideoWriter(tmp_path / "a.mp4", fps=FPS, width=64, height=48, overwrite=True)
    process = writer._out._ffmpeg.process

    def break_off() -> None:
        with writer:
            writer.write(moving())
            raise error

    with pytest.raises(error):
        break_off()
    assert process.poll() is not None
    assert names(tmp_path) == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_text() == "the old file"


@pytest.mark.parametrize("more", [0, 1000])
def test_a_killed_encoder_is_an_error_and_leaves_nothing(tmp_path: Path, more: int) -> None:
    writer = VideoWriter(tmp_path / "a.mp4", fps=FPS, width=64, height=48)

    def go_on() -> None:
        with writer:
            writer.write(moving())
            os.kill(writer._out._ffmpeg.process.pid, signal.SIGKILL)
            for _ in range(more):
                writer.write(moving())

    with pytest.raises(MTAnimateError, match=r"a\.mp4 could not be encoded.*killed") as caught:
        go_on()
    assert caught.value.exit_code == 1
    assert not names(tmp_path)


def test_no_frames_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MTAnimateError, match="no frame"):
        write(tmp_path / "a.mp4", moving(0))
    assert not names(tmp_path)


def test_frames_of_another_size_are_refused(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", fps=FPS, width=64, height=48) as writer:
        for wrong in (moving(2, 48, 66), moving(2).astype(float), moving(2)[0]):
            with pytest.raises(ValueError, match="expected uint8"):
                writer.write(wrong)
        writer.write(moving(2))
    assert VideoReader(tmp_path / "a.mp4").frame_count == 2


def test_the_disk_is_full_while_frames_come(small_disk: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (10, 96, 96, 3), dtype=np.uint8)
    with pytest.raises(MTAnimateError, match="the disk is full") as caught:
        write(small_disk / "a.mp4", np.tile(noise, (40, 1, 1, 1)))
    assert caught.value.exit_code == 1
    assert not names(small_disk)


def test_the_disk_is_full_when_the_sound_is_added(make_video, small_disk: Path) -> None:
    driving = make_video("in.mkv", sound=10, options=("-c:a", "pcm_s16le"))
    frames = np.zeros((10, 48, 64, 3), np.uint8)
    with pytest.raises(MTAnimateError, match="the disk is full"):
        write(small_disk / "a.mkv", frames, fps=Fraction(1), sound=Sound(driving))
    assert not names(small_disk)


def test_an_existing_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_text("precious")
    with pytest.raises(InputError, match="exists already"):
        write(path, moving())
    assert path.read_text() == "precious"
    write(path, moving(), overwrite=True)
    assert VideoReader(path).frame_count == 30


@pytest.mark.parametrize("name", ["a", "a.avi", "a.mp4.txt", "none/a.mp4", "folder.mp4"])
def test_check_output_refuses(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(InputError) as caught:
        check_output(tmp_path / name, overwrite=True)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["folder.mp4"]


def test_check_output_leaves_nothing_behind(tmp_path: Path) -> None:
    check_output(tmp_path / "a.mp4", overwrite=False)
    assert not names(tmp_path)


def test_a_read_only_folder(tmp_path: Path) -> None:
    if os.geteuid() == 0:  # permissions do not bind root, but no one can create a file in /proc
        folder = Path("/proc")
        if not folder.is_dir():
            pytest.skip("root may write anywhere here")
    else:
        folder = tmp_path / "locked"
        folder.mkdir(mode=0o500)
    with pytest.raises(InputError, match="cannot write in the folder"):
        check_output(folder / "a.mp4", overwrite=False)


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a/"])
def test_two_writers_of_one_new_name_do_not_both_succeed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, links: bool
) -> None:
    """links: whether the file system knows second names."""
    if not links:
        monkeypatch.setattr(os, "link", _no_links)
    first: dict[str, bytes] = {}

    def race() -> None:
        with VideoWriter(f"{tmp_path}/{name}", fps=FPS, width=64, height=48) as later:
            later.write(moving(5))
            write(f"{tmp_path}/{name}", moving(3))
            first.update(_content(tmp_path))

    with pytest.raises(CameMeanwhile):
        race()
    assert _content(tmp_path) == first
    assert len(names(tmp_path)) == 1
    write(f"{tmp_path}/{name}", moving(5), overwrite=True)
    assert _content(tmp_path) != first


def _no_links(*names: Path) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def _content(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file() and "/." not in str(file)}
