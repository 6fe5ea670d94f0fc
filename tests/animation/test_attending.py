"""Pieces of work that hang, fail or are called off, by stand-ins that really do."""

import subprocess
import sys
import threading
import time
from contextlib import closing

import pytest

from mtanimate.animation import jobs as attending
from mtanimate.animation.jobs import Stopped, attend


def nobody(item: object) -> None:
    raise AssertionError(f"{item} does not hang")


def test_one_that_hangs_is_given_up_and_the_others_go_on(monkeypatch):
    monkeypatch.setattr(attending, "LONGEST_SILENCE", 0.3)
    for_ever, told = threading.Event(), []

    def work(piece):
        if piece.item == 1:
            for_ever.wait()
        for _ in range(20):  # 0.6 s, never silent
            time.sleep(0.03)
            piece.progress()
        return True

    with closing(attend(work, told.append, range(3), 1)) as outcomes:
        assert list(outcomes) == [True, False, True]
    assert told == [1]
    for_ever.set()


def test_one_that_was_given_up_and_comes_back_is_stopped(monkeypatch):
    monkeypatch.setattr(attending, "LONGEST_SILENCE", 0.1)
    slow, stopped = threading.Event(), threading.Event()

    def work(piece):
        slow.wait(10)
        try:
            piece.progress()
        except Stopped:
            stopped.set()
        return True

    with closing(attend(work, lambda item: None, ["slow"], 1)) as outcomes:
        assert list(outcomes) == [False]
    slow.set()
    assert stopped.wait(5)


def test_whoever_stops_taking_stops_the_work():
    ended = threading.Event()

    def work(piece):
        try:
            while piece.item != "quick":
                time.sleep(0.01)
                piece.progress()
        except Stopped:
            ended.set()
            raise
        return True

    def interrupted() -> None:
        with closing(attend(work, nobody, ["quick", "long"], 2)) as outcomes:
            assert next(outcomes)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert ended.is_set()  # at once, and was waited for


def test_what_the_work_raises_is_raised():
    def work(piece):
        raise OSError("the report cannot be written")

    with pytest.raises(OSError, match="report"), closing(attend(work, nobody, [1], 1)) as outcomes:
        list(outcomes)


PROGRAM = """
import time
from contextlib import closing
from mtanimate.animation import jobs as attending
attending.LONGEST_SILENCE = 0.1
with closing(attending.attend(lambda piece: time.sleep(600), print, ["hangs"], 1)) as outcomes:
    print(list(outcomes))
"""


def test_a_process_ends_beside_one_that_hangs():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "hangs\n[False]\n", "")
