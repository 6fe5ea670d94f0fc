"""Pieces of work that hang, fail or are called off, by stand-ins that really do."""

import subprocess
import sys
import threading
import time
from contextlib import closing

import pytest

from mtanimate.animation import attending
from mtanimate.animation.attending import Stopped, attend


def nobody(item: object) -> None:
    raise AssertionError(f"{item} does not hang")


def test_one_that_hangs_is_given_up_and_the_others_go_on(monkeypatch):
    monkeypatch.setattr(attending, "LONGEST_SILENCE", 0.3)
    for_ever = threading.Event()

    def work(item, alive):
        yield "begun"
        if item == 1:
            for_ever.wait()
        for _ in range(20):  # 0.6 s, never silent
            time.sleep(0.03)
            alive()
        yield "done"

    with closing(attend(work, lambda item: "hung", range(3), 1)) as said:
        assert list(said) == [
            (0, "begun"), (0, "done"), (1, "begun"), (1, "hung"), (2, "begun"), (2, "done"),
        ]  # fmt: skip
    for_ever.set()


def test_one_that_was_given_up_and_comes_back_is_stopped(monkeypatch):
    monkeypatch.setattr(attending, "LONGEST_SILENCE", 0.1)
    slow, stopped = threading.Event(), threading.Event()

    def work(item, alive):
        slow.wait(10)
        try:
            alive()
        except Stopped:
            stopped.set()
        yield "too late"

    with closing(attend(work, lambda item: "hung", ["slow"], 1)) as said:
        assert list(said) == [("slow", "hung")]
    slow.set()
    assert stopped.wait(5)


def test_whoever_stops_taking_stops_the_work():
    ended = threading.Event()

    def work(item, alive):
        try:
            while item != "quick":
                time.sleep(0.01)
                alive()
        except Stopped:
            ended.set()
            raise
        yield "done"

    def interrupted() -> None:
        with closing(attend(work, nobody, ["quick", "long"], 2)) as said:
            assert next(said) == ("quick", "done")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert ended.is_set()  # at once, and was waited for


def test_the_work_goes_on_when_what_it_said_was_heard():
    """So that a line of a report is written before what it announces happens."""
    happened = []

    def work(item, alive):
        yield "announced"
        happened.append(item)

    with closing(attend(work, nobody, [1], 1)) as said:
        assert next(said) == (1, "announced")
        time.sleep(0.2)
        assert happened == []
        assert list(said) == []
    assert happened == [1]


def test_items_are_taken_when_a_worker_is_free():
    taken = []

    def items():
        for number in range(5):
            taken.append(number)
            yield number

    with closing(attend(lambda item, alive: iter(["done"]), nobody, items(), 2)) as said:
        next(said)
        assert len(taken) == 2
        list(said)
    assert taken == [*range(5)]


def test_what_the_work_raises_is_raised():
    def work(item, alive):
        raise OSError("the report cannot be written")
        yield

    with pytest.raises(OSError, match="report"), closing(attend(work, nobody, [1], 1)) as said:
        list(said)


PROGRAM = """
import time
from contextlib import closing
from mtanimate.animation import attending

def work(item, alive):
    time.sleep(600)
    yield

attending.LONGEST_SILENCE = 0.1
with closing(attending.attend(work, lambda item: "hung", [1], 1)) as said:
    print(list(said))
"""


def test_a_process_ends_beside_one_that_hangs():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[(1, 'hung')]\n", "")
