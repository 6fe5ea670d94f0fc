"""The live loop: the newest frame of a camera, every frame of a pipe; what is shown belongs to what was seen."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from forks import FORK
from serving import until
from tiny import moving_square, tiny_animator

from mtanimate.animation.live import LiveVideo, run_live
from mtanimate.animation.retargeting import AtRest
from mtanimate.errors import MTAnimateError
from mtanimate.inference.predictor import Predictor
from mtanimate.inference.prefetch import to_frames
from mtanimate.models.motion import Motion
from mtanimate.video import VideoReader, VideoWriter
from mtanimate.video.streams import DrivingStream, StreamClosed, StreamWriter

# Frames that carry their number, a network that reads it, a renderer that shows it


def frame(number: int, size: int = 16) -> np.ndarray:
    picture = np.zeros((size, size, 3), np.uint8)
    picture[..., 0], picture[..., 1] = number // 200, number % 200
    return picture


def number_of(picture: np.ndarray) -> int:
    return 200 * int(picture[0, 0, 0]) + int(picture[0, 0, 1])


class Camera:
    """Numbered frames at a pace, in seconds. count: how many it has given. live: as a camera, or as a pipe."""

    def __init__(self, total: int, pace: float = 0.0, live: bool = True, size: int = 16) -> None:
        self.total, self.pace, self.live, self.size = total, pace, live, size
        self.count, self.closed = 0, threading.Event()

    def read(self):
        if self.pace and self.closed.wait(self.pace):
            return None
        if self.count == self.total or self.closed.is_set():
            return None
        self.count += 1
        return frame(self.count - 1, self.size)

    def close(self) -> None:
        self.closed.set()


class Network:
    """Its motion is the number of the frame. broken: frames that give NaN. taken: each frame, and the newest there."""

    resolution = 16

    def __init__(self, delay: float = 0.0, broken=(), camera: Camera | None = None) -> None:
        self.delay, self.broken, self.camera = delay, broken, camera
        self.taken: list[tuple[int, int]] = []

    def estimate(self, square):
        number = number_of(square[0].permute(1, 2, 0).numpy())
        self.taken.append((number, self.camera.count - 1 if self.camera else number))
        time.sleep(self.delay)
        value = float("nan") if number in self.broken else float(number)
        return motion(value)


def motion(value: float) -> Motion:
    return Motion(torch.full((1, 4, 2), value), torch.eye(2).expand(1, 4, 2, 2))


class Shown:
    """A renderer whose source stands at 0 and whose picture is the number that it is moved by."""

    def drive(self, frames, transfer, background):
        return transfer.onto(motion(0), motion(0), frames)

    def compose(self, moved):
        return frame(round(float(moved.keypoints[0, 0, 0])))[None]

    def backgrounds(self, driving):
        return None


class Screen:
    """A sink that remembers. act(number of the result) is called at each."""

    def __init__(self, act=lambda number: None, idle=lambda: None) -> None:
        self.act, self.attend = act, idle
        self.shown: list[int] = []
        self.times: list[float] = []
        self.ended: type | str | None = "open"
        self.asked = False

    def write(self, picture, at) -> None:
        self.shown.append(number_of(picture))
        self.times.append(at)
        self.act(self.shown[-1])

    def reference_asked(self) -> bool:
        asked, self.asked = self.asked, False
        return asked

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace) -> None:
        self.ended = kind


def play(camera, network=None, screen=None, mode="absolute", **options):
    screen = screen or Screen()
    report = run_live(network or Network(camera=camera), Shown(), camera, screen, mode=mode, **options)
    return report, screen


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "frames"]


# Which frames


def test_every_frame_of_a_pipe_in_order_however_slow_the_network():
    camera = Camera(40, live=False)
    network = Network(0.005, camera=camera)
    report, screen = play(camera, network)
    assert screen.shown == list(range(40))
    assert (report.frames, report.dropped, report.held) == (40, 0, 0)
    assert max(newest - number for number, newest in network.taken) <= 4  # what is read ahead is bounded
    assert screen.ended is None


def test_a_slow_network_sees_the_newest_frame_of_a_camera():
    camera = Camera(100, pace=0.01)
    network = Network(0.05, camera=camera)
    report, screen = play(camera, network)
    assert screen.shown == sorted(set(screen.shown))
    assert screen.shown == [number for number, _ in network.taken]
    assert max(newest - number for number, newest in network.taken) <= 1
    assert report.frames == len(screen.shown)
    assert report.frames + report.dropped == 100
    assert report.dropped > 50
    assert 0 < len(screen.shown) < 50
    # A frame waits for less than the network's time, and then takes that.
    assert 50 < report.latency_mean < 120
    assert report.latency_95 >= report.latency_mean * 0.9
    assert report.frames_per_second == pytest.approx(report.frames / report.seconds, rel=0.01)
    assert screen.times[0] == 0
    assert screen.times == sorted(screen.times)
    assert screen.times[-1] <= report.seconds


def test_a_fast_network_drops_nothing():
    camera = Camera(30, pace=0.02)
    report, _ = play(camera)
    assert report.frames + report.dropped == 30
    assert report.dropped <= 3  # on a busy machine
    assert report.latency_mean < 20


def test_no_frame_at_all():
    report, screen = play(Camera(0))
    assert (report.frames, report.dropped, report.latency_mean, screen.ended) == (0, 0, None, None)
    assert str(report) == "0 frames, 0 dropped, 0.0 a second"


# Which motion


def test_movement_is_since_the_first_frame():
    _, screen = play(Camera(6, live=False), mode="relative")
    assert screen.shown == [0, 1, 2, 3, 4, 5]
    _, screen = play(Camera(6, live=False), mode="relative", strength=3.0)
    assert screen.shown == [0, 3, 6, 9, 12, 15]


def test_a_new_reference_when_the_window_asks():
    screen = Screen()
    screen.act = lambda number: setattr(screen, "asked", number == 3)
    play(Camera(9, live=False), screen=screen, mode="relative")
    assert screen.shown == [0, 1, 2, 3, 0, 1, 2, 3, 0]


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="POSIX has it")
def test_a_new_reference_by_signal():
    before = signal.getsignal(signal.SIGUSR1)
    sent = []

    def act(number):
        if number == 3 and not sent:
            sent.append(number)
            os.kill(os.getpid(), signal.SIGUSR1)

    _, screen = play(Camera(9, live=False), screen=Screen(act), mode="relative")
    assert screen.shown == [0, 1, 2, 3, 0, 1, 2, 3, 4]
    assert signal.getsignal(signal.SIGUSR1) == before


@pytest.mark.parametrize("mode", ["relative", "absolute"])
def test_a_frame_without_a_motion_holds_the_last(mode):
    report, screen = play(Camera(8, live=False), Network(broken=(3, 4, 7)), mode=mode)
    assert screen.shown == [0, 1, 2, 2, 2, 5, 6, 6]
    assert (report.frames, report.held) == (8, 3)


@pytest.mark.parametrize(("mode", "shown"), [("relative", [0, 0, 0, 1]), ("absolute", [0, 0, 2, 3])])
def test_before_the_first_motion_the_source_rests(mode, shown):
    _, screen = play(Camera(4, live=False), Network(broken=(0, 1)), mode=mode)
    assert screen.shown == shown


def test_frames_are_cut_as_asked():
    def squares(frames):
        return torch.from_numpy(frames[:, ::-1].copy()).permute(0, 3, 1, 2) + 1

    _, screen = play(Camera(3, live=False), squares=squares)
    assert screen.shown == [201, 202, 203]


# How it ends


@pytest.mark.parametrize("live", [True, False])
def test_when_nobody_watches_it_ends(live):
    def act(number):
        if number >= 4:
            raise StreamClosed

    camera = Camera(10**6, pace=0.005, live=live)
    report, screen = play(camera, screen=Screen(act))
    assert screen.shown[-1] >= 4
    assert report.frames == len(screen.shown) - 1
    assert screen.ended is StreamClosed
    assert camera.closed.is_set()


def test_a_window_is_looked_after_while_no_frame_comes():
    calls = itertools.count()

    def idle():
        if next(calls) == 3:
            raise StreamClosed

    begun = time.monotonic()
    report, _ = play(Camera(9, pace=60), screen=Screen(idle=idle))
    assert report.frames == 0
    assert time.monotonic() - begun < 10


def test_ctrl_c_closes_the_sink_in_good_order():
    def act(number):
        if number == 5:
            signal.raise_signal(signal.SIGINT)

    said = []
    screen = Screen(act)
    with pytest.raises(KeyboardInterrupt):
        play(Camera(10**6, live=False), screen=screen, log=said.append)
    assert screen.ended is None
    assert len(said) == 1
    assert said[0].startswith("5 frames, 0 dropped, ")


def test_a_camera_that_fails_leaves_a_whole_recording():
    class Unplugged(Camera):
        def read(self):
            if self.count == 5:
                raise MTAnimateError("webcam:0 gives no more frames")
            return super().read()

    screen = Screen()
    with pytest.raises(MTAnimateError, match="no more frames"):
        play(Unplugged(9, live=False), screen=screen)
    assert screen.shown == [0, 1, 2, 3, 4]
    assert screen.ended is None


def test_a_sink_that_fails_is_told():
    def act(number):
        raise MTAnimateError("the disk is full")

    screen = Screen(act)
    with pytest.raises(MTAnimateError, match="disk"):
        play(Camera(9), screen=screen)
    assert screen.ended is MTAnimateError


# Recordings


class Written(list):
    def write(self, frames):
        self.extend(number_of(one) for one in frames)


def test_a_recording_runs_at_the_speed_of_life():
    written = Written()
    recording = LiveVideo(written, Fraction(10), live=True)
    for number, at in enumerate([0.0, 0.11, 0.39, 0.42, 0.9]):
        recording.write(frame(number), at)
    assert written == [0, 1, 2, 2, 2, 4, 4, 4, 4, 4]


def test_a_recording_of_a_pipe_has_each_frame_once():
    written = Written()
    recording = LiveVideo(written, Fraction(10), live=False)
    for number, at in enumerate([0.0, 0.0, 0.1, 7.0]):
        recording.write(frame(number), at)
    assert written == [0, 1, 2, 3]


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_file_is_whole_after_ctrl_c_too(tmp_path, interrupted):
    writer = VideoWriter(tmp_path / "a.mp4", fps=Fraction(25), width=16, height=16)
    camera = Camera(12, live=False)
    network = Network()
    if interrupted:
        estimate = network.estimate
        network.estimate = lambda square: signal.raise_signal(signal.SIGINT) if camera.count > 9 else estimate(square)
        with pytest.raises(KeyboardInterrupt):
            play(camera, network, LiveVideo(writer, Fraction(25), live=False))
        assert 5 <= VideoReader(tmp_path / "a.mp4").frame_count < 12
    else:
        play(camera, network, LiveVideo(writer, Fraction(25), live=False))
        assert VideoReader(tmp_path / "a.mp4").frame_count == 12


# The network, and real streams


class TinyRenderer:
    """A picture, moved by a tiny network."""

    def __init__(self, predictor: Predictor, picture: np.ndarray) -> None:
        self.predictor = predictor
        self.source = predictor.encode(torch.from_numpy(picture).permute(2, 0, 1)[None])

    def drive(self, frames, transfer, background):
        rest = self.source.motion
        return self.predictor.drive(self.source, transfer.onto(rest, rest, frames), background)

    def compose(self, driven):
        return to_frames(driven)

    def backgrounds(self, driving):
        return self.predictor.predict_background(self.source, driving)


@pytest.fixture(scope="module")
def tiny():
    torch.set_num_threads(1)
    predictor = Predictor(tiny_animator().eval(), "fp32", lambda line: None)
    return predictor, TinyRenderer(predictor, moving_square(1, 0)[0])


def test_a_camera_drives_the_network(tiny, tmp_path):
    """For as long as the camera runs; the first result is the source at rest."""
    predictor, renderer = tiny
    writer = VideoWriter(tmp_path / "a.mp4", fps=Fraction(25), width=64, height=64)
    with DrivingStream("lavfi:testsrc2=size=96x64:rate=25:duration=2") as stream:
        report = run_live(predictor, renderer, stream, LiveVideo(writer, stream.fps, live=True))
    assert report.frames + report.dropped == 50
    assert report.frames > 5
    assert report.seconds == pytest.approx(1.96, abs=0.5)
    reader = VideoReader(tmp_path / "a.mp4")
    assert reader.frame_count == pytest.approx(50, abs=2)
    rest = renderer.compose(renderer.drive(slice(0, 1), AtRest(), None))
    assert np.abs(reader.frames([0])[0].astype(int) - rest[0]).mean() < 6


def test_memory_is_flat(monkeypatch):
    """Over 1500 frames of 160 x 120 (85 MB) from ffmpeg to ffmpeg."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-nostdin"]
    made = ["-f", "lavfi", "-i", "color=size=160x120:rate=100:duration=15", "-f", "yuv4mpegpipe", "pipe:1"]
    used = []

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    if not Path("/proc/self/statm").exists():
        pytest.skip("no /proc")
    with subprocess.Popen([*command, *made], stdout=subprocess.PIPE) as producer, Path(os.devnull).open("wb") as null:
        monkeypatch.setattr(sys, "stdin", producer.stdout)
        writer = StreamWriter(fps=Fraction(100), width=16, height=16, stdout=null.fileno())
        screen = LiveVideo(writer, Fraction(100), live=False)
        write = screen.write
        screen.write = lambda picture, at: (used.append(resident()), write(picture, at))
        with DrivingStream("-") as stream:
            report, _ = play(stream, Network(), screen)
    assert (report.frames, report.dropped) == (1500, 0)
    assert max(used[500:]) - used[500] < 8e6


def animate(stream: str, shown: Path, said: Path) -> None:
    """As a program whose standard streams are these files."""
    for number, file in ((1, shown), (2, said)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    predictor = Predictor(tiny_animator().eval(), "fp32", print)
    renderer = TinyRenderer(predictor, np.full((64, 64, 3), 120, np.uint8))

    def say(line):
        os.write(2, f"{line}\n".encode())

    with DrivingStream(stream) as driving:
        sink = LiveVideo(StreamWriter(fps=driving.fps, width=64, height=64), driving.fps, live=driving.live)
        say("begun")
        try:
            say(run_live(predictor, renderer, driving, sink, log=say))
        except KeyboardInterrupt:
            sys.exit(130)


def start(*arguments):
    process = FORK.Process(target=animate, args=("lavfi:testsrc2=size=96x64:rate=25", *arguments))
    process.start()
    return process


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_a_program_that_stops_reading_and_ctrl_c(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    program = start(tmp_path / "pipe", tmp_path / "said")
    other = start(tmp_path / "a.mkv", tmp_path / "other said")
    with (tmp_path / "pipe").open("rb") as pipe:
        assert len(pipe.read(1000)) == 1000
    program.join(60)
    assert program.exitcode == 0
    said = (tmp_path / "said").read_text()
    assert len(said.splitlines()) == 2
    assert " frames, " in said
    until(lambda: (tmp_path / "other said").read_text() == "begun\n")
    time.sleep(1)
    os.kill(other.pid, signal.SIGINT)
    other.join(60)
    assert other.exitcode == 130
    said = (tmp_path / "other said").read_text()
    assert " frames, " in said
    assert "Traceback" not in said
    assert VideoReader(tmp_path / "a.mkv").frame_count > 5
