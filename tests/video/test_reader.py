"""Videos come in with every frame, the exact rate, and flat memory; broken ones are named."""

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtanimate.video import VideoReader, VideoWriter

X264 = ("-pix_fmt", "yuv420p", "-preset", "ultrafast")


def _all(reader: VideoReader, batch_size: int = 7) -> np.ndarray:
    return np.concatenate(list(reader.batches(batch_size)))


def _reference(run_ffmpeg, path: Path, reader: VideoReader) -> np.ndarray:
    raw = run_ffmpeg("-i", path, "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    return np.frombuffer(raw, np.uint8).reshape(-1, reader.height, reader.width, 3)


@pytest.mark.parametrize("rate", ["24000/1001", "30000/1001", "60000/1001", "25", "25/2", "10"])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_the_rate_is_exact(make_video, name: str, rate: str) -> None:
    reader = VideoReader(make_video(name, seconds=2, rate=rate, options=X264))
    assert reader.fps == Fraction(rate)
    assert reader.frame_count == len(_all(reader)) == pytest.approx(2 * Fraction(rate), abs=1)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_rate_of_very_short_videos(make_video, count: int) -> None:
    options = (*X264, "-frames:v", str(count))
    reader = VideoReader(make_video("a.mkv", rate="30000/1001", options=options))
    assert (reader.fps, reader.frame_count) == (Fraction(30000, 1001), count)


@pytest.mark.parametrize("step", [1, 4, 100])
def test_every_nth_frame(make_video, step: int) -> None:
    reader = VideoReader(make_video("a.mp4", options=X264))
    found = np.concatenate(list(reader.batches(3, start=2, stop=20, step=step)))
    np.testing.assert_array_equal(found, _all(reader)[2:20:step])
    with pytest.raises(ValueError, match="no batches"):
        reader.batches(3, step=0)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", X264),
        ("a.mov", (*X264, "-bf", "3", "-g", "12")),
        ("a.mkv", X264),
        ("a.webm", ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-pix_fmt", "yuv420p")),
        ("av1.mp4", ("-c:v", "libaom-av1", "-cpu-used", "8", "-usage", "realtime", "-pix_fmt", "yuv420p")),
        ("a.avi", ("-c:v", "mpeg4")),
        ("a.ts", ("-c:v", "mpeg2video", "-bf", "2")),
        ("a.gif", ()),
    ],
)
def test_every_container_in_order_and_by_number(make_video, run_ffmpeg, name: str, options) -> None:
    path = make_video(name, options=options)
    reader = VideoReader(path)
    expected = _reference(run_ffmpeg, path, reader)
    assert (reader.frame_count, reader.width, reader.height, reader.fps) == (25, 64, 48, 25)
    found = _all(reader)
    far = np.abs(found[:, None].astype(np.int16) - expected).mean(axis=(2, 3, 4))
    assert (far.diagonal() <= far.min(axis=1) + 0.5).all()  # two ways to interpolate colours; some frames are alike
    picked = [24, 3, 3, 0, 17]
    np.testing.assert_array_equal(reader.frames(picked), found[picked])


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> VideoReader:
    # 100 frames, each of one grey that is its number
    greys = np.arange(100, dtype=np.uint8).reshape(100, 1, 1, 1)
    path = tmp_path_factory.mktemp("video") / "greys.mkv"
    with VideoWriter(path, fps=Fraction(30), width=32, height=18) as writer:
        writer.write(np.broadcast_to(greys, (100, 18, 32, 3)) * np.uint8(2))
    return VideoReader(path)


@settings(max_examples=15, deadline=None)
@given(batch_size=st.integers(1, 40), ends=st.tuples(st.integers(0, 100), st.integers(0, 100)))
def test_batches_are_the_frames_of_the_range(reader: VideoReader, batch_size: int, ends) -> None:
    start, stop = sorted(ends)
    batches = list(reader.batches(batch_size, start, stop))
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    together = np.concatenate([np.empty((0, 18, 32, 3), np.uint8), *batches])
    np.testing.assert_array_equal(together, reader.frames(range(start, stop)))
    assert np.abs(together.mean(axis=(1, 2, 3)) - 2 * np.arange(start, stop)).max(initial=0) < 1.5


def test_a_batch_can_be_kept_and_changed(reader: VideoReader) -> None:
    first, second = list(reader.batches(2, 0, 4))
    kept = first.copy()
    second[:] = 0
    np.testing.assert_array_equal(first, kept)


def test_numbers_outside_are_refused(reader: VideoReader) -> None:
    for indices in ([100], [-1]):
        with pytest.raises(IndexError, match="100 frames"):
            reader.frames(indices)
    for arguments in ((0,), (4, -1), (4, 5, 3), (4, 0, 101)):
        with pytest.raises(ValueError, match="batches"):
            reader.batches(*arguments)
    assert reader.frames([]).shape == (0, 18, 32, 3)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks at /proc")
def test_leaving_early_leaves_no_thread_and_no_open_file(make_video) -> None:
    reader = VideoReader(make_video("a.mp4", seconds=20, size="320x240", options=X264))
    before = _threads_and_files()
    batches = reader.batches(1)
    next(batches)
    assert _threads_and_files() > before
    batches.close()
    assert _threads_and_files() == before


def _threads_and_files() -> int:
    return len(list(Path("/proc/self/task").iterdir())) + len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("turn", [90, 180, 270])
@pytest.mark.parametrize("size", ["64x96", "96x50"])  # decord pads the rows of pictures 96 wide
def test_a_phones_rotation_is_applied(make_video, run_ffmpeg, tmp_path: Path, turn: int, size: str) -> None:
    straight = make_video("a.mp4", size=size, options=X264)
    turned = tmp_path / "turned.mp4"
    run_ffmpeg("-display_rotation", str(turn), "-i", straight, "-c", "copy", turned)
    reader = VideoReader(turned)
    expected = np.rot90(_all(VideoReader(straight)), turn // 90, axes=(1, 2))
    assert (reader.height, reader.width) == expected.shape[1:3]
    assert np.abs(_all(reader).astype(int) - expected).mean() < 1
    np.testing.assert_array_equal(reader.frames([5, 20]), _all(reader)[[5, 20]])


def test_frames_cut_away_by_an_edit_list_do_not_appear(make_video, run_ffmpeg, tmp_path: Path) -> None:
    whole = make_video("a.mp4", seconds=4, options=(*X264, "-g", "25"))
    trimmed = tmp_path / "trimmed.mp4"
    run_ffmpeg("-ss", "1.32", "-i", whole, "-c", "copy", trimmed)  # from frame 33; the key frame is 25
    reader = VideoReader(trimmed)
    expected = _all(VideoReader(whole))[33:]
    assert reader.frame_count == len(expected)
    np.testing.assert_array_equal(_all(reader), expected)
    np.testing.assert_array_equal(reader.frames([40]), expected[[40]])


def test_a_varying_rate_keeps_each_frame_once(make_video) -> None:
    path = make_video("a.mp4", seconds=4, options=(*X264, "-vf", "select='gt(n,50)+not(mod(n,3))'", "-fps_mode", "vfr"))
    reader = VideoReader(path)
    assert reader.frame_count == len(_all(reader)) == 17 + 49
    assert float(reader.fps) == pytest.approx(66 / 4, rel=0.03)


def test_has_audio(make_video) -> None:
    assert VideoReader(make_video("loud.mp4", sound=1, options=X264)).has_audio
    assert not VideoReader(make_video("silent.mp4", options=X264)).has_audio


def test_a_name_that_looks_like_an_address(make_video, tmp_path: Path) -> None:
    path = make_video("a.mp4", options=X264)
    for name in ("-i http:x %d.mp4", "без расширения"):
        assert VideoReader(path.rename(tmp_path / name)).frame_count == 25
        path = tmp_path / name


def test_importing_is_cheap() -> None:
    code = "import sys, mtanimate.video; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert not {"av", "decord", "imageio_ffmpeg", "torch"} & set(loaded)


def test_the_gpu_is_never_missed_in_silence(make_video) -> None:
    reader = VideoReader(make_video("a.mp4", options=X264), gpu=True)
    assert reader.decoder == "cuda:0" or "GPU" in reader.decoder_note
    assert len(_all(reader)) == 25
    assert VideoReader(reader.path).decoder_note == ""


def pretend_gpu(monkeypatch, show) -> None:
    """A GPU that decodes frame n as show(frames, n)."""

    def decoded(reader: VideoReader, numbers):
        frames = _all(VideoReader(reader.path))
        for number in numbers:
            yield show(frames, number)

    monkeypatch.setattr(VideoReader, "_decord_frames", decoded)


def test_a_gpu_that_shows_the_same_frames_is_used(make_video, monkeypatch) -> None:
    path = make_video("a.mp4", options=X264)
    pretend_gpu(monkeypatch, lambda frames, number: frames[number])
    reader = VideoReader(path, gpu=True)
    assert (reader.decoder, reader.decoder_note) == ("cuda:0", "")
    np.testing.assert_array_equal(_all(reader), _all(VideoReader(path)))


@pytest.mark.parametrize(
    "show",
    [
        lambda frames, number: frames[number // 2],
        lambda frames, number: frames[number][::-1],
        lambda frames, number: frames[number] // 2,
        lambda frames, number: frames[number].swapaxes(0, 1),
    ],
    ids=["others", "turned", "dark", "lying"],
)
def test_a_gpu_that_shows_other_frames_is_not_used(make_video, monkeypatch, show) -> None:
    path = make_video("a.mp4", options=X264)
    pretend_gpu(monkeypatch, show)
    reader = VideoReader(path, gpu=True)
    assert reader.decoder == "cpu"
    assert "GPU" in reader.decoder_note


def test_a_gpu_that_fails_on_the_way_is_left(make_video, monkeypatch) -> None:
    path = make_video("a.mp4", options=X264)
    pretend_gpu(monkeypatch, lambda frames, number: frames[number])
    reader = VideoReader(path, gpu=True)

    def show(frames, number):
        if number == 11:
            raise RuntimeError("out of surfaces")
        return frames[number]

    pretend_gpu(monkeypatch, show)
    np.testing.assert_array_equal(_all(reader), _all(VideoReader(path)))


MEASURE = """
import sys, time
from mtanimate.video import VideoReader
def memory():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024
for number, batch in enumerate(VideoReader(sys.argv[1]).batches(8)):
    time.sleep(0.002 if number < 50 else 0)  # a caller slower than the decoder
print(memory())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured through /proc")
def test_memory_is_flat(make_video) -> None:
    def peak(seconds: float) -> float:
        path = make_video("a.mp4", seconds=seconds, rate="30", size="256x256", options=X264)
        return float(subprocess.check_output([sys.executable, "-c", MEASURE, path]))

    assert peak(50) - peak(10) < 30  # MiB; 1500 frames are 280
