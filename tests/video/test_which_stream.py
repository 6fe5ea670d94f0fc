"""Which stream of a file is shown and heard, and what of it; bytes and words beside it do not matter."""

from pathlib import Path

import av
import numpy as np
import pytest
from fields import write_fields
from moving import moving, write

from mtanimate.errors import InputError
from mtanimate.video import Sound, VideoReader, VideoWriter, decoding

X264 = ("-pix_fmt", "yuv420p", "-preset", "ultrafast")


def all_frames(path: Path) -> np.ndarray:
    return np.concatenate(list(VideoReader(path).batches(8)))


@pytest.fixture
def two_streams(make_video, run_ffmpeg, tmp_path: Path):
    """two_streams(name, first, second): a small picture in red, then a video in blue, with these dispositions."""

    def make(name: str, first: str, second: str, small: str = "32x32", seconds: float = 0.04) -> Path:
        run_ffmpeg(
            *(
                "-f",
                "lavfi",
                "-i",
                f"color=red:s={small}:r=25:d={seconds}",
                "-f",
                "lavfi",
                "-i",
                "color=blue:s=64x48:d=1",
            ),
            *("-map", "0", "-map", "1", *X264, "-disposition:v:0", first, "-disposition:v:1", second, tmp_path / name),
        )
        return tmp_path / name

    return make


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov"])
@pytest.mark.parametrize(("first", "second"), [("0", "default"), ("default", "default"), ("0", "0")])
def test_the_video_and_not_the_preview(two_streams, name: str, first: str, second: str) -> None:
    reader = VideoReader(two_streams(name, first, second))
    assert (reader.width, reader.height, reader.frame_count) == (64, 48, 25)
    assert reader.frames([12])[0].mean(axis=(0, 1)).argmax() == 2


def test_the_default_and_not_the_largest(two_streams) -> None:
    reader = VideoReader(two_streams("a.mkv", "0", "default", small="96x96", seconds=1))
    assert (reader.width, reader.height) == (64, 48)


@pytest.mark.parametrize(("name", "default"), [("a.mkv", 0), ("a.mkv", 1), ("a.mov", 1)])
def test_the_default_sound_track(run_ffmpeg, stream_hash, tmp_path: Path, name: str, default: int) -> None:
    tones = [("-f", "lavfi", "-i", f"sine=frequency={tone}:duration=1") for tone in (300, 900)]
    picture = ("-f", "lavfi", "-i", "testsrc2=s=64x48:d=1")
    both = tmp_path / name
    marked = [f"-disposition:a:{default}", "default", f"-disposition:a:{1 - default}", "0"]
    run_ffmpeg(*picture, *tones[0], *tones[1], "-map", "0", "-map", "1", "-map", "2", *X264, *marked, both)
    reader = VideoReader(both)
    assert reader.has_audio
    with VideoWriter(tmp_path / "out.mp4", fps=reader.fps, width=64, height=48, sound=Sound(both)) as writer:
        writer.write(reader.frames(range(reader.frame_count)))
    heard = run_ffmpeg("-i", tmp_path / "out.mp4", "-map", "0:a", "-f", "f32le", "-ac", "1", "-ar", "8000", "-")
    spectrum = np.abs(np.fft.rfft(np.frombuffer(heard, np.float32)[:8000]))
    assert spectrum.argmax() == pytest.approx((300, 900)[default], abs=3)


@pytest.mark.parametrize("turn", [(), ("-display_rotation", "90")])
@pytest.mark.parametrize(("aspect", "square"), [("16/9", (114, 48)), ("1/2", (64, 96)), ("1/1", (64, 48))])
def test_pixels_come_out_square(run_ffmpeg, make_video, tmp_path: Path, turn, aspect: str, square) -> None:
    path = make_video("a.mp4", options=("-vf", f"setsar={aspect}", *X264))
    run_ffmpeg(*turn, "-i", path, "-c", "copy", tmp_path / "b.mp4")
    reader = VideoReader(tmp_path / "b.mp4")
    size = (reader.width, reader.height)
    assert size == (square if not turn else square[::-1])
    assert all_frames(tmp_path / "b.mp4").shape[1:3] == size[::-1]


def test_pixels_of_an_absurd_shape_are_a_mistake_in_the_file(make_video) -> None:
    reader = VideoReader(make_video("a.mp4", options=("-vf", "setsar=30000/1", *X264)))
    assert (reader.width, reader.height) == (64, 48)


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
@pytest.mark.parametrize("flip", ["-display_hflip", "-display_vflip"])
def test_a_mirrored_video_is_shown_mirrored(run_ffmpeg, tmp_path: Path, turn: int, flip: str) -> None:
    write(tmp_path / "a.mp4", moving(6))
    run_ffmpeg("-display_rotation", str(turn), flip, "-i", tmp_path / "a.mp4", "-c", "copy", tmp_path / "b.mp4")
    frames = all_frames(tmp_path / "b.mp4")
    raw = run_ffmpeg("-i", tmp_path / "b.mp4", "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    assert np.abs(np.frombuffer(raw, np.uint8).reshape(frames.shape).astype(int) - frames).mean() < 5


@pytest.mark.parametrize("name", ["a.ts", "a.mkv", "a.mp4"])
def test_two_fields_are_one_picture(run_ffmpeg, tmp_path: Path, name: str) -> None:
    greys = [50, 90, 130, 170, 110, 70]
    write_fields(tmp_path / "a.h264", greys)
    run_ffmpeg("-framerate", "50", "-i", tmp_path / "a.h264", "-c", "copy", tmp_path / name)
    reader = VideoReader(tmp_path / name)
    assert (reader.frame_count, reader.fps) == (6, 25)
    levels = [round((grey - 16) * 255 / 219) for grey in greys]
    assert np.abs(all_frames(tmp_path / name).mean(axis=(1, 2, 3)) - levels).max() < 1.5
    assert abs(reader.frames([4]).mean() - levels[4]) < 1.5


@pytest.mark.parametrize("name", ["cut.mkv", "cut.ts"])
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_cut_at_an_open_group_of_pictures(run_ffmpeg, tmp_path: Path, codec: str, name: str) -> None:
    """Without encoding: pictures stay that refer to what was cut away, and are not shown."""
    params = {"libx264": "open-gop=1:bframes=3", "libx265": "open-gop=1:bframes=3:log-level=error"}[codec]
    write(tmp_path / "frames.mkv", moving(60), codec="ffv1")
    options = ["-c:v", codec, "-g", "12", f"-{codec[3:]}-params", params, "-pix_fmt", "yuv420p"]
    run_ffmpeg("-i", tmp_path / "frames.mkv", *options, tmp_path / "whole.ts")
    run_ffmpeg("-ss", "1", "-i", tmp_path / "whole.ts", "-c", "copy", tmp_path / name)
    frames = all_frames(tmp_path / name)
    assert 20 < len(frames) < 40
    assert np.abs(frames.astype(int) - moving(60)[-len(frames) :]).mean() < 6
    np.testing.assert_array_equal(VideoReader(tmp_path / name).frames([9, 0]), frames[[9, 0]])


@pytest.mark.parametrize("name", ["a.mp4", "front.mp4", "a.mov", "a.mkv", "a.avi", "a.gif"])
@pytest.mark.parametrize("appended", [b"\0" * 40, b"Insta360 8db42d694ccc418790edff439fe026bf", bytes(range(256)) * 9])
def test_bytes_after_the_end_do_not_matter(make_video, name: str, appended: bytes) -> None:
    options = () if name == "a.gif" else (*X264, "-movflags", "+faststart") if name == "front.mp4" else X264
    path = make_video(name, options=options)
    before = all_frames(path)
    path.write_bytes(path.read_bytes() + appended)
    np.testing.assert_array_equal(all_frames(path), before)


MISLEADING = {
    "title": "a\n  Stream #0:0: Video: h264, yuv420p, 9x9, 99 fps\nframe= 8359 partial file, File ended prematurely",
    "\n  Stream #1:0: Video: rawvideo, 7x7, 25 fps": "\n  Stream #0:0: Audio: aac",
}


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.nut", "my partial file, LZW decode failed.mov"])
def test_words_in_a_file_mean_nothing(make_video, name: str) -> None:
    words = [part for key, value in MISLEADING.items() for part in ("-metadata", f"{key}={value}")]
    reader = VideoReader(make_video(name, options=(*X264, *words, "-movflags", "+use_metadata_tags")))
    assert (reader.width, reader.height, reader.fps, reader.has_audio) == (64, 48, 25, False)
    assert len(all_frames(reader.path)) == reader.frame_count == 25


def test_words_that_are_no_utf8(make_video, tmp_path: Path) -> None:
    path = make_video("a.mp4", options=(*X264, "-metadata", "title=abcdefgh"))
    path.write_bytes(path.read_bytes().replace(b"abcdefgh", b"\xff\xfe\x80abcde"))
    assert VideoReader(path).frame_count == 25


def test_lists_of_other_files_are_not_opened(make_video, tmp_path: Path) -> None:
    video = make_video("a.ts", options=X264)
    live = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{video}\n"  # without an end: it would be asked again
    for name, text in (("a.m3u8", live), ("b.mp4", live), ("c.mp4", f"ffconcat version 1.0\nfile {video}\n")):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match="is not a video"):
            VideoReader(tmp_path / name)


def test_a_part_is_decoded_from_its_key_frame_on(make_video, monkeypatch) -> None:
    reader = VideoReader(make_video("a.mp4", seconds=8, options=(*X264, "-g", "20")))
    read, packets = [], decoding.packets
    monkeypatch.setattr(
        "mtanimate.video.reader.packets",
        lambda *streams: (read.append(packet) or packet for packet in packets(*streams)),
    )
    frames = reader.frames_between(6.5, 7)
    assert len(np.concatenate(list(reader.batches(4, frames.start, frames.stop)))) == len(frames) == 12
    assert 12 <= len(read) < 60


def test_an_index_that_lies_is_not_believed(make_video, tmp_path: Path) -> None:
    """All pictures are marked as key frames, and the decoder shows something wherever it begins."""
    path = make_video("a.mkv", seconds=3, options=("-c:v", "msmpeg4", "-g", "250"))
    with av.open(str(path)) as container, av.open(str(tmp_path / "lies.mkv"), "w") as copy:
        stream = copy.add_stream_from_template(container.streams.video[0])
        for packet in container.demux(video=0):
            if packet.size:
                packet.stream, packet.is_keyframe = stream, True
                copy.mux(packet)
    with av.open(str(tmp_path / "lies.mkv")) as container:
        assert sum(packet.is_keyframe for packet in container.demux(video=0)) == 75
    frames = all_frames(path)
    reader = VideoReader(tmp_path / "lies.mkv")
    np.testing.assert_array_equal(reader.frames([60, 31, 74]), frames[[60, 31, 74]])
    np.testing.assert_array_equal(np.concatenate(list(reader.batches(8, start=40))), frames[40:])
