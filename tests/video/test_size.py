"""Pictures and videos of more pixels than are allowed are refused before they are decoded: named, with the option."""

import struct
import subprocess
import zlib
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image, ImageCms

from mtanimate.errors import InputError
from mtanimate.faces.detection import square_frames
from mtanimate.reading import MAX_PIXELS
from mtanimate.video import VideoReader, read_image
from mtanimate.video.footage import AnimatedPicture, FrameFolder, open_footage
from mtanimate.video.sound import Sound, find_sound


def _ffmpeg(*arguments: object) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *map(str, arguments)]
    subprocess.run(command, check=True)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _claiming(path: Path, width: int, height: int) -> Path:
    """A PNG of a hundred bytes that claims this size."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(bytes(99))) + _chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


def _refused(read, *sizes: str) -> None:
    with pytest.raises(InputError) as caught:
        read()
    for text in ("--max-pixels", *sizes):
        assert text in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("side", [15_000, 30_000, 60_000])
def test_a_picture_that_claims_too_many_pixels_is_refused(tmp_path: Path, side: int) -> None:
    path = _claiming(tmp_path / "a.png", side, side)
    _refused(lambda: read_image(path), "a.png", str(MAX_PIXELS))


def test_the_limit_is_the_one_that_was_given(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", max_pixels=1200).shape == (30, 40, 3)
    _refused(lambda: read_image(tmp_path / "a.png", max_pixels=1199), "a.png", "40 x 30")
    assert open_footage(tmp_path / "a.png", max_pixels=1200).frame_count == 1
    _refused(lambda: open_footage(tmp_path / "a.png", max_pixels=1199), "a.png")


def test_the_photographs_of_the_largest_cameras_are_read(tmp_path: Path) -> None:
    for width, height in ((12_000, 8_000), (16_320, 12_240)):
        with pytest.raises(InputError) as caught:  # its pixels are missing, and that is what is said
            read_image(_claiming(tmp_path / "a.png", width, height))
        assert "--max-pixels" not in str(caught.value)


def test_a_folder_of_frames_has_the_limit_for_each(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "0.png")
    _claiming(tmp_path / "1.png", 20_000, 20_000)
    _refused(lambda: FrameFolder(tmp_path).frames([1]), "1.png", "20000 x 20000")


def test_a_video_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mp4"
    _ffmpeg("-f", "lavfi", "-i", "testsrc=s=64x48:d=0.2", "-f", "lavfi", "-i", "sine=d=0.2", "-shortest", path)
    assert VideoReader(path, max_pixels=64 * 48).frame_count == 5
    assert find_sound(Sound(path, max_pixels=64 * 48)) is not None
    monkeypatch.setattr("mtanimate.video.probe.decode", lambda packets: pytest.fail("it was decoded"))
    _refused(lambda: VideoReader(path, max_pixels=64 * 48 - 1), "a.mp4", "64 x 48")


def test_pixels_that_are_stretched_count_as_what_they_become(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    _ffmpeg("-f", "lavfi", "-i", "testsrc=s=64x48:d=0.2", "-vf", "setsar=4", path)
    _refused(lambda: VideoReader(path, max_pixels=2 * 64 * 48), "256 x 48")


def test_a_video_whose_frames_grow_is_not_decoded(tmp_path: Path) -> None:
    parts = []
    for size in ("64x48", "640x480"):
        part = tmp_path / f"{size}.h264"
        _ffmpeg("-f", "lavfi", "-i", f"testsrc=s={size}:d=0.2", "-c:v", "libx264", part)
        parts.append(part.read_bytes())
    (tmp_path / "a.h264").write_bytes(b"".join(parts))
    reader = VideoReader(tmp_path / "a.h264")
    assert len(reader.frames(range(reader.frame_count))) > 5
    with pytest.raises(InputError, match=r"a\.h264"):
        VideoReader(tmp_path / "a.h264", max_pixels=64 * 48)


def _animated(path: Path, count: int) -> Path:
    frames = [Image.new("RGB", (20, 10), (number, 0, 255 - number)) for number in range(count)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=40)
    return path


def test_an_animated_picture_has_a_limit_for_all_frames(tmp_path: Path) -> None:
    path = _animated(tmp_path / "a.png", 120)
    assert AnimatedPicture(path, max_pixels=240).frame_count == 120
    _refused(lambda: AnimatedPicture(path, max_pixels=200), "120 frames of 20 x 10")
    _refused(lambda: AnimatedPicture(path, max_pixels=199), "20 x 10")


def test_times_of_an_animation_stay_short(tmp_path: Path) -> None:
    """Each frame's own denominator, and their sum's would have hundreds of digits."""
    content = _animated(tmp_path / "a.png", 120).read_bytes()
    chunks, start, odd = [content[:8]], 8, iter(range(64_001, 65_535, 6))
    while start < len(content):
        end = start + 12 + int.from_bytes(content[start : start + 4], "big")
        kind, data = content[start + 4 : start + 8], content[start + 8 : end - 4]
        if kind == b"fcTL":  # its last but two bytes are the delay, as a fraction
            data = data[:20] + struct.pack(">HH", 2_000, next(odd)) + data[24:]
        chunks.append(_chunk(kind, data))
        start = end
    (tmp_path / "b.png").write_bytes(b"".join(chunks))
    reader = AnimatedPicture(tmp_path / "b.png")
    assert reader.frame_count == 120
    assert max(time.denominator for time in reader.times) <= 1_000_000
    assert float(reader.times[1]) == pytest.approx(2_000 / 64_001, abs=1e-5)


def test_a_jpeg_is_decoded_reduced_where_few_pixels_are_needed(tmp_path: Path) -> None:
    y, x = np.mgrid[:960, :1280] / 100
    wave = np.stack([np.sin(x), np.cos(y), np.sin(x + y)], axis=-1)
    Image.fromarray(((wave + 1) * 127).astype(np.uint8)).save(tmp_path / "a.jpg", quality=95)
    whole, reduced = read_image(tmp_path / "a.jpg"), read_image(tmp_path / "a.jpg", needed=64)
    assert whole.shape == (960, 1280, 3)
    assert reduced.shape == (240, 320, 3)
    one, other = (square_frames(picture[None], 64).float() for picture in (whole, reduced))
    assert (one - other).abs().mean() < 2


def test_a_huge_colour_profile_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.new("RGB", (4, 4), (10, 20, 30)).save(tmp_path / "a.png", icc_profile=profile + bytes(17 << 20))
    monkeypatch.setattr(ImageCms, "ImageCmsProfile", lambda file: pytest.fail("it was parsed"))
    said: list[str] = []
    assert (read_image(tmp_path / "a.png", said.append) == (10, 20, 30)).all()
    assert any("profile" in line for line in said)


def test_av_knows_the_limit_of_pixels() -> None:
    """The option that `mtanimate.video.decoding.limit_pixels` sets."""
    context = av.CodecContext.create("ffv1", "r")
    context.width, context.height, context.options = 2_000, 1_000, {"max_pixels": "1000"}
    with pytest.raises(av.FFmpegError):
        context.open()
