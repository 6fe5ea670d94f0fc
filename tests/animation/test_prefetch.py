"""Threads that work ahead: in order, bounded, and gone when nobody takes."""

import threading
import time

import pytest

from mtanimate.inference.prefetch import prefetch


def counting(made, until=10, error=None):
    try:
        for number in range(until):
            made.append(number)
            yield number
        if error:
            raise error
    finally:
        made.append("closed")


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def test_the_same_items_in_order():
    assert list(prefetch(counting([]))) == list(range(10))
    assert threads() == []


def test_it_works_while_others_do_and_not_further():
    made = []
    taken = prefetch(counting(made, 100), depth=2)
    next(taken)
    deadline = time.monotonic() + 5
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    assert made == [0, 1, 2, 3]  # one is used, two wait, one waits for room
    taken.close()


def test_errors_come_after_what_was_made_before_them():
    taken = prefetch(counting([], 2, ValueError("broken")))
    assert [next(taken), next(taken)] == [0, 1]
    with pytest.raises(ValueError, match="broken"):
        next(taken)
    assert threads() == []


def test_who_stops_taking_stops_the_work():
    made = []
    for number in prefetch(counting(made, 10**6)):
        if number == 3:
            break
    assert made[-1] == "closed"
    assert threads() == []


def test_nothing_to_do():
    assert list(prefetch(counting([], 0))) == []
