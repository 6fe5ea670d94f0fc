"""Streams: cameras and standard input as frames, frames to standard output; nothing else is opened, nothing lost."""

import os
import pty
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from mtanimate.errors import InputError, MTAnimateError
from mtanimate.video import VideoReader, streams
from mtanimate.video import ffmpeg as program
from mtanimate.video.ffmpeg import FFmpeg
from mtanimate.video.streams import (
    DrivingStream,
    StreamClosed,
    StreamWriter,
    check_stream,
    dshow_names,
    is_stream,
    linux_cameras,
)

TEST_PICTURE = ("-f", "lavfi", "-i", "testsrc2=size=96x64:rate=30000/1001:duration=1")


@pytest.fixture
def stdin(monkeypatch):
    """stdin(*ffmpeg's arguments): what that ffmpeg writes becomes standard input. stdin(b"...") likewise."""
    started = []

    def give(*what):
        if isinstance(what[0], bytes):
            reading, writing = os.pipe()
            os.write(writing, what[0])
            os.close(writing)
            piped = os.fdopen(reading, "rb")
        else:
            command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-nostdin", *what, "pipe:1"]
            started.append(subprocess.Popen(command, stdout=subprocess.PIPE))
            piped = started[-1].stdout
        monkeypatch.setattr(sys, "stdin", piped)
        return piped

    yield give
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def read_all(stream):
    frames = []
    with stream:
        while (frame := stream.read()) is not None:
            frames.append(frame)
    return np.stack(frames)


def one_line(error) -> str:
    text = str(error.value)
    assert text
    assert "\n" not in text
    return text


# Names


@pytest.mark.parametrize("name", ["-", "webcam:0", "webcam:12", "webcam:x", "lavfi:testsrc2"])
def test_streams_by_name(name):
    assert is_stream(name)


@pytest.mark.parametrize("name", ["", "webcam", "0", "talk.mp4", "/dev/video0", "./webcam:0", "--", "Webcam:0", "a:b"])
def test_all_else_is_a_file(name):
    assert not is_stream(name)


@pytest.mark.parametrize("name", ["webcam:", "webcam:x", "webcam:-1", "webcam:0.mp4", "webcam:/dev/video0", "webcam:²"])
def test_a_camera_has_a_number(name):
    with pytest.raises(InputError) as error:
        DrivingStream(name)
    assert one_line(error).startswith(f"{name}: cameras have numbers")


@pytest.mark.skipif(sys.platform != "linux", reason="lists /dev")
def test_a_missing_camera_is_named_with_those_there_are():
    for look in (check_stream, DrivingStream):
        with pytest.raises(InputError) as error:
            look("webcam:97")
        text = one_line(error)
        assert text.startswith("webcam:97: there is no /dev/video97, but ")
        assert all(camera in text for camera in linux_cameras())


def test_cameras_are_listed_by_number(tmp_path):
    for name in ("video10", "video2", "video0", "videodev", "video", "audio1"):
        (tmp_path / name).touch()
    assert linux_cameras(tmp_path) == [str(tmp_path / name) for name in ("video0", "video2", "video10")]


def test_cameras_of_windows():
    listing = """[dshow @ 0000] "Integrated Camera" (video)
[dshow @ 0000]   Alternative name "@device_pnp_usb#vid_04f2"
[dshow @ 0000] "OBS Virtual Camera" (video)
[dshow @ 0000] "Microphone Array (Realtek)" (audio)
dummy: Immediate exit requested"""
    assert dshow_names(listing) == ["Integrated Camera", "OBS Virtual Camera"]


# In


def test_a_stand_in_for_a_camera():
    stream = DrivingStream("lavfi:testsrc2=size=96x64:rate=30000/1001:duration=0.5")
    assert (stream.width, stream.height, stream.fps, stream.live) == (96, 64, Fraction(30000, 1001), True)
    begun = time.monotonic()
    frames = read_all(stream)
    assert time.monotonic() - begun > 0.3  # it comes at a camera's pace
    assert frames.shape == (15, 64, 96, 3)
    assert np.abs(frames[1:].astype(int) - frames[:-1]).mean() > 0


@pytest.mark.parametrize("rate", ["25", "24000/1001", "7.5", "12.34"])
def test_rates(rate):
    with DrivingStream(f"lavfi:color=size=16x16:rate={rate}") as stream:
        assert stream.fps == Fraction(rate)


def test_a_stand_in_that_is_wrong():
    with pytest.raises(InputError, match="lavfi:nosuch cannot be opened") as error:
        DrivingStream("lavfi:nosuch")
    assert "nosuch" in one_line(error)


CONTAINERS = {
    "matroska": ("-c:v", "libx264", "-qp", "10", "-preset", "ultrafast", "-f", "matroska"),
    "b-frames": ("-c:v", "libx264", "-qp", "10", "-bf", "3", "-f", "matroska"),
    "mpegts": ("-c:v", "libx264", "-qp", "10", "-preset", "ultrafast", "-f", "mpegts"),
    "nut": ("-c:v", "ffv1", "-pix_fmt", "bgr0", "-f", "nut"),
    "y4m": ("-pix_fmt", "yuv444p", "-f", "yuv4mpegpipe"),
    "mjpeg": ("-c:v", "mjpeg", "-q:v", "2", "-f", "matroska"),
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_frame_of_a_pipe_in_order(stdin, container, run_ffmpeg):
    raw = run_ffmpeg(*TEST_PICTURE, "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    expected = np.frombuffer(raw, np.uint8).reshape(30, 64, 96, 3)
    stdin(*TEST_PICTURE, *CONTAINERS[container])
    stream = DrivingStream("-")
    assert (stream.width, stream.height, stream.fps, stream.live) == (96, 64, Fraction(30000, 1001), False)
    frames = read_all(stream)
    assert frames.shape == (30, 64, 96, 3)
    distances = np.abs(frames[:, None].astype(np.int16) - expected[None]).mean(axis=(2, 3, 4))
    assert (distances.argmin(axis=1) == np.arange(30)).all()
    assert distances.diagonal().max() < 12


def test_a_rotated_video_stands_upright(stdin, tmp_path, run_ffmpeg):
    run_ffmpeg(*TEST_PICTURE, "-preset", "ultrafast", tmp_path / "a.mp4")
    stdin("-display_rotation", "90", "-i", tmp_path / "a.mp4", "-c", "copy", "-f", "mov", "-movflags", "frag_keyframe")
    with DrivingStream("-") as stream:
        assert (stream.width, stream.height) == (64, 96)
        assert stream.read().shape == (96, 64, 3)


def hls(folder: Path) -> bytes:
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{folder}/a.ts\n#EXT-X-ENDLIST\n".encode()


@pytest.mark.parametrize(
    "content",
    [b"", b"\0", b"hello world\n" * 300, b"#!/bin/sh\nls\n", os.urandom(5000), b"\x1aE\xdf\xa3", "list"],
    ids=["nothing", "a byte", "text", "script", "noise", "a beginning", "list"],
)
def test_what_is_no_video(stdin, content, tmp_path, run_ffmpeg):
    if content == "list":  # of a video that is there: it must not be opened
        run_ffmpeg(*TEST_PICTURE, "-f", "mpegts", tmp_path / "a.ts")
        content = hls(tmp_path)
    stdin(content)
    with pytest.raises(InputError) as error:
        DrivingStream("-")
    assert one_line(error).startswith("standard input holds no video (")


def test_sound_alone_is_no_video(stdin):
    stdin("-f", "lavfi", "-i", "sine=duration=1", "-f", "matroska")
    with pytest.raises(InputError, match="it has no pictures"):
        DrivingStream("-")


def test_a_terminal_is_no_video(monkeypatch):
    main, other = pty.openpty()
    with os.fdopen(other, "rb") as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        with pytest.raises(InputError, match="standard input is the terminal"):
            DrivingStream("-")
        with pytest.raises(InputError, match="standard input is the terminal"):
            check_stream("-")
    os.close(main)
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="standard input is closed"):
        DrivingStream("-")


def test_a_pipe_that_breaks_off_gives_what_came(stdin):
    piped = stdin(*TEST_PICTURE, *CONTAINERS["matroska"])
    content = piped.read()
    stdin(content[: len(content) * 2 // 3])
    assert 5 < len(read_all(DrivingStream("-"))) < 30


def test_closing_ends_a_read_that_waits():
    with DrivingStream("lavfi:color=size=16x16:rate=1/20") as stream:  # the second frame is 20 s away
        stream.read()
        threading.Timer(0.2, stream.close).start()
        begun = time.monotonic()
        assert stream.read() is None
        assert time.monotonic() - begun < 5


def test_a_camera_that_fails_says_so():
    stream = DrivingStream("lavfi:testsrc2=size=96x64:rate=100")
    stream.read()
    stream._ffmpeg.process.terminate()
    with pytest.raises(MTAnimateError, match="lavfi:testsrc2=size=96x64:rate=100 gives no more frames"):
        read_all(stream)


@pytest.mark.parametrize("content", ["nothing", "a beginning"])
def test_a_writer_that_hangs_is_not_waited_for(monkeypatch, run_ffmpeg, content):
    monkeypatch.setattr(streams, "_PATIENCE", 2)
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as piped, os.fdopen(writing, "wb") as held:
        monkeypatch.setattr(sys, "stdin", piped)
        if content == "a beginning":
            held.write(run_ffmpeg(*TEST_PICTURE, *CONTAINERS["mjpeg"], "-")[:40_000])
            held.flush()
        begun = time.monotonic()
        with pytest.raises(MTAnimateError, match="nothing came for 2 seconds from standard input") as error:
            read_all(DrivingStream("-"))
        assert 2 <= time.monotonic() - begun < 20
        one_line(error)


def test_a_camera_that_hangs_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(streams, "_PATIENCE", 2)
    with DrivingStream("lavfi:color=size=16x16:rate=1/60") as stream:
        stream.read()
        with pytest.raises(MTAnimateError, match="still plugged in"):
            stream.read()
        assert stream._ffmpeg.process.wait() < 0


def test_a_reader_that_is_killed_is_no_fault_of_the_video(stdin):
    """Before the first frame, and after it."""
    stdin("-re", *TEST_PICTURE, "-c:v", "ffv1", "-f", "nut")
    with DrivingStream("-") as stream:
        stream._ffmpeg.process.kill()
        with pytest.raises(MTAnimateError, match="killed") as error:
            read_all(stream)
    assert error.value.exit_code == 1
    reading, _ = os.pipe()
    killed = FFmpeg(["-i", "pipe:0", "-f", "null", "-"], stdin=reading)
    killed.process.kill()
    killed.finish()
    stream._ffmpeg = killed
    assert stream._no_video("").exit_code == 1


# The program


@pytest.mark.skipif(os.name != "posix", reason="a script in ffmpeg's place")
@pytest.mark.parametrize(("ending", "said"), [("kill -9 $$", "9"), ("kill -15 $$", "15"), ("exit 137", "137")])
def test_what_ends_the_program_is_said(ending, said, tmp_path, monkeypatch):
    """By a signal, or by one that a shell around it passed on; and its encoders are not said to be missing."""
    script = tmp_path / "ffmpeg"
    script.write_text(f"#!/bin/sh\n{ending}\n")
    script.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(script))
    ended = FFmpeg([])
    assert ended.finish() != 0
    assert ended.ended_from_outside() == ended.reason() != ""
    with pytest.raises(MTAnimateError, match=said) as error:
        program.encoders.__wrapped__()
    assert error.value.exit_code == 1


def test_what_is_not_read_does_not_block_the_end():
    ffmpeg = FFmpeg(["-f", "lavfi", "-i", "testsrc2=size=320x240:rate=25:duration=2", "-f", "rawvideo", "-"])
    assert ffmpeg.finish() == 0
    assert ffmpeg.finish() == 0


def test_one_that_does_not_end_is_killed(monkeypatch):
    monkeypatch.setattr(program, "_LONGEST_END", 1)
    ffmpeg = FFmpeg(["-re", "-f", "lavfi", "-i", "testsrc2", "-f", "null", "-"])
    begun = time.monotonic()
    assert ffmpeg.finish() < 0
    assert time.monotonic() - begun < 20


# Out


def numbered(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Frames that tell their number by the grey of their left half."""
    frames = np.full((count, height, width, 3), 60, np.uint8)
    frames[:, :, : width // 2] = (10 + 4 * np.arange(count))[:, None, None, None]
    return frames


def number(frame: np.ndarray) -> int:
    return round((frame[4:-4, 4 : frame.shape[1] // 2 - 4].mean() - 10) / 4)


def write_often(writer: StreamWriter, frame: np.ndarray) -> None:
    for _ in range(500):
        writer.write(frame)


def write_to(path: Path, frames: np.ndarray, **options) -> None:
    with (
        path.open("wb") as file,
        StreamWriter(
            fps=Fraction(30000, 1001), width=frames.shape[2], height=frames.shape[1], stdout=file.fileno(), **options
        ) as writer,
    ):
        for frame in frames:
            writer.write(frame[None])


@pytest.mark.parametrize("size", [(48, 64), (47, 33)])
def test_matroska_out(tmp_path, size, ffmpeg_says):
    frames = numbered(40, *size)
    write_to(tmp_path / "a.mkv", frames, text={"comment": "AI-generated"})
    reader = VideoReader(tmp_path / "a.mkv")
    assert (reader.frame_count, reader.fps) == (40, Fraction(30000, 1001))
    assert (reader.height, reader.width) == (size[0] + size[0] % 2, size[1] + size[1] % 2)
    back = np.concatenate(list(reader.batches(40)))
    assert [number(frame) for frame in back] == list(range(40))
    assert np.abs(back[:, : size[0], : size[1]].astype(int) - frames).mean() < 4
    said = ffmpeg_says(tmp_path / "a.mkv")
    assert "h264" in said
    assert "bt709" in said
    assert "AI-generated" in said


def test_y4m_out(tmp_path):
    write_to(tmp_path / "a.y4m", numbered(10), codec="raw")
    content = (tmp_path / "a.y4m").read_bytes()
    header, _, rest = content.partition(b"\n")
    assert header.startswith(b"YUV4MPEG2 W64 H48 F30000:1001 ")
    assert len(rest) == 10 * (len(b"FRAME\n") + 64 * 48 * 3 // 2)
    assert rest.startswith(b"FRAME\n")


@pytest.mark.parametrize("codec", ["h264", "raw"])
def test_a_frame_goes_out_when_the_next_comes(monkeypatch, codec):
    """What stands in a pipe after n frames, at the other end of it, is n - 1 frames at least."""
    reading, writing = os.pipe()
    frames = numbered(60, 24, 32)
    with StreamWriter(fps=Fraction(25), width=32, height=24, codec=codec, stdout=writing) as writer:
        os.close(writing)
        # The reader wants some frames before it knows what it reads; they fit into a pipe.
        writer.write(frames[:30])
        monkeypatch.setattr(sys, "stdin", os.fdopen(reading, "rb"))
        with DrivingStream("-") as stream:
            # Where more is kept back, a read waits for ever: this ends it.
            watchdog = threading.Timer(20, stream.close)
            watchdog.start()
            seen = [number(stream.read()) for _ in range(29)]
            for index in range(30, 60):
                writer.write(frames[index : index + 1])
                seen.append(number(stream.read()))
            watchdog.cancel()
            assert seen == list(range(59))


@pytest.mark.parametrize("codec", ["h264", "raw"])
def test_a_reader_that_goes_away_closes_it(codec):
    reading, writing = os.pipe()
    noise = np.random.default_rng(0).integers(0, 255, (1, 128, 128, 3), np.uint8)
    writer = StreamWriter(fps=Fraction(25), width=128, height=128, codec=codec, stdout=writing)
    os.close(writing)
    writer.write(noise)
    os.read(reading, 100)
    os.close(reading)
    with pytest.raises(StreamClosed):
        write_often(writer, noise)
    with pytest.raises(StreamClosed):
        writer.__exit__(None, None, None)


def test_a_reader_that_goes_away_at_the_end():
    reading, writing = os.pipe()
    writer = StreamWriter(fps=Fraction(25), width=64, height=64, stdout=writing)
    os.close(writing)
    os.close(reading)
    writer.write(np.zeros((1, 64, 64, 3), np.uint8))
    with pytest.raises(StreamClosed):
        writer.__exit__(None, None, None)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk():
    black = np.zeros((1, 64, 64, 3), np.uint8)
    with Path("/dev/full").open("wb") as full:
        writer = StreamWriter(fps=Fraction(25), width=64, height=64, codec="raw", stdout=full.fileno())
        with pytest.raises(MTAnimateError, match="the disk is full"):
            write_often(writer, black)


def test_no_video_into_a_terminal(monkeypatch):
    main, other = pty.openpty()
    with os.fdopen(other, "wb") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        with pytest.raises(InputError, match="standard output is the terminal"):
            StreamWriter(fps=Fraction(25), width=64, height=64)
    os.close(main)
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(InputError, match="standard output is closed"):
        StreamWriter(fps=Fraction(25), width=64, height=64)


def test_frames_of_another_size_are_a_mistake(tmp_path):
    with pytest.raises(ValueError, match="expected uint8"):
        write_to(tmp_path / "a", np.zeros((1, 8, 8, 3), np.float32))
