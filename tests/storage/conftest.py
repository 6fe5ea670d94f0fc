"""A store, a web server, and folders."""

import pytest
from object_store import network, object_store
from serving import serving
from stored import CONTENT, use

from mtanimate import storage


@pytest.fixture(scope="module")
def running_store(tmp_path_factory):
    pytest.importorskip("moto.server", reason="needs moto[server]")
    pytest.importorskip("s3fs", reason="needs the extra cluster")
    with object_store(tmp_path_factory.mktemp("store")) as store:
        yield store


@pytest.fixture
def store(running_store, monkeypatch):
    """Empty, and named by the environment."""
    for key in running_store.names():
        running_store.client.delete_object(Bucket="clips", Key=key)
    use(running_store.environment(), monkeypatch)
    return running_store


@pytest.fixture
def broken(store, monkeypatch):
    """A way to the store on which connections break."""
    with network(store) as way:
        use(store.environment(way.address), monkeypatch)
        yield way


@pytest.fixture(scope="module")
def running_server():
    with serving(CONTENT) as server:
        yield server


@pytest.fixture
def server(running_server, monkeypatch):
    """One with bad days, for a client that does not wait long."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(storage, "SILENCE", 0.4)
    running_server.asked.clear()
    return running_server


@pytest.fixture
def scratch(tmp_path):
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(CONTENT)
    return path
