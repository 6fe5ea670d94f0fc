"""Clips hold the frames and the square that were asked for, from every kind of raw video."""

import subprocess
import threading
import time
from fractions import Fraction

import av
import imageio_ffmpeg
import numpy as np
import pytest
from telling import COUNT, HEIGHT, WIDTH, told, write_telling_video

from mtanimate.data import raw_videos as cutting
from mtanimate.data.preparation_journal import Cut
from mtanimate.data.raw_videos import Cutter, Stopped
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.faces.detection import Square
from mtanimate.video import VideoReader
from mtanimate.video.decoding import open_container


def ffmpeg(*arguments):
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *map(str, arguments)], check=True)


def cut(first, end, square=Square(0, 0, HEIGHT), size=64, fps=Fraction(25), name=None):
    return Cut(f"train/{name or f'a__{first}'}.mp4", "a", "a.mp4", first, end, square, size, fps)


def cut_clips(video, cuts, out, done=lambda cut: None):
    Cutter().cut(video, cuts, out, done)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write_telling_video(tmp_path_factory.mktemp("raw") / "a.mp4")


def files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_frames_square_and_form(raw, tmp_path):
    asked = cut(7, 40, Square(31, 13, 81), size=96)
    made = []
    cut_clips(raw, [asked], tmp_path, made.append)
    clip = tmp_path / asked.file
    numbers, square = told(clip)
    assert numbers == list(range(7, 40))
    assert square == pytest.approx((31, 13, 81), abs=2)
    reader = VideoReader(clip)
    assert (reader.width, reader.height, reader.fps, reader.frame_count) == (96, 96, 25, 33)
    with open_container(clip) as container:
        (stream,) = container.streams
        context = stream.codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        tags = (context.color_range, context.colorspace, context.color_primaries, context.color_trc)
        assert tags == (1, 1, 1, 1)  # limited, BT.709
    assert made == [asked]
    assert files(tmp_path) == ["a__7.mp4"]


@pytest.mark.parametrize("transfer", ["arib-std-b67", "smpte2084"])
def test_eight_bits_are_never_said_to_be_hdr(raw, tmp_path, transfer):
    tagged = f"setparams=color_primaries=bt2020:color_trc={transfer}:colorspace=bt2020nc:range=tv,format=yuv420p10le"
    ffmpeg("-i", raw, "-vf", tagged, "-c:v", "libx265", "-x265-params", "log-level=error", tmp_path / "hdr.mp4")
    cut_clips(tmp_path / "hdr.mp4", [cut(0, 10)], tmp_path)
    tags = []
    for file in (tmp_path / "hdr.mp4", tmp_path / cut(0, 10).file):
        with av.open(file) as container:
            codec = container.streams.video[0].codec_context
            tags.append((codec.color_range, codec.colorspace, codec.color_primaries, codec.color_trc))
    assert tags == [(1, 9, 9, {"arib-std-b67": 18, "smpte2084": 16}[transfer]), (1, 1, 1, 1)]


def test_many_clips_of_one_video_in_several_passes(raw, tmp_path, monkeypatch):
    """Overlapping ones too, in any order."""
    monkeypatch.setattr(cutting, "_CLIPS_A_PASS", 2)
    asked = [cut(30, 40), cut(0, 20), cut(10, 35, Square(40, 0, 120)), cut(38, 40), cut(3, 5)]
    cut_clips(raw, asked, tmp_path)
    for one in asked:
        numbers, (left, _, _) = told(tmp_path / one.file)
        assert numbers == list(range(one.first, one.end))
        assert left == pytest.approx(one.square.x, abs=2)


OTHERS = {
    "b-frames": ("a.mp4", ("-bf", "3", "-g", "12", "-crf", "12")),
    "matroska": ("a.mkv", ("-crf", "12")),
    "vp9": ("a.webm", ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-b:v", "2M")),
    "mpeg-4": ("a.avi", ("-c:v", "mpeg4", "-q:v", "2")),
    "transport stream": ("a.ts", ("-c:v", "mpeg2video", "-q:v", "2", "-bf", "2")),
    "29.97": ("a.mkv", ("-r", "30000/1001", "-vf", "setpts=N*1001/30000/TB", "-crf", "12")),
    "full range": ("a.mp4", ("-pix_fmt", "yuvj420p", "-crf", "12")),
    "ten bits": ("a.mkv", ("-pix_fmt", "yuv420p10le", "-crf", "12")),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_clip_is_what_the_reader_sees(raw, tmp_path, kind):
    name, options = OTHERS[kind]
    video = tmp_path / name
    ffmpeg("-i", raw, "-pix_fmt", "yuv420p", *options, video)
    reader = VideoReader(video)
    assert reader.frame_count == COUNT
    asked = cut(10, 35, Square(20, 10, 64), size=64, fps=reader.fps)
    cut_clips(video, [asked], tmp_path)
    clip = VideoReader(tmp_path / asked.file)
    assert clip.fps == reader.fps == (Fraction(30000, 1001) if kind == "29.97" else 25)
    seen = asked.square.cut(np.concatenate(list(reader.batches(COUNT)))).astype(float)
    made = np.concatenate(list(clip.batches(64))).astype(float)
    assert np.abs(made - seen[10:35]).mean() < 2.5
    nearest = [int(np.abs(seen - frame).mean(axis=(1, 2, 3)).argmin()) for frame in made]
    assert nearest == list(range(10, 35))


def test_a_turned_video(raw, tmp_path):
    """A phone's: stored across, shown upright."""
    video = tmp_path / "turned.mp4"
    ffmpeg("-display_rotation", "90", "-i", raw, "-c", "copy", video)
    reader = VideoReader(video)
    assert (reader.width, reader.height) == (HEIGHT, WIDTH)
    asked = cut(5, 10, Square(10, 60, 100), size=100)
    cut_clips(video, [asked], tmp_path)
    made = VideoReader(tmp_path / asked.file).frames([0]).astype(float)
    assert np.abs(made - asked.square.cut(reader.frames([5]))).mean() < 2.5


def test_a_damaged_video_gives_no_half_clip(raw, tmp_path):
    video = tmp_path / "damaged.mp4"
    ffmpeg("-i", raw, "-c:v", "libx264", "-crf", "1", "-g", "5", "-movflags", "+faststart", video)
    content = bytearray(video.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 5000] = np.random.default_rng(0).bytes(5000)
    video.write_bytes(content)
    with pytest.raises(InputError, match=r"damaged\.mp4 is damaged near frame"):
        cut_clips(video, [cut(0, 10), cut(10, 40)], tmp_path / "out")
    assert files(tmp_path / "out") == []


def test_a_video_that_ends_too_early_is_noticed(raw, tmp_path):
    with pytest.raises(InputError, match="ends before frame 90"):
        cut_clips(raw, [cut(30, 90)], tmp_path)
    assert files(tmp_path) == []


def test_a_folder_that_cannot_be_written(raw, tmp_path):
    (tmp_path / "train").write_text("in the way")
    with pytest.raises(MTAnimateError, match="could not be written"):
        cut_clips(raw, [cut(0, 10)], tmp_path)


def test_stopping_leaves_nothing(tmp_path):
    long = tmp_path / "long.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=640x480:d=40", "-c:v", "libx264", "-preset", "ultrafast", long)
    cutter = Cutter()
    ended = []

    def work():
        try:
            cutter.cut(long, [cut(0, 1000, Square(0, 0, 480), size=512)], tmp_path / "out", lambda cut: None)
        except Stopped:
            ended.append("stopped")

    thread = threading.Thread(target=work)
    thread.start()
    deadline = time.monotonic() + 20
    while not files(tmp_path / "out") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert files(tmp_path / "out")[0].endswith(".part")
    cutter.stop()
    thread.join(timeout=10)
    assert ended == ["stopped"]
    assert files(tmp_path / "out") == []
    with pytest.raises(Stopped):
        cutter.cut(long, [cut(0, 10)], tmp_path / "out", lambda cut: None)
