"""Stores, networks and disks that fail: one line, nothing left behind, no secret told."""

import socket
import subprocess
import sys
import traceback
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from object_store import KEYS
from stored import CONTENT, LARGE, SECRET, SMALL, told, use

from mtanimate import storage
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.storage_errors import NotThere, Place, telling

pytest.importorskip("fsspec", reason="needs the extra cluster")
pytest.importorskip("aiohttp", reason="needs the extra cluster")

FAILING = """
import sys
from pathlib import Path
from mtanimate import storage
from mtanimate.errors import MTAnimateError
assert not {"fsspec", "aiohttp", "botocore"} & {*sys.modules}
for url in sys.argv[2:]:
    try:
        print(storage.fetch(url, Path(sys.argv[1]), 1000))
    except MTAnimateError as error:
        print("told")
"""


@pytest.mark.parametrize("status", ["401", "403", "404", "410", "400", "500", "503"])
def test_what_a_web_server_refuses(server, scratch, status):
    kind = {"404": NotThere, "410": NotThere}.get(status, InputError if status < "5" else MTAnimateError)
    with told(kind):
        storage.fetch(server.url(status), scratch, LARGE)
    assert not [*scratch.iterdir()]


@contextmanager
def checking_keys(store):
    """The store knows of no user, and lets nobody in."""
    requests.post(f"{store.address}/moto-api/reset-auth", data="0", timeout=60).raise_for_status()
    try:
        yield
    finally:
        requests.post(f"{store.address}/moto-api/reset-auth", data="inf", timeout=60).raise_for_status()


def test_wrong_keys(store, clip, scratch):
    store.put("clip.mp4", SMALL)
    with checking_keys(store):
        with told(InputError) as error:
            storage.fetch("s3://clips/clip.mp4", scratch, LARGE)
        assert "AWS_ACCESS_KEY_ID" in str(error.value)
        for call in (
            lambda: storage.exists("s3://clips/clip.mp4"),
            lambda: storage.upload(clip, "s3://clips/new.mp4", overwrite=False),
            lambda: storage.upload(clip, "s3://clips/new.mp4", overwrite=True),
        ):
            with told(InputError):
                call()
    assert store.names() == ["clip.mp4"]


@pytest.mark.parametrize("missing", [[*KEYS], ["AWS_SECRET_ACCESS_KEY"]])
def test_no_keys(store, scratch, monkeypatch, missing):
    for name in missing:
        monkeypatch.delenv(name)
    with told(InputError):
        storage.fetch("s3://clips/clip.mp4", scratch, LARGE)


def test_nobody_answers(store, clip, scratch, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    use(store.environment(f"http://{address}"), monkeypatch)
    with told():
        storage.fetch("s3://clips/clip.mp4", scratch, LARGE)
    with told():
        storage.upload(clip, "s3://clips/clip.mp4", overwrite=True)
    with told():
        storage.fetch(f"http://user:{SECRET}@{address}/clip.mp4?token={SECRET}", scratch, LARGE)


def test_a_server_that_says_nothing(store, server, scratch, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        use(store.environment(f"http://127.0.0.1:{silent.getsockname()[1]}"), monkeypatch)
        with told():
            storage.fetch("s3://clips/clip.mp4", scratch, LARGE)
    for kind in ("silent", "stalls"):
        with told():
            storage.fetch(server.url(kind), scratch, LARGE)
    assert not [*scratch.iterdir()]


def test_a_connection_that_breaks_amid_a_download(store, broken, server, scratch):
    store.put("clip.mp4", CONTENT)
    broken.breaks = LARGE
    with told():
        storage.fetch("s3://clips/clip.mp4", scratch, LARGE)
    with told():
        storage.fetch(server.url("truncated"), scratch, LARGE)
    assert not [*scratch.iterdir()]


def test_less_than_was_promised_is_not_a_file(server):
    files, path, place = storage._opened(server.url("unsized"))
    with told():
        assert [*storage._pieces(files, path, len(CONTENT) + 1, place)]


def test_a_connection_that_breaks_amid_an_upload(store, broken, clip):
    broken.breaks = LARGE
    for overwrite in (True, False):
        with told():
            storage.upload(clip, "s3://clips/clip.mp4", overwrite)
        assert not store.names()
        assert not store.unfinished()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="needs Linux")
def test_a_store_that_takes_nothing_more(store, broken, clip, monkeypatch):
    monkeypatch.setattr(storage, "SILENCE", 0.5)
    broken.breaks, broken.silently = LARGE, True
    with told():
        storage.upload(clip, "s3://clips/clip.mp4", overwrite=True)
    assert not store.names()
    assert not store.unfinished()


def test_a_connection_that_breaks_once_is_no_failure(store, broken, clip, scratch):
    broken.breaks = 1
    storage.upload(clip, "s3://clips/clip.mp4", overwrite=False)
    assert broken.breaks == 0
    broken.breaks = 1
    assert storage.fetch("s3://clips/clip.mp4", scratch, LARGE).read_bytes() == CONTENT
    assert broken.breaks == 0


def test_a_folder_that_is_gone(server, scratch):
    with told():
        storage.fetch(server.url("good"), scratch / "gone", LARGE)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk(server, scratch, monkeypatch):
    @contextmanager
    def full(path):
        yield Path("/dev/full")

    monkeypatch.setattr(storage, "replacing", full)
    with told() as error:
        storage.fetch(server.url("good"), scratch, LARGE)
    assert "No space left" in str(error.value)


def test_the_libraries_say_nothing_of_their_own(store, server, scratch):
    store.put("clip.mp4", SMALL)
    urls = ["s3://clips/clip.mp4", "s3://clips/none.mp4", *map(server.url, ("good", "unsized", "404", "stalls"))]
    command = [sys.executable, "-c", FAILING, str(scratch), *urls]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert done.stdout.splitlines()[1:] == ["told"] * 5
    assert "Traceback" not in done.stderr
    assert not any(word in done.stderr for word in ("Unclosed", "never"))


@pytest.mark.parametrize("kind", ["403", "404", "500", "truncated", "stalls", "unsized"])
def test_no_password_and_no_signature_is_in_an_error(server, scratch, kind):
    for asked in (f"{kind}?X-Amz-Signature={SECRET}", f"{kind}#{SECRET}"):
        url = server.url(asked).replace("://", f"://user:{SECRET}@")
        with pytest.raises(MTAnimateError) as error:
            storage.fetch(url, scratch, 1000 if kind == "unsized" else LARGE)
        assert SECRET not in "".join(traceback.format_exception(error.value))


@pytest.mark.parametrize("error", [TypeError("a"), KeyError("a"), ValueError("a"), AssertionError(), RuntimeError()])
def test_errors_of_programs_are_not_told(error):
    with pytest.raises(type(error)) as raised, telling(Place("s3://a/b", "c", "d")):
        raise error
    assert raised.value is error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(f"Forbidden: clips/a.mp4\n{SECRET} may not"), InputError),
        (ValueError(f"Bad Request: clips/a.mp4\n{SECRET} is invalid"), MTAnimateError),
        (FileNotFoundError(f"{SECRET}"), NotThere),
    ],
)
def test_errors_as_gcsfs_words_them(error, kind):
    with told(kind), telling(Place("gs://clips/a.mp4", "GOOGLE_APPLICATION_CREDENTIALS", "the network")):
        raise error
