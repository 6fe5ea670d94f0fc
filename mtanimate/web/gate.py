"""The gate in front of the page: what may be asked for, by whom, and what answers may say and load."""

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

ALIAS = "/files"  # what visitors see in place of the private folder
API = "/gradio_api"
# What the page and gradio_client ask for. Gradio has more: it fetches addresses, shows how busy it is, runs agents.
_ROUTES = (
    *("/", "/config", "/config/", "/theme.css", "/favicon.ico", "/robots.txt", "/manifest.json", "/logout"),
    *("/login", "/login/", f"{API}/login_check", f"{API}/login_check/", f"{API}/user", f"{API}/token"),
    *(f"{API}/info", f"{API}/info/", f"{API}/upload", f"{API}/upload_progress", f"{API}/startup-events"),
    *(f"{API}/queue/join", f"{API}/queue/data", f"{API}/cancel", f"{API}/reset", f"{API}/reset/", f"{API}/app_id"),
    *(f"{API}/theme.css", f"{API}/openapi.json"),
)
_BELOW = ("/assets/", "/static/", "/svelte/", f"{API}/heartbeat/", f"{API}/call/", f"{API}/stream/")
_FILE = f"{API}/file="
_TEXT = ("application/json", "text/html", "text/event-stream")
# Nothing is loaded from elsewhere, and no other site may show the page in a frame. Gradio's own code needs eval.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' blob: data:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    b"content-security-policy": _POLICY.encode(),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"permissions-policy": b"camera=(self), microphone=(self), geolocation=()",
}
_MOST_BODY = 8 << 20  # bytes of a request that is no upload


class Gate:
    """An ASGI application in front of another.

    Args:
        app: Gradio's.
        folder: The private folder. Its path is in no answer; `ALIAS` stands for it.
        hosts: The names under which the server may be addressed, or None for any. They keep other sites from reaching a
            server on this machine through a name that they control.
        most_bytes: Of an upload.
    """

    def __init__(self, app: App, folder: Path, hosts: set[str] | None, most_bytes: int) -> None:
        self.app, self._hosts, self._most_bytes = app, hosts, most_bytes
        plain = str(folder)
        # As text, inside of JSON, and inside of an address.
        self._private = list(dict.fromkeys([json.dumps(plain)[1:-1], plain, quote(plain), quote(plain, safe="")]))
        self._folder = plain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        refused = self._refuse(scope, headers)
        if refused is not None:
            await _answer(send, *refused)
            return
        path = scope["path"]
        scope = dict(scope)
        if path.startswith(_FILE):
            scope["path"] = _FILE + self._folder + path.removeprefix(_FILE + ALIAS)
            scope["raw_path"] = quote(scope["path"], safe="/=:").encode()
        elif scope["method"] == "POST" and path != f"{API}/upload":
            body = await _whole(receive)
            if body is None:
                await _answer(send, 413, "this request is too large")
                return
            body = _with_real_paths(body, self._folder)
            if body is None:
                await _answer(send, 400, "only files that were uploaded here can be used")
                return
            receive = _given(body, receive)
            headers[b"content-length"] = str(len(body)).encode()
        headers[b"accept-encoding"] = b"identity"  # or the answer could not be read here
        scope["headers"] = list(headers.items())
        await self.app(scope, receive, _Answer(send, self._public).send)

    def _refuse(self, scope: Scope, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        """The answer to what is not let through."""
        host = re.sub(r":[0-9]*$", "", headers.get(b"host", b"").decode("latin-1"))
        if self._hosts is not None and host.strip("[]").lower() not in self._hosts:
            return 421, "this server is not meant under that name"
        path = scope["path"]
        if path.startswith(_FILE):
            if not _is_ours(path.removeprefix(_FILE)):
                return 404, "there is no such file"
        elif path not in _ROUTES and not path.startswith(_BELOW):
            return 404, "there is nothing here"
        length = headers.get(b"content-length", b"0")
        if path == f"{API}/upload" and (not length.isdigit() or int(length) > self._most_bytes + (1 << 20)):
            return 413, f"the file is larger than {self._most_bytes >> 20} MB, which is the limit here"
        return None

    def _public(self, text: str) -> str:
        for private in self._private:
            text = text.replace(private, ALIAS)
        return text


class _Answer:
    """Passes an answer on, with paths replaced in text, and with headers of our own."""

    def __init__(self, send: Send, public: Callable[[str], str]) -> None:
        self._send, self._public = send, public
        self._start: Message = {}
        self._held: list[bytes] | None = None  # of a text with a known end
        self._text = self._stream = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = {name.lower(): value for name, value in message["headers"] if name.lower() != b"set-cookie"}
            cookies = [(name, value) for name, value in message["headers"] if name.lower() == b"set-cookie"]
            kind = headers.get(b"content-type", b"").decode("latin-1").partition(";")[0]
            self._text, self._stream = kind in _TEXT, kind == "text/event-stream"
            if self._text:
                headers.pop(b"content-length", None)
            message = dict(message) | {"headers": [*(headers | _HEADERS).items(), *cookies]}
            await self._send(message)
        elif not self._text:
            await self._send(message)
        elif self._stream:  # an event comes whole
            await self._send(dict(message) | {"body": self._rewritten(message.get("body", b""))})
        else:
            self._held = [*(self._held or []), message.get("body", b"")]
            if not message.get("more_body"):
                await self._send(dict(message) | {"body": self._rewritten(b"".join(self._held))})

    def _rewritten(self, body: bytes) -> bytes:
        return self._public(body.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")


def _is_ours(path: str) -> bool:
    """Whether a public path lies in the private folder."""
    return path.startswith(f"{ALIAS}/") and ".." not in path.replace("\\", "/").split("/")


def _with_real_paths(body: bytes, folder: str) -> bytes | None:
    """A request in which files are named by their real paths. None where it names one that no visitor uploaded and no
    run made: a file of this machine, or an address."""
    try:
        request = json.loads(body)
    except ValueError:
        return body  # a form: a login
    waiting = [request]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            if "path" in item and not (isinstance(item["path"], str) and _is_ours(item["path"])):
                return None
            if "path" in item:
                item["path"] = folder + item["path"].removeprefix(ALIAS)
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
    return json.dumps(request).encode()


async def _whole(receive: Receive) -> bytes | None:
    """The body of a request; None where it is too large."""
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False) and message["type"] == "http.request"
        if size > _MOST_BODY:
            return None
    return b"".join(parts)


def _given(body: bytes, receive: Receive) -> Receive:
    """A request with this body; afterwards what comes, such as its end."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return waiting.pop() if waiting else await receive()

    return next_message


async def _answer(send: Send, status: int, line: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *_HEADERS.items()]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": line.encode()})
