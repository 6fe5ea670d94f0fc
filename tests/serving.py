"""A server on this machine that answers as servers do on their bad days."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PAGE = b"\n<!DOCTYPE html><title>Sign in</title>"


class Server(ThreadingHTTPServer):
    """An address a kind of bad day; asked: how often each was asked for."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.asked: Counter[str] = Counter()
        self.closing = threading.Event()

    def url(self, kind: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{kind}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are part of the tests."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked[self.path[1:]] += 1
        kind = self.path[1:].partition("?")[0]
        content, size = self.server.content, len(self.server.content)
        if kind == "recovers":
            kind = "good" if self.server.asked[kind] > 2 else "500"
        if kind.isdigit():
            self.send_error(int(kind))
        elif kind == "page":
            self.answer(PAGE, len(PAGE))
        elif kind == "corrupted":
            self.answer(bytes([content[0] ^ 1]) + content[1:], size)
        elif kind == "another":
            self.answer(content[: size // 2], size // 2)
        elif kind == "truncated":
            self.answer(content[: size // 2], size)
        elif kind == "unsized":
            self.answer(content, None)
        elif kind == "stalls":
            self.answer(content[: size // 2], size)
            self.server.closing.wait(30)
        elif kind == "silent":
            self.server.closing.wait(30)
        elif kind == "slow":
            self.answer(content[: size // 2], size)
            while not self.server.closing.wait(0.02):
                self.wfile.write(b"x")
        else:
            self.answer(content, size)

    def answer(self, body: bytes, size: int | None) -> None:
        self.send_response(200)
        if size is not None:
            self.send_header("Content-Length", str(size))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def serving(content: bytes) -> Iterator[Server]:
    server = Server(content)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


def until(happened, seconds: float = 30) -> None:
    """Wait for it. Raises AssertionError where it does not come."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
