"""A store as Amazon's S3 on this machine, moto's server in a process of its own, and a network to it that breaks."""

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from serving import until

KEYS = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "s3cr3t-of-the-store"}


class ObjectStore:
    """A bucket named `clips` at `address`."""

    def __init__(self, address: str) -> None:
        import boto3

        self.address = address
        keys = {name.lower(): value for name, value in KEYS.items()}
        self.client = boto3.client("s3", endpoint_url=address, region_name="us-east-1", **keys)
        self.client.create_bucket(Bucket="clips")

    def environment(self, address: str | None = None) -> dict[str, str]:
        """What a program needs to reach the store, and nobody else's; address: one that leads to it."""
        nowhere = dict.fromkeys(("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"), os.devnull)
        region = {"AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true", "NO_PROXY": "127.0.0.1"}
        return {"AWS_ENDPOINT_URL": address or self.address, **KEYS, **nowhere, **region}

    def put(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket="clips", Key=key, Body=content)

    def content(self, key: str) -> bytes:
        return self.client.get_object(Bucket="clips", Key=key)["Body"].read()

    def names(self) -> list[str]:
        return [found["Key"] for found in self.client.list_objects_v2(Bucket="clips").get("Contents", [])]

    def unfinished(self) -> list[dict]:
        """Uploads of which the store holds parts."""
        return self.client.list_multipart_uploads(Bucket="clips").get("Uploads", [])


@contextmanager
def object_store(folder: Path) -> Iterator[ObjectStore]:
    """folder: for what the server says."""
    said = folder / "moto.txt"
    with said.open("w") as file:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
        server = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    try:
        until(lambda: re.search(r"http://127\.0\.0\.1:\d+", said.read_text()) or server.poll() is not None, 60)
        address = re.search(r"http://127\.0\.0\.1:\d+", said.read_text())
        assert address, said.read_text()
        yield ObjectStore(address[0])
    finally:
        server.kill()
        server.wait()


class Network:
    """A way to a server on which connections break that carry more than a megabyte.

    Attributes:
        address: Leads to the server.
        breaks: How many connections will still break.
        silently: Whether a broken connection stays open, and takes nothing more.
    """

    MOST = 1 << 20

    def __init__(self, address: str) -> None:
        host, port = address.removeprefix("http://").split(":")
        self.breaks = 0
        self.silently = False
        self._closing = threading.Event()
        self._server = (host, int(port))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        self._closing.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _listen(self) -> None:
        with suppress(OSError):  # closed
            while True:
                near = self._listening.accept()[0]
                threading.Thread(target=self._connect, args=(near,), daemon=True).start()

    def _connect(self, near: socket.socket) -> None:
        with near, socket.create_connection(self._server) as far:
            back = threading.Thread(target=self._carry, args=(far, near), daemon=True)
            back.start()
            self._carry(near, far)
            back.join()

    def _carry(self, here: socket.socket, there: socket.socket) -> None:
        carried = 0
        with suppress(OSError):  # the other end is gone
            while data := here.recv(1 << 16):
                carried += len(data)
                if carried > self.MOST and self.breaks > 0:
                    self.breaks -= 1
                    if self.silently:
                        self._closing.wait(60)
                    break
                there.sendall(data)
        for end in (here, there):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextmanager
def network(store: ObjectStore) -> Iterator[Network]:
    way = Network(store.address)
    try:
        yield way
    finally:
        way.close()
