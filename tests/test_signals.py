"""Signals that ask for the end are taken as Ctrl-C is, get through, and reach those that a process started."""

import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from mtanimate.signals import ENDING, Ended, SignalsAsInterrupt, held, listened_to

posix = pytest.mark.skipif(os.name != "posix", reason="processes as POSIX has them")


def wait(seconds: float = 5.0) -> None:
    """As work does, in many small steps."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.01)


@pytest.mark.parametrize("number", ENDING)
def test_each_of_them_ends_with_its_number(number):
    before = signal.getsignal(number)
    with pytest.raises(Ended) as ended, SignalsAsInterrupt() as signals:
        signal.raise_signal(number)
    assert ended.value.number == signals.number == number
    assert signal.getsignal(number) == before


def test_it_waits_for_what_is_held():
    """A child that is just being started: without an owner nobody would end it."""
    with SignalsAsInterrupt() as signals:
        with held():
            signal.raise_signal(signal.SIGTERM)
            wait(0.2)
        with pytest.raises(Ended):
            wait()
    assert signals.number == signal.SIGTERM


def test_what_a_process_is_told_to_ignore_stays_ignored():
    """As `nohup` does."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        assert signal.SIGTERM not in listened_to()
        with SignalsAsInterrupt() as signals:
            signal.raise_signal(signal.SIGTERM)
            assert signals.number == 0
    finally:
        signal.signal(signal.SIGTERM, before)


def test_an_import_is_done_before_the_end(tmp_path, monkeypatch):
    """Whatever it catches: a module would stay half there, or be taken for one that is missing."""
    (tmp_path / "begun_by_test.py").write_text(
        "import signal\n"
        "try:\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "except BaseException:\n"
        "    raise ImportError('swallowed')\n"
        "done = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    def work() -> None:
        with SignalsAsInterrupt():
            assert importlib.import_module("begun_by_test").done
            wait()

    with pytest.raises(Ended):
        work()


def test_a_callback_cannot_swallow_it():
    class Closing:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    def work() -> None:
        with SignalsAsInterrupt():
            Closing()
            wait()

    hook = sys.unraisablehook
    with pytest.raises(Ended):
        work()
    assert sys.unraisablehook is hook


PARENT = """
import subprocess, sys
from mtanimate.signals import child_environment
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, env=child_environment())
print(child.pid, child.stdout.readline().decode(), flush=True)
child.wait()
"""
CHILD = """
import os, sys, time
from mtanimate.signals import SignalsAsInterrupt, Ended, end_with_parent
end_with_parent()
assert "MTANIMATE_PARENT" not in os.environ  # it is for this one alone
with SignalsAsInterrupt():
    print("begun", flush=True)
    time.sleep(60)
"""


def gone(process: int, seconds: float = 10.0) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    os.kill(process, signal.SIGKILL)
    return False


@posix
def test_a_command_ends_when_the_one_that_started_it_is_killed():
    with subprocess.Popen([sys.executable, "-c", PARENT, CHILD], stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline().split()[0])
        parent.kill()
    assert gone(child)


ENDLESS = """
import subprocess, time
from mtanimate.video.ffmpeg import FFmpeg
endless = FFmpeg(["-re", "-f", "lavfi", "-i", "testsrc2", "-f", "null", "-"], stdin=subprocess.DEVNULL)
print(endless.process.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it ends when it next uses its pipe")
def test_ffmpeg_ends_when_we_are_killed():
    """One that reads and writes no pipe of ours, as in the last steps of a GIF."""
    with subprocess.Popen([sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, text=True) as parent:
        ffmpeg = int(parent.stdout.readline())
        parent.kill()
    assert gone(ffmpeg)


MAKER = """
import multiprocessing, os, sys, time
from mtanimate.signals import end_with_maker

def live(lines):
    end_with_maker()
    lines.put(os.getpid())
    time.sleep(60)

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    lines = context.SimpleQueue()
    for _ in range(2):
        context.Process(target=live, args=(lines,)).start()
    print(lines.get(), lines.get(), flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
@posix
def test_processes_end_when_the_one_that_made_them_is_killed(method, tmp_path):
    """Where a server forks them it lives as long as they do, and watching it would keep both for ever."""
    program = tmp_path / "maker.py"
    program.write_text(MAKER)
    with subprocess.Popen([sys.executable, program, method], stdout=subprocess.PIPE, text=True) as maker:
        made = list(map(int, maker.stdout.readline().split()))
        maker.kill()
    assert len(made) == 2
    assert all(map(gone, made))
