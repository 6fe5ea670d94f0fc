"""Every codec in every container that holds it: written, read back, said what it is; what does not fit is refused."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from moving import FPS, moving, names, write

from mtanimate.errors import InputError
from mtanimate.video import Sound, VideoReader, check_output, encoding
from mtanimate.video.encoding import CODECS, CONTAINERS

X264 = ("-pix_fmt", "yuv420p", "-preset", "ultrafast")
SAID = {
    "h264": "Video: h264",
    "h265": "Video: hevc",
    "vp9": "Video: vp9",
    "av1": "Video: av1",
    "prores": "Video: prores (HQ)",
    "ffv1": "Video: ffv1",
    "gif": "Video: gif",
}
HELD = [(codec, suffix) for codec in SAID for suffix in CODECS[codec].containers]
TIMES = [Fraction(n * n, 90) for n in range(12)]


@pytest.mark.parametrize(("codec", "suffix"), HELD)
def test_every_codec_in_every_container(make_video, ffmpeg_says, tmp_path: Path, codec: str, suffix: str) -> None:
    sound = make_video("in.mp4", sound=1, options=X264)
    frames = moving(12, 35, 51)
    out = tmp_path / f"a{suffix}"
    writer = write(out, frames, codec=codec, sound=Sound(sound), title="Zoë's ✓", comment="made by hand")
    reader = VideoReader(out)
    even = codec not in ("ffv1", "gif")
    assert (reader.frame_count, reader.width, reader.height) == (12, 51 + even, 35 + even)
    assert float(reader.fps) == pytest.approx(float(FPS), rel=0.01 if codec == "gif" else 0)
    back = reader.frames(range(12))[:, :35, :51].astype(int)
    assert np.abs(back - frames).mean() < 5
    said = ffmpeg_says(out)
    assert SAID[codec] in said
    assert reader.has_audio == writer.audio == (codec != "gif")
    if codec != "gif":
        assert "Zoë's ✓" in said
        assert "made by hand" in said
    if even:
        assert "tv, " in said
    if codec == "h265" and suffix != ".mkv":
        assert "hvc1" in said


@pytest.mark.parametrize(("codec", "suffix"), HELD)
def test_frames_keep_their_times(tmp_path: Path, codec: str, suffix: str) -> None:
    out = tmp_path / f"a{suffix}"
    write(out, moving(12), fps=Fraction(8), times=[7 + time for time in TIMES], codec=codec)
    reader = VideoReader(out)
    step = {".gif": 0.0051, ".mkv": 0.0006, ".webm": 0.0006}.get(suffix, 0)
    assert reader.variable
    assert all(abs(time - given) <= step for time, given in zip(reader.times, TIMES, strict=True))
    assert np.abs(reader.frames(range(12)).astype(int) - moving(12)).mean() < 5


@pytest.mark.parametrize(
    "times",
    [
        [Fraction(0)],
        [Fraction(0), Fraction(1), Fraction(3)],
        [Fraction(n * 100 + n**3 % 7, 90000) for n in range(40)],  # hundreds of frames a second
        [Fraction(0), Fraction(1, 600), Fraction(1, 7), Fraction(10, 13), Fraction(3600)],
        [n / FPS + Fraction(n % 3, 1009) for n in range(40)],  # on no common clock: to the microsecond
    ],
)
@pytest.mark.parametrize("name", ["a.mp4", "a.webm"])
def test_strange_times(tmp_path: Path, times: list[Fraction], name: str) -> None:
    write(tmp_path / name, moving(len(times)), times=times)
    reader = VideoReader(tmp_path / name)
    step = 0.0006 if name == "a.webm" else 0.000001
    assert all(abs(time - given) <= step for time, given in zip(reader.times, times, strict=True))


def test_two_frames_at_one_time_are_both_kept(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", moving(3), times=[Fraction(0), Fraction(1, 10), Fraction(1, 10)])
    assert VideoReader(tmp_path / "a.mp4").frame_count == 3


def test_more_frames_than_times(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="3 frames for 2 times"):
        write(tmp_path / "a.mp4", moving(3), times=TIMES[:2])
    assert not names(tmp_path)


@pytest.mark.parametrize("times", [None, TIMES])
def test_ffv1_loses_nothing(tmp_path: Path, times) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (12, 35, 51, 3), dtype=np.uint8)
    write(tmp_path / "a.mkv", noise, codec="ffv1", times=times)
    reader = VideoReader(tmp_path / "a.mkv")
    np.testing.assert_array_equal(reader.frames(range(12)), noise)
    np.testing.assert_array_equal(np.concatenate(list(reader.batches(5))), noise)


def test_a_gif_of_a_still_keeps_its_frames_and_plays_on(tmp_path: Path) -> None:
    colours = np.repeat(np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), dtype=np.uint8), 12, axis=0)
    write(tmp_path / "a.gif", colours, fps=Fraction(25))
    reader = VideoReader(tmp_path / "a.gif")
    assert (reader.frame_count, reader.fps) == (12, 25)
    assert np.abs(reader.frames([0, 11]).astype(int) - colours[:2]).max() <= 1  # 64 colours fit
    assert b"NETSCAPE2.0" in (tmp_path / "a.gif").read_bytes()
    assert names(tmp_path) == ["a.gif"]


@pytest.mark.parametrize("codec", [name for name in CODECS if CODECS[name].crf is not None])
def test_a_larger_crf_makes_a_smaller_file(tmp_path: Path, codec: str) -> None:
    suffix = CODECS[codec].containers[0]
    frames = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    sizes = []
    for crf in (1, None, CODECS[codec].worst):
        write(tmp_path / f"{crf}{suffix}", frames, codec=codec, crf=crf)
        sizes.append((tmp_path / f"{crf}{suffix}").stat().st_size)
    assert sizes[0] > sizes[1] > sizes[2]


def _refused(path: Path | str, *words: str, **options) -> None:
    with pytest.raises(InputError) as caught:
        check_output(path, False, **options)
    said = str(caught.value)
    assert "\n" not in said
    assert all(word in said for word in words), said


@pytest.mark.parametrize("suffix", [suffix for suffix in CONTAINERS if suffix])
def test_a_codec_that_the_container_cannot_hold(tmp_path: Path, suffix: str) -> None:
    holds = [codec for codec in CODECS if suffix in CODECS[codec].containers]
    assert holds
    for codec in SAID:
        if codec in holds:
            assert check_output(tmp_path / f"a{suffix}", False, codec).name == codec
        else:
            _refused(tmp_path / f"a{suffix}", f"a{suffix}", codec, ", ".join(holds), codec=codec)
    _refused(tmp_path / f"a{suffix}", f"'{suffix}'", "slash", codec="png")


def test_codecs_and_qualities_that_do_not_exist(tmp_path: Path) -> None:
    _refused(tmp_path / "a.mp4", "unknown codec 'mpeg7'", "h264, h265", codec="mpeg7")
    _refused(tmp_path / "a.mp4", "crf 52", "0 (best) to 51", crf=52)
    _refused(tmp_path / "a.webm", "crf -1", "0 (best) to 63", crf=-1)
    for name, codec in (("a.mov", "prores"), ("a.mkv", "ffv1"), ("a.gif", None), ("a", "png")):
        _refused(tmp_path / name, "has no crf", codec=codec, crf=18)
    _refused(tmp_path / "a", ".mp4", codec="h264")
    _refused(f"{tmp_path}/a/", "a folder cannot hold h264", "png", codec="h264")
    for default in (".mp4", ".webm", ".gif"):
        assert check_output(tmp_path / f"a{default}", False).name == CONTAINERS[default].codec


@pytest.fixture
def lacking(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """lacking(*names): from now on, ffmpeg seems to have been built without these encoders."""
    has = encoding.encoders()
    return lambda *missing: monkeypatch.setattr(encoding, "encoders", lambda: has - set(missing))


def test_an_encoder_that_this_ffmpeg_lacks(tmp_path: Path, lacking) -> None:
    lacking("libx265", "libsvtav1", "libaom-av1")
    _refused(tmp_path / "a.mp4", "no libx265 to make h265", codec="h265")
    _refused(tmp_path / "a.mp4", "no libsvtav1 or libaom-av1 to make av1", codec="av1")


def test_the_other_encoder_of_av1(tmp_path: Path, lacking, ffmpeg_says) -> None:
    lacking("libsvtav1")
    write(tmp_path / "a.mp4", moving(5), codec="av1")
    assert VideoReader(tmp_path / "a.mp4").frame_count == 5
    assert b"SVT" not in (tmp_path / "a.mp4").read_bytes()
