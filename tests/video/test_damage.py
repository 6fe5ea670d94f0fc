"""Files that are no videos, and videos cut off or damaged: named in one line, never shown as frames."""

import errno
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageFile

from mtanimate.errors import InputError, OutOfMemory
from mtanimate.video import VideoReader, read_image
from mtanimate.video import decoding as container

X264 = ("-pix_fmt", "yuv420p", "-preset", "ultrafast")


def _all(reader: VideoReader) -> np.ndarray:
    return np.concatenate(list(reader.batches(7)))


def _refused(path: Path) -> None:
    with pytest.raises(InputError) as caught:
        VideoReader(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_not_a_video(make_video, run_ffmpeg, tmp_path: Path) -> None:
    _refused(tmp_path / "missing.mp4")
    _refused(tmp_path)
    for name in ("empty.mp4", "empty"):
        (tmp_path / name).touch()
        _refused(tmp_path / name)
    for name in ("text.mp4", "text.txt", "text.gif"):
        (tmp_path / name).write_text("hello\n" * 100)
        _refused(tmp_path / name)
    run_ffmpeg("-f", "lavfi", "-i", "sine=duration=1", tmp_path / "sound.mp4")
    _refused(tmp_path / "sound.mp4")
    # sound with a cover picture, which ffmpeg calls a video stream
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=32x32", "-frames:v", "1", tmp_path / "cover.png")
    cover = [
        "-i",
        tmp_path / "sound.mp4",
        "-i",
        tmp_path / "cover.png",
        "-map",
        "0",
        "-map",
        "1",
        "-c",
        "copy",
    ]
    run_ffmpeg(*cover, "-disposition:v", "attached_pic", tmp_path / "song.m4a")
    _refused(tmp_path / "song.m4a")
    _refused(make_video("none.mkv", options=("-frames:v", "0")))


def test_a_list_of_files_is_not_followed(make_video, tmp_path: Path) -> None:
    make_video("a.mp4", options=X264)
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile a.mp4\n")
    _refused(tmp_path / "list.mp4")


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.95])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("end.mp4", X264),
        ("front.mp4", (*X264, "-movflags", "+faststart")),
        ("a.mkv", X264),
        ("a.webm", ("-c:v", "libvpx-vp9", "-deadline", "realtime")),
        ("a.avi", ("-c:v", "mpeg4")),
        ("a.gif", ()),
    ],
)
def test_a_cut_off_video_is_never_taken_for_whole(make_video, cut, name: str, options, keep: float) -> None:
    path = cut(make_video(name, seconds=2, options=options), keep)
    if name != "a.gif":  # a GIF can only be found short on reaching its end
        _refused(path)
    with pytest.raises(InputError, match=r"cut off|damaged"):
        _all(VideoReader(path))


def test_a_cut_off_recording_gives_true_frames_or_an_error(make_video, cut) -> None:
    """MPEG-TS says nowhere how long it is: cut between two frames, it is a shorter video."""
    path = make_video("a.ts", seconds=2, options=("-c:v", "mpeg2video"))
    whole = _all(VideoReader(path))
    errors = 0
    for keep in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95):
        try:
            frames = _all(VideoReader(cut(path, keep)))
            np.testing.assert_array_equal(frames, whole[: len(frames)])
        except InputError:
            errors += 1
    assert errors


def test_a_video_cut_between_two_frames(make_video, run_ffmpeg) -> None:
    path = make_video("a.mp4", seconds=2, options=(*X264, "-movflags", "+faststart"))
    packets = run_ffmpeg("-i", path, "-c", "copy", "-f", "framecrc", "-").decode().splitlines()
    last = int(packets[-1].split(",")[4])  # the size of the packet that ends the file
    path.write_bytes(path.read_bytes()[:-last])
    _refused(path)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", (*X264, "-movflags", "+faststart")),
        ("a.ts", ("-c:v", "mpeg2video")),  # ffmpeg would paint over this damage and go on
    ],
)
def test_damage_in_the_middle_is_not_shown_as_frames(make_video, name: str, options) -> None:
    path = make_video(name, seconds=2, size="160x120", options=options)
    content = bytearray(path.read_bytes())
    middle = len(content) * 2 // 3
    content[middle : middle + 3000] = np.random.default_rng(0).bytes(3000)
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        _all(VideoReader(path))


def _short_of_memory(*arguments: object, **options: object) -> None:
    raise av.error.MemoryError(errno.ENOMEM, "Cannot allocate memory")


def test_where_memory_is_short_no_file_is_called_damaged(make_video, tmp_path: Path, monkeypatch) -> None:
    """Wherever libav meets it: when it opens a file, walks through it, and decodes."""
    path = make_video("in.mp4", options=X264)
    reader = VideoReader(path)
    for where, work in (
        ("av.open", lambda: VideoReader(path)),
        ("mtanimate.video.probe.decode", lambda: VideoReader(path)),
        ("mtanimate.video.reader.decode", lambda: _all(reader)),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(where, _short_of_memory)
            with pytest.raises(OutOfMemory) as caught:
                work()
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code == 1
    for broken in (av.error.MemoryError, av.error.InvalidDataError):
        packet = _Packet(broken(-1, ""))
        with pytest.raises(MemoryError if broken is av.error.MemoryError else container.Damaged):
            list(container.decode([packet]))


class _Packet:
    """One that cannot be decoded."""

    is_keyframe = True

    def __init__(self, error: Exception) -> None:
        self.error = error

    def decode(self) -> None:
        raise self.error


@pytest.mark.parametrize("error", [MemoryError(), OSError("out of memory error when reading image file")])
def test_a_picture_that_memory_is_too_short_for(error: Exception, tmp_path: Path, monkeypatch) -> None:
    """As Python says it, and as Pillow's decoders do."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg")

    def load(picture: Image.Image) -> None:
        raise error

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(OutOfMemory, match=r"a\.jpg") as caught:
        read_image(tmp_path / "a.jpg")
    assert caught.value.exit_code == 1
