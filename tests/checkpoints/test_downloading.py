"""Published files, fetched from a server that has its bad days."""

import hashlib
import json
import random
import re
import signal
import subprocess
import sys

import pytest
from serving import serving, until

from mtanimate.checkpoints import downloading
from mtanimate.checkpoints.registry import Entry, downloads_folder
from mtanimate.errors import InputError, MTAnimateError

CONTENT = random.Random(0).randbytes(3_000_000)  # a few blocks, the last one not full
SHA256 = hashlib.sha256(CONTENT).hexdigest()
BY_HAND = "get far.pth.tar by hand from https://example.org/, then: mtanimate checkpoints import FILE"


@pytest.fixture(scope="module")
def server():
    with serving(CONTENT) as server:
        yield server


@pytest.fixture(autouse=True)
def impatient(monkeypatch, tmp_path, server):
    """Short waits, an empty cache, no proxy, and nothing asked for yet."""
    monkeypatch.setattr(downloading, "WAITS", (0.01, 0.01))
    monkeypatch.setattr(downloading, "TIMEOUT", 0.3)
    monkeypatch.setenv("MTANIMATE_CACHE", str(tmp_path / "cache ü"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server.asked.clear()


def entry(*urls, **changes) -> Entry:
    published = {"layout": "fomm", "published": "far.pth.tar", "pages": ("https://example.org/",)}
    checked = {"size": len(CONTENT), "sha256": SHA256}
    return Entry("far", "faces", "d", "small", 256, "l", "c", urls=urls, **(published | checked | changes))


def here():
    """What lies in the folder, hidden files among it."""
    return sorted(path.name for path in downloads_folder().iterdir())


def refused(wanted: Entry) -> str:
    """The error; nothing is left behind."""
    with pytest.raises(MTAnimateError) as error:
        downloading.download(wanted)
    assert error.value.exit_code == 1
    assert "\n" not in str(error.value)
    assert not downloads_folder().exists() or here() == []
    return str(error.value)


def test_a_file_is_fetched_once_and_verified(server):
    seen, said = [], []
    wanted = entry(server.url("good"))
    path = downloading.download(wanted, progress=lambda *counts: seen.append(counts), log=said.append)
    assert path == downloads_folder() / "far.pth.tar"
    assert path.read_bytes() == CONTENT
    assert here() == ["far.pth.tar"]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert seen == sorted(seen)
    assert downloading.download(wanted, log=said.append) == path
    assert server.asked["good"] == 1
    assert said == [f"fetching {server.url('good')}", f"'{path}' is there already"]


def test_a_spoilt_file_is_fetched_again(server):
    path = downloading.download(entry(server.url("good")))
    path.write_bytes(CONTENT[:-1] + b"x")
    said = []
    downloading.download(entry(server.url("good")), log=said.append)
    assert path.read_bytes() == CONTENT
    assert "is not the published file (its SHA-256 is" in said[0]


def test_without_a_checksum_it_says_so(server):
    said = []
    path = downloading.download(entry(server.url("unsized"), size=None, sha256=""), log=said.append)
    assert path.read_bytes() == CONTENT
    assert said[-1] == f"it could not be verified, for no SHA-256 of it is known; it has {SHA256}"


@pytest.mark.parametrize(
    ("kind", "said", "times"),
    [
        ("404", "the server answers 404 Not Found", 1),
        ("403", "the server answers 403 Forbidden", 1),
        ("500", "the server answers 500 Internal Server Error", 3),
        ("truncated", "the connection broke before the end", 3),
        ("stalls", "the server says nothing for 0 s", 3),
        ("silent", "the server says nothing for 0 s", 3),
        ("corrupted", f"its SHA-256 is {'[0-9a-f]' * 64} instead of {SHA256}", 1),
        ("another", "it has 1500000 bytes instead of 3000000", 1),
        ("page", "a web page came instead of the file", 1),
    ],
)
def test_a_bad_day_is_one_line(server, kind, said, times):
    message = refused(entry(server.url(kind)))
    assert re.fullmatch(f"cannot download 'far': {re.escape(server.url(kind))}: {said}; {re.escape(BY_HAND)}", message)
    assert server.asked[kind] == times


@pytest.mark.parametrize("kind", ["truncated", "page"])
def test_bad_days_show_without_a_checksum(server, kind):
    refused(entry(server.url(kind), size=None, sha256=""))


def test_nobody_is_there():
    url = "http://127.0.0.1:1/far.pth.tar"
    assert refused(entry(url)) == f"cannot download 'far': {url}: no connection to 127.0.0.1; {BY_HAND}"


def test_a_server_that_recovers_is_asked_again(server):
    said = []
    downloading.download(entry(server.url("recovers")), log=said.append)
    assert server.asked["recovers"] == 3
    assert said[1:] == 2 * ["the server answers 500 Internal Server Error; once more in 0 s"]


@pytest.mark.parametrize("kind", ["404", "corrupted", "truncated", "page"])
def test_the_next_address_is_tried(server, kind):
    assert downloading.download(entry(server.url(kind), server.url("good"))).read_bytes() == CONTENT
    assert here() == ["far.pth.tar"]


def test_all_addresses_are_named_in_the_error(server):
    message = refused(entry(server.url("404"), server.url("page")))
    assert f"{server.url('404')}: the server answers 404 Not Found; {server.url('page')}: a web page" in message


def test_nothing_to_download(tmp_path):
    with pytest.raises(InputError, match="'far' ships with the package; nothing to download"):
        downloading.download(entry(file=tmp_path / "x", layout="", published=""))
    with pytest.raises(InputError, match=f"'far' has no address to download from: {BY_HAND}"):
        downloading.download(entry())


def test_no_room_is_said_before_anything_is_fetched(server):
    message = refused(entry(server.url("good"), size=10**18))
    assert re.fullmatch(r"no room for 'far.pth.tar' in '.*': it takes 1000000000000 MB, \d+ MB are free; .*", message)
    assert "MTANIMATE_CACHE" in message
    assert not server.asked


@pytest.mark.skipif(sys.platform == "win32", reason="needs mount")
def test_a_disk_that_runs_full(server, tmp_path, monkeypatch):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    try:
        monkeypatch.setenv("MTANIMATE_CACHE", str(disk))
        message = refused(entry(server.url("good"), size=None))
        assert "far.pth.tar': No space left on device; make room, or set MTANIMATE_CACHE" in message
        assert server.asked["good"] == 1
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_cache_that_is_a_file(server, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MTANIMATE_CACHE", str(tmp_path / "file"))
    with pytest.raises(MTAnimateError, match=r"cannot write '.*far\.pth\.tar': "):
        downloading.download(entry(server.url("good")))


# Processes

PROGRAM = """
import json, sys
from mtanimate.checkpoints import downloading
from mtanimate.checkpoints.registry import Entry
url, published = json.loads(sys.argv[1])
entry = Entry("far", "faces", "d", "small", 256, "l", "c", urls=(url,), **published)
print(downloading.download(entry))
"""


def started(url):
    published = {"published": "far.pth.tar", "size": len(CONTENT), "sha256": SHA256}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, json.dumps([url, published])],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def halves():
    return [path for path in downloads_folder().glob(".*") if path.stat().st_size]


def test_two_processes_at_once(server):
    """One fetches it; the other finds it there, or says at once who has it."""
    processes = [started(server.url("good")) for _ in range(2)]
    codes = []
    for process in processes:
        stdout, stderr = process.communicate(timeout=60)
        codes.append(process.returncode)
        if process.returncode == 0:
            assert stdout.strip() == str(downloads_folder() / "far.pth.tar")
            assert stderr == ""
        else:
            assert "far.pth.tar is being written by another run" in stderr.splitlines()[-1]
    assert 0 in codes
    assert (downloads_folder() / "far.pth.tar").read_bytes() == CONTENT
    assert here() == ["far.pth.tar"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_process_that_is_killed_leaves_no_final_file(server):
    process = started(server.url("slow"))
    until(halves)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    (half,) = halves()
    assert here() == [half.name]
    downloading.download(entry(server.url("good")))
    assert here() == ["far.pth.tar"]
