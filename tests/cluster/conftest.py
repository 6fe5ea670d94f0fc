from collections.abc import Iterator
from typing import Any

import pytest
from clusters import started_cluster


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Any]:
    """One of two nodes, for all tests that kill none: where a worker is killed, Ray starts another."""
    with started_cluster(2) as cluster:
        yield cluster
