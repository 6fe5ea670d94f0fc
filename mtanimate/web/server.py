"""The server of the page: its options, what it listens on, and how it ends."""

import importlib.util
import ipaddress
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mtanimate.credentials import Credentials
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.inference.loading import load_network
from mtanimate.web.running import Limits, Room, Runner

_HERE = {"localhost", "127.0.0.1", "::1"}
_GLANCE = 0.5  # seconds between two looks whether the server still runs
_GRACE = 3.0  # seconds that connections have to end
# Gradio reads these when it is imported: no telemetry, no node server, nothing fetched.
_QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_SSR_MODE": "False",
    "GRADIO_SHARE": "False",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


def check_installed() -> None:
    """Raises InputError, naming the extra to install, where Gradio is missing."""
    if importlib.util.find_spec("gradio") is None:
        raise InputError("the page needs Gradio: pip install 'mtanimate[web]'")
    os.environ.update(_QUIET)


def serve(
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    auth: str | None = None,
    limits: Limits = Limits(),
    credentials: tuple[Path, Path] | None = None,
    checkpoint: str = "default",
    device: str = "auto",
    precision: Any = "auto",
    backend: str = "auto",
    log: Callable[[str], None] = lambda line: None,
) -> None:
    """Serve the page until a signal ends it. Its private folder is then gone.

    Args:
        host: The address to listen on. One that others can reach demands `auth`.
        port: 0 takes any that is free.
        auth: USER:PASSWORD, which visitors have to give.
        limits: For visitors.
        credentials: A certificate and its private key, to sign results with.
        checkpoint, device, precision, backend: As `load_network` takes them.
        log: Gets the page's address, and remarks.

    Raises:
        InputError: An option is wrong, or Gradio is missing.
        MTAnimateError: The port is in use.
    """
    known = _user_and_password(auth)
    if known is None and not _is_loopback(host):
        raise InputError(f"--host {host} can be reached by others: give --auth USER:PASSWORD as well")
    check_installed()
    signing = Credentials.read(*credentials) if credentials else None
    with _listening(host, port) as listener:
        loaded = load_network(checkpoint, device, precision, backend, log)
        log(loaded.describe())
        room = Room(limits.keep_hours)
        try:
            app = application(Runner(loaded, room, limits, signing), host, known)
            shown = f"[{host}]" if ":" in host else host
            log(f"the page is at http://{shown}:{listener.getsockname()[1]} (Ctrl-C ends it)")
            _run(app, listener)
        finally:
            room.close()


def application(runner: Runner, host: str, auth: tuple[str, str] | None) -> Any:
    """The page behind its gate, as an ASGI application."""
    os.environ["GRADIO_TEMP_DIR"] = str(runner.room.folder)  # before the page is built
    import gradio as gr
    from fastapi import FastAPI

    from mtanimate.web.gate import Gate
    from mtanimate.web.page import CSS, SCRIPT, build, theme

    page = build(runner)
    app = gr.mount_gradio_app(
        FastAPI(openapi_url=None),
        page,
        path="/",
        auth=auth,
        show_error=False,
        allowed_paths=[str(runner.room.folder)],
        max_file_size=runner.limits.megabytes << 20,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        footer_links=["api"],
        theme=theme(),
        head=f"<style>{CSS.read_text('utf-8')}</style>",  # as `css`, Gradio would apply it to parts of the page only
        js=SCRIPT.read_text("utf-8"),
    )
    page.has_launched = True  # or Gradio would read any file that a request names; the gate refuses them, too
    hosts = _HERE if _is_loopback(host) else None
    return Gate(app, runner.room.folder, hosts, runner.limits.megabytes << 20)


def _run(app: Any, listener: socket.socket) -> None:
    """Serve until this thread is interrupted."""
    import uvicorn

    config = uvicorn.Config(
        app, log_level="critical", access_log=False, server_header=False, timeout_graceful_shutdown=int(_GRACE)
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="server", daemon=True)
    thread.start()
    try:
        while thread.is_alive():  # in steps, since Windows tells of signals only between them
            thread.join(_GLANCE)
    finally:
        server.should_exit = True
        thread.join(2 * _GRACE)


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens there. Raises MTAnimateError where the port is in use, InputError for a wrong host."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise InputError(f"--host {host}: there is no such address: give 127.0.0.1, or one of this machine") from error
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen()
        except OSError as error:
            why = f"({error.strerror}): is another page open? Choose another --port"
            raise MTAnimateError(f"--port {port} of {host} cannot be used {why}") from error
        yield listener


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _user_and_password(auth: str | None) -> tuple[str, str] | None:
    """Raises InputError unless both are there. The message does not repeat them."""
    if auth is None:
        return None
    user, colon, password = auth.partition(":")
    if not (user and colon and len(password) >= 8):
        raise InputError("--auth takes USER:PASSWORD, with a password of 8 characters or more")
    return user, password
