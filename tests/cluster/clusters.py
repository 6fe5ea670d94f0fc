"""Ray clusters of small nodes on this machine, and workers of theirs that are killed."""

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def started_cluster(nodes: int) -> Iterator[Any]:
    """A `ray.cluster_utils.Cluster` of so many nodes of one core each. It has an `address`."""
    pytest.importorskip("ray", reason="a cluster needs Ray: pip install 'mtanimate[cluster]'")
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
    with tempfile.TemporaryDirectory(prefix="cluster-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("MTANIMATE_CACHE", str(Path(folder) / "cache"))
        cluster = Cluster(initialize_head=True, head_node_args=node)
        try:
            for _ in range(nodes - 1):
                cluster.add_node(**node)
            yield cluster
        finally:
            cluster.shutdown()


def kill_a_worker(cluster: Any, running: Any, when: Callable[[], bool]) -> None:
    """Once `when()`, the next worker that is seen at work gets SIGKILL. running: The command that it works for."""
    until = time.monotonic() + 120
    while not (when() and (busy := _at_work(cluster))):
        assert running.process.is_alive(), f"it ended too early: {running.end()}"
        assert time.monotonic() < until
        time.sleep(0.005)
    os.kill(busy[0], signal.SIGKILL)


def _at_work(cluster: Any) -> list[int]:
    """The processes of the cluster's workers that perform something, as their titles tell."""
    raylets = {info.process.pid for node in cluster.list_all_nodes() for info in node.all_processes["raylet"]}
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent in raylets and (folder / "cmdline").read_bytes().startswith(b"ray::_Worker.perform"):
                found.append(int(folder.name))
    return found
