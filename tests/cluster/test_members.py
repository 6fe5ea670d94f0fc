"""Workers of a cluster, with works that die, fail, differ and refuse for real."""

import itertools
import os
import signal
import socket
import sys
import time
from contextlib import closing, contextmanager
from functools import partial

import pytest

from mtanimate.cluster import workers
from mtanimate.cluster.connection import ClusterOptions, connect
from mtanimate.cluster.workers import MOST_DEATHS, Workers
from mtanimate.errors import InputError


@pytest.fixture(autouse=True, scope="module")
def _by_value():
    """The workers cannot import this file: what it defines is sent to them."""
    pytest.importorskip("ray").cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Work:
    """Says twice of each item which it is; and dies, or fails, where it is told to."""

    def __init__(self, folder, agreed):
        self._folder, self._agreed = folder, agreed

    def identity(self):
        return {"folder": str(self._folder)}

    def perform(self, item, before):
        yield item, "begun", before
        if item == "dies once" and before is None:
            os._exit(1)
        if item == "kills":
            os._exit(1)
        if item == "fails":
            raise InputError("it fails")
        yield item, "done", self._agreed


@contextmanager
def said_by(address, make, items, log=lambda line: None, count=2):
    with (
        connect(ClusterOptions(address, 1), "cpu", count) as nodes,
        closing(Workers(nodes, log).spread(make, lambda item: (item, "lost", None), items)) as said,
    ):
        yield said


def test_each_item_is_performed_once_and_is_heard_in_order(ray_cluster, tmp_path):
    with said_by(ray_cluster.address, partial(Work, tmp_path), range(6)) as said:
        heard = list(said)
    for item in range(6):
        assert [value[1] for given, value in heard if given == item] == ["begun", "done"]
    # The first worker had nobody to agree with; the other was told what the first had chosen.
    assert {str(value[2]) for _, value in heard if value[1] == "done"} <= {"None", str({"folder": str(tmp_path)})}


def test_the_item_of_a_worker_that_dies_goes_to_another(ray_cluster, tmp_path):
    told = []
    items = ["a", "dies once", "b", "c"]
    with said_by(ray_cluster.address, partial(Work, tmp_path), items, told.append) as said:
        heard = [value for _, value in said]
    assert sorted(value[0] for value in heard if value[1] == "done") == sorted(items)
    again = [value[2] for value in heard if value[:2] == ("dies once", "begun")]
    assert again == [None, ("dies once", "begun", None)]
    assert len(told) == 1


def test_an_item_that_kills_its_workers_is_given_up_and_the_others_go_on(ray_cluster, tmp_path):
    items = ["kills", "a", "b"]
    with said_by(ray_cluster.address, partial(Work, tmp_path), items) as said:
        heard = [value for _, value in said]
    assert [value[1] for value in heard if value[0] == "kills"] == ["begun"] * MOST_DEATHS + ["lost"]
    assert {value[0] for value in heard if value[1] == "done"} == {"a", "b"}


def test_what_the_work_raises_is_raised_here(ray_cluster, tmp_path):
    with (
        pytest.raises(InputError, match=r"^it fails$"),
        said_by(ray_cluster.address, partial(Work, tmp_path), ["fails"]) as said,
    ):
        list(said)


def test_items_are_taken_as_workers_are_free(ray_cluster, tmp_path):
    """There may be millions."""
    taken = itertools.count()
    with said_by(ray_cluster.address, partial(Work, tmp_path), taken) as said:
        for _ in range(7):
            next(said)
    assert next(taken) < 10


def test_another_version_is_named_and_refused(ray_cluster, tmp_path, monkeypatch):
    ours = workers.versions() | {"torch": "9.9"}
    monkeypatch.setattr(workers, "versions", lambda: ours)
    with (
        pytest.raises(InputError, match=r"^node \S+: torch is .*9\.9 on this machine"),
        said_by(ray_cluster.address, partial(Work, tmp_path), [1]) as said,
    ):
        list(said)


class Differs(Work):
    def identity(self):
        return {"the checkpoint's SHA-256": str(os.getpid())}


def slowly():
    """Items until the second worker has come."""
    while True:
        time.sleep(0.2)
        yield 1


def test_workers_that_differ_are_refused(ray_cluster, tmp_path):
    with (
        pytest.raises(InputError, match="the checkpoint's SHA-256 is"),
        said_by(ray_cluster.address, partial(Differs, tmp_path), slowly()) as said,
    ):
        list(said)


class Refuses(Work):
    def __init__(self, folder, agreed):
        raise InputError(f"{folder} is no checkpoint: give one")


def test_what_a_node_cannot_begin_is_named_with_the_node(ray_cluster, tmp_path):
    with (
        pytest.raises(InputError, match=r"^node \S+: .* is no checkpoint: give one$"),
        said_by(ray_cluster.address, partial(Refuses, tmp_path), [1]) as said,
    ):
        list(said)


class Dies(Work):
    def __init__(self, folder, agreed):
        os._exit(1)


def test_workers_that_die_before_they_begin_end_the_run(ray_cluster, tmp_path):
    with (
        pytest.raises(Exception, match="die before they can begin") as caught,
        said_by(ray_cluster.address, partial(Dies, tmp_path), [1]) as said,
    ):
        list(said)
    assert "\n" not in str(caught.value)


def test_signals_are_handled_as_before(ray_cluster):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with connect(ClusterOptions(ray_cluster.address), "cpu", None):
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_no_room_says_what_is_needed_and_what_there_is(ray_cluster):
    with (
        pytest.raises(InputError, match="needs 64 CPU cores on one node; of 2 nodes the largest has 1 CPU core"),
        connect(ClusterOptions(ray_cluster.address, 64), "cpu", None),
    ):
        pass
    with (
        pytest.raises(InputError, match="and a GPU on one node"),
        connect(ClusterOptions(ray_cluster.address), "cuda", None),
    ):
        pass


def test_an_address_where_nothing_answers_is_told_soon():
    pytest.importorskip("ray")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    begun = time.monotonic()
    with pytest.raises(InputError, match="nothing answers"), connect(ClusterOptions(f"127.0.0.1:{port}"), "cpu", None):
        pass
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize("address", ["", "nonsense", "ray://host:10001", "host:", ":1", "host:99999999"])
def test_an_address_that_is_none_is_told(address):
    pytest.importorskip("ray")
    with pytest.raises(InputError, match="--cluster"), connect(ClusterOptions(address), "cpu", None):
        pass


def test_ray_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"mtanimate\[cluster\]"), connect(ClusterOptions("local"), "cpu", None):
        pass
