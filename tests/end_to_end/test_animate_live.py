"""`mtanimate animate` in a pipe, and with a camera's stand-in."""

import os
import subprocess

import imageio_ffmpeg
import pytest
from commands import COMMAND
from forks import run

from mtanimate.video import VideoReader

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()


def options(media, *more):
    network = ["--source", media / "face.png", "--checkpoint", media / "tiny.safetensors", "--crop", "none"]
    return ["animate", *network, "--driving-crop", "none", *more]


def command(media, *more):
    """As installed: standard streams are what these tests are about."""
    return [COMMAND, *map(str, options(media, *more))]


@pytest.mark.parametrize("codec", ["h264", "raw"])
def test_from_ffmpeg_to_ffmpeg(codec, media, tmp_path):
    """Every frame goes through, and nothing but video to standard output: through pipes, and from and to files."""
    copied = [FFMPEG, "-v", "error", "-i", media / "talk.mp4", "-an", "-c", "copy", tmp_path / "stream.mkv"]
    subprocess.run(copied, check=True)
    streams = ("--driving", "-", "--out", "-", "--codec", codec)
    if codec == "h264":
        stream = (tmp_path / "stream.mkv").read_bytes()
        done = subprocess.run(command(media, *streams), input=stream, capture_output=True)
    else:
        done = run(*options(media, *streams), stdin=tmp_path / "stream.mkv", text=False)
    assert done.returncode == 0, done.stderr
    assert "20 frames, 0 dropped" in done.stderr.decode()
    kept = tmp_path / "kept.mkv"
    subprocess.run([FFMPEG, "-v", "error", "-i", "-", "-c:v", "ffv1", kept], input=done.stdout, check=True)
    reader, driving = VideoReader(kept), VideoReader(media / "talk.mp4")
    assert (reader.frame_count, reader.fps, reader.width) == (20, driving.fps, 64)


def test_a_file_to_standard_output(media, tmp_path):
    done = run(*options(media, "--driving", media / "talk.mp4", "--out", "-", "--quiet"), text=False)
    assert (done.returncode, done.stderr) == (0, b"")
    (tmp_path / "kept.mkv").write_bytes(done.stdout)
    subprocess.run([FFMPEG, "-v", "error", "-i", tmp_path / "kept.mkv", "-f", "null", "-"], check=True)


def test_a_camera_to_a_file(media, tmp_path):
    out = tmp_path / "o.mp4"
    camera = "lavfi:testsrc2=size=96x64:rate=10:duration=2"
    done = run(*options(media, "--driving", camera, "--out", out, "--json"))
    assert done.returncode == 0, done.stderr
    assert '"dropped": ' in done.stdout
    assert 15 <= VideoReader(out).frame_count <= 21


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--driving", "webcam:77", "--out", "o.mp4"], "webcam:77"),
        (["--driving", "webcam:0", "--out", "o.mp4", "--smooth", "1"], "--smooth needs a driving video from a file"),
        (["--driving", "-", "--out", "-", "--codec", "ffv1"], "standard output takes"),
        (["--driving", "-", "--out", "o.mp4", "--save-motion", "m.npz"], "--save-motion"),
        (["--driving", "webcam", "--out", "o.mp4"], "webcam"),
    ],
)
def test_wrong_streams_are_one_line(wrong, said, media, tmp_path):
    done = run(*options(media, *wrong), cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == []


def test_input_that_is_no_video(media, tmp_path):
    (tmp_path / "stream").write_bytes(b"text" * 999)
    done = run(*options(media, "--driving", "-", "--out", tmp_path / "o.mp4"), stdin=tmp_path / "stream")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_the_reader_goes_away(media):
    """`mtanimate ... --out - | head -c 1000` ends in good order."""
    arguments = command(media, "--driving", media / "long.mp4", "--out", "-", "--quiet")
    writer = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert writer.stdout.read(1000)
    writer.stdout.close()
    writer.wait(60)
    assert b"Traceback" not in writer.stderr.read()


def test_help_names_it(media):
    assert "webcam:0" in run("animate", "--help").stdout
