"""A Ray cluster of small nodes on this machine."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One process of xdist runs the tests of this folder: they share a cluster, and the machine's cores."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.xdist_group("cluster"))


@contextmanager
def started_cluster(nodes: int) -> Iterator[Any]:
    """A `ray.cluster_utils.Cluster` of so many nodes of one core each. It has an `address`."""
    pytest.importorskip("ray", reason="a cluster needs Ray: pip install 'mtanimate[cluster]'")
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        for _ in range(nodes - 1):
            cluster.add_node(**node)
        yield cluster
    finally:
        cluster.shutdown()


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Any]:
    """One of two nodes, for all tests that kill none: where a worker is killed, Ray starts another."""
    with started_cluster(2) as cluster:
        yield cluster
