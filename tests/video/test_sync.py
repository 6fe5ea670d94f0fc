"""Every frame out at its time, and its sound with it: flashes and clicks, found again in decoded files."""

from collections.abc import Callable
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from clock import flashes_and_clicks

from mtanimate.video import Sound, VideoReader, VideoWriter

X264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-preset", "ultrafast")
OPUS = ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-c:a", "libopus")
RATES = ["24000/1001", "25", "30000/1001", "50", "60000/1001", "variable"]
# Frames of 1/60 s of which some are held: six in a row, then every third, but a flash is never late.
VARIABLE = "select='lt(mod(n,60),6)+not(mod(n,3))*lt(t,5)+not(mod(n,7))'"
OTHERS = ["30000/1001", "variable"]  # rates that second containers have; they have all with -m slow
_HEARD = 0.002  # seconds: what finding a click, and steps of 1 ms in MKV and WebM, may cost


@pytest.fixture(scope="session")
def make_flashes(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """make_flashes(run, rate, seconds) -> a video with a flash and a click of 0.1 s at 1, 2, 3 ... s."""
    folder = tmp_path_factory.mktemp("flashes")

    @cache
    def make(run: Callable[..., bytes], rate: str, seconds: int) -> Path:
        path = folder / f"{rate.replace('/', '_')}_{seconds}.mp4"
        light = "geq=lum='if(lt(mod(T,1),0.1)*gt(T,0.5),235,16)':cb=128:cr=128"
        picture = f"color=black:s=32x24:r={'60' if rate == 'variable' else rate}:d={seconds},{light}"
        click = f"aevalsrc='if(lt(mod(t,1),0.1)*gt(t,0.5),0.8*cos(6283*t),0)':d={seconds}:s=48000"
        vary = ("-vf", VARIABLE, "-fps_mode", "vfr") if rate == "variable" else ()
        run("-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", click, *vary, *X264, path)
        return path

    return make


def _copy(reader: VideoReader, out: Path, start: float | None = None, end: float | None = None) -> range:
    """Part of a video, its times and its sound, by reader and writer. Returns the frames' numbers."""
    part = reader.frames_between(start, end)
    times = reader.times[part.start : part.stop]
    with VideoWriter(
        out,
        fps=reader.fps,
        width=reader.width,
        height=reader.height,
        times=times if reader.variable else None,
        sound=Sound(reader.path, times[0]),
    ) as writer:
        for batch in reader.batches(64, part.start, part.stop):
            writer.write(batch)
    assert writer.audio
    return part


def _same(reader: VideoReader, out: Path, part: range) -> None:
    """Whether a copy of these frames has them at their times, with the sound that was with them."""
    copy = VideoReader(out)
    begin, length = reader.times[part.start], copy.times[-1]
    assert (copy.frame_count, copy.variable) == (len(part), reader.variable)
    if not reader.variable:
        assert copy.fps == reader.fps
    step = 0.0006 if out.suffix in (".mkv", ".webm") else 1e-9
    for time, before in zip(copy.times, reader.times[part.start : part.stop], strict=True):
        assert abs(time - (before - begin)) <= step
    for found, before in zip(flashes_and_clicks(out), flashes_and_clicks(reader.path), strict=True):
        expected = before[(before > begin + 0.01) & (before < begin + length)] - float(begin)
        assert len(found) == len(expected) > 0
        assert np.abs(found - expected).max() < _HEARD


def at_every_rate(first: str, second: str) -> list:
    slow = [pytest.param(rate, second, marks=() if rate in OTHERS else pytest.mark.slow) for rate in RATES]
    return [(rate, first) for rate in RATES] + slow


@pytest.mark.parametrize(("rate", "name"), at_every_rate("a.mp4", "a.webm"))
def test_six_seconds_at_every_rate(run_ffmpeg, make_flashes, tmp_path: Path, rate: str, name: str) -> None:
    reader = VideoReader(make_flashes(run_ffmpeg, rate, 6))
    assert reader.variable == (rate == "variable")
    if rate != "variable":
        assert reader.fps == Fraction(rate)
        assert reader.frame_count == pytest.approx(6 * Fraction(rate), abs=1)
    _same(reader, tmp_path / name, _copy(reader, tmp_path / name))


@pytest.mark.parametrize(("rate", "name"), at_every_rate("a.mp4", "a.mkv"))
def test_a_part_of_it(run_ffmpeg, make_flashes, tmp_path: Path, rate: str, name: str) -> None:
    reader = VideoReader(make_flashes(run_ffmpeg, rate, 6))
    part = _copy(reader, tmp_path / name, 1.5, 5.3)
    assert 1.5 - 0.0005 <= reader.times[part.start] < 1.5 + 0.12
    assert reader.times[part.stop - 1] < 5.3 <= reader.times[part.stop] + Fraction(1, 2000)
    _same(reader, tmp_path / name, part)


@pytest.mark.parametrize(("seconds", "frames"), [(60, 1799), pytest.param(180, 5395, marks=pytest.mark.slow)])
def test_minutes(run_ffmpeg, make_flashes, tmp_path: Path, seconds: int, frames: int) -> None:
    reader = VideoReader(make_flashes(run_ffmpeg, "30000/1001", seconds))
    assert reader.frame_count == frames
    _same(reader, tmp_path / "a.mp4", _copy(reader, tmp_path / "a.mp4"))


def test_measuring_finds_what_is_wrong(run_ffmpeg, make_flashes, tmp_path: Path) -> None:
    reader = VideoReader(make_flashes(run_ffmpeg, "25", 4))
    run_ffmpeg("-i", reader.path, "-itsoffset", "0.01", "-i", reader.path, "-map", "0:v", "-map", "1:a", "-c", "copy",
               tmp_path / "a.mp4")  # fmt: skip
    with pytest.raises(AssertionError):
        _same(reader, tmp_path / "a.mp4", range(reader.frame_count))


LATE = ("-map", "0:v", "-map", "1:a", "-c", "copy")
EARLY = ("-map", "1:v", "-map", "0:a", "-c", "copy")
SHIFTED = {  # a second time the same file, 0.733 s later
    "late.mp4": LATE,
    "late.mkv": LATE,
    "late.ts": LATE,
    "early.mp4": EARLY,
    "early.mkv": EARLY,
    "early.ts": EARLY,
    "late.webm": ("-map", "0:v", "-map", "1:a", *OPUS),
    "pcm.mov": (*LATE, "-c:a", "pcm_s16le"),
    "surround.mkv": (*LATE, "-c:a", "ac3", "-ac", "6", "-channel_layout", "5.1(side)"),
    "gap.mkv": (*LATE, "-bsf:a", "noise=drop=between(pts*tb\\,2.2\\,2.26)"),
    "short.mp4": (*LATE, "-t", "2.5"),
}


@pytest.mark.parametrize("name", SHIFTED)
def test_sound_that_begins_or_ends_apart_from_the_picture(run_ffmpeg, make_flashes, tmp_path: Path, name: str) -> None:
    whole, apart = make_flashes(run_ffmpeg, "25", 4), tmp_path / name
    run_ffmpeg("-i", whole, "-itsoffset", "0.733", "-i", whole, *SHIFTED[name], apart)
    reader = VideoReader(apart)
    for out, start in (("a.mp4", None), ("b.webm", None), ("c.mp4", 1.2)):
        _same(reader, tmp_path / out, _copy(reader, tmp_path / out, start))


@pytest.mark.parametrize("name", ["late.mp4", "gap.mkv"])
def test_silence_is_written_where_sound_is_missing(
    run_ffmpeg, make_flashes, packet_times, tmp_path: Path, name: str
) -> None:
    """Not left out: few players wait where a stream has a hole."""
    whole, apart = make_flashes(run_ffmpeg, "25", 4), tmp_path / name
    run_ffmpeg("-i", whole, "-itsoffset", "0.733", "-i", whole, *SHIFTED[name], apart)
    _copy(VideoReader(apart), tmp_path / "a.webm")
    begins, ends = np.array(packet_times(tmp_path / "a.webm", "a")).T
    assert begins[0] < 0.03
    assert np.abs(begins[1:] - ends[:-1]).max() < 0.003
    assert ends[-1] == pytest.approx(4, abs=0.03)


def test_sound_that_ffmpeg_does_not_know_is_none(make_flashes, run_ffmpeg, tmp_path: Path) -> None:
    content = make_flashes(run_ffmpeg, "25", 4).read_bytes()
    path = tmp_path / "strange.mp4"
    path.write_bytes(b"zzzz".join(content.rsplit(b"mp4a", 1)).replace(b"esds", b"zzzz"))
    reader = VideoReader(path)
    assert not reader.has_audio
    with VideoWriter(tmp_path / "a.mp4", fps=25, width=32, height=24, sound=Sound(path)) as writer:
        writer.write(reader.frames(range(3)))
    assert not writer.audio


def test_a_recording_whose_clock_jumps_back(run_ffmpeg, make_flashes, tmp_path: Path) -> None:
    """MPEG-TS is joined by joining files, if the packets of each stream are numbered on."""
    path = tmp_path / "one.ts"
    run_ffmpeg("-i", make_flashes(run_ffmpeg, "25", 4), "-c", "copy", path)
    packets = np.tile(np.frombuffer(path.read_bytes(), np.uint8).reshape(-1, 188), (2, 1))
    streams = packets[:, 1:3].view(">u2")[:, 0] & 0x1FFF
    for stream in np.unique(streams):
        own = streams == stream
        packets[own, 3] = (packets[own, 3] & 0xF0) | (np.cumsum(packets[own, 3] >> 4 & 1) - 1) % 16
    packets.tofile(tmp_path / "both.ts")
    reader = VideoReader(tmp_path / "both.ts")
    assert (reader.frame_count, reader.fps) == (200, 25)
    _copy(reader, tmp_path / "a.mp4", 1.5, 7.5)
    assert [len(found) for found in flashes_and_clicks(tmp_path / "a.mp4")] == [5, 5]


@pytest.mark.parametrize("out", ["a.mp4", "a.mkv"])
def test_a_phones_cut_and_turned_video(run_ffmpeg, make_flashes, tmp_path: Path, out: str) -> None:
    """An edit list hides frames and a second of sound before them: none of it comes back."""
    trimmed = tmp_path / "trimmed.mp4"
    whole = make_flashes(run_ffmpeg, "25", 4)
    run_ffmpeg("-display_rotation", "90", "-ss", "1.32", "-i", whole, "-c", "copy", trimmed)
    reader = VideoReader(trimmed)
    assert (reader.frame_count, reader.width, reader.height) == (67, 24, 32)
    _same(reader, tmp_path / out, _copy(reader, tmp_path / out))
    assert VideoReader(tmp_path / out).sound_offset < 0.05


def test_sound_that_is_over_before_the_part_begins(run_ffmpeg, make_flashes, packet_times, tmp_path: Path) -> None:
    short = tmp_path / "short.mp4"
    whole = make_flashes(run_ffmpeg, "25", 4)
    run_ffmpeg("-i", whole, "-t", "1.5", "-i", whole, "-map", "0:v", "-map", "1:a", "-c", "copy", short)
    reader = VideoReader(short)
    for name in ("a.mp4", "a.webm"):
        _copy(reader, tmp_path / name, 2, 3)
        assert packet_times(tmp_path / name, "a")[-1][1] == pytest.approx(1, abs=0.04)
        assert len(flashes_and_clicks(tmp_path / name)[1]) == 0


def test_sound_of_a_file_without_pictures(run_ffmpeg, make_flashes, tmp_path: Path) -> None:
    run_ffmpeg("-i", make_flashes(run_ffmpeg, "25", 4), "-vn", "-c", "copy", tmp_path / "sound.m4a")
    black = np.zeros((75, 24, 32, 3), np.uint8)
    for start, clicks in ((0, [1, 2]), (Fraction(1, 2), [0.5, 1.5, 2.5])):
        out = tmp_path / f"{float(start)}.mp4"
        with VideoWriter(out, fps=25, width=32, height=24, sound=Sound(tmp_path / "sound.m4a", start)) as writer:
            writer.write(black)
        np.testing.assert_allclose(flashes_and_clicks(out)[1][: len(clicks)], clicks, atol=_HEARD)
