"""Files at URLs: fetched and uploaded whole or not at all, whatever a store, the network or a disk does."""

import multiprocessing
import os
import random
import socket
import subprocess
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
import requests
from hypothesis import example, given
from hypothesis import strategies as st
from object_store import KEYS, network, object_store
from serving import serving

from mtanimate import storage
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.storage_errors import NotThere, Place, telling

fsspec = pytest.importorskip("fsspec", reason="needs the extra cluster")
pytest.importorskip("aiohttp", reason="needs the extra cluster")

CONTENT = random.Random(0).randbytes(12 << 20)  # two pieces, the last one not full
SMALL = CONTENT[:1000]
SIZES = pytest.mark.parametrize("content", [SMALL, CONTENT], ids=["one piece", "two pieces"])
NAMES = pytest.mark.parametrize("name", ["a b.mp4", "ü/ä.mp4", "100%.mp4", "a%20b.mp4", "a#b.mp4", "a+b&c.mp4", "€"])
LARGE = 1 << 30
SECRET = "s3cr3t"


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


def use(environment, monkeypatch):
    import s3fs

    monkeypatch.delenv("AWS_PROFILE", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()  # it has connected already


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


@contextmanager
def told(kind=MTAnimateError):
    """The one error of the block: of this kind and no other, in one line, without a secret in it or behind it."""
    with pytest.raises(kind) as raised:
        yield raised
    assert type(raised.value) is kind
    assert "\n" not in str(raised.value)
    everything = "".join(traceback.format_exception(raised.value))
    assert SECRET not in everything
    assert not any(key in everything for key in KEYS.values())


@NAMES
def test_what_is_uploaded_is_fetched_again(store, tmp_path, scratch, name):
    content = CONTENT if name == "a b.mp4" else SMALL
    path = tmp_path / "result.mp4"
    path.write_bytes(content)
    url = f"s3://clips/{name}"
    assert not storage.exists(url)
    storage.upload(path, url, overwrite=False)
    assert store.names() == [name]
    assert storage.exists(url)
    fetched = storage.fetch(url, scratch, LARGE)
    assert fetched.read_bytes() == content
    assert fetched.suffix == Path(name).suffix
    assert [*scratch.iterdir()] == [fetched]


@NAMES
def test_a_web_server_is_asked_for_the_name(server, scratch, name):
    fetched = storage.fetch(f"{server.url(quote(name))}", scratch, LARGE)
    assert fetched.read_bytes() == CONTENT
    assert fetched.suffix == Path(name).suffix
    assert {*server.asked} == {quote(name)}


@pytest.mark.parametrize("asked", ["a.mp4?sig=%2Fa%2B+b%3d&x=1;2", "%41.mp4", "a%2fb.mp4", "~a(1)!.mp4"])
def test_a_signed_url_goes_out_as_it_is(server, scratch, asked):
    assert storage.fetch(server.url(asked), scratch, LARGE).suffix == ".mp4"
    assert {*server.asked} == {asked}


def test_spaces_and_other_scripts_may_stand_in_a_url(server, scratch):
    storage.fetch(server.url("ein Bär.mp4"), scratch, LARGE)
    assert {*server.asked} == {"ein%20B%C3%A4r.mp4"}


def test_two_urls_have_two_names(server, scratch):
    urls = [server.url(f"{folder}/clip.mp4{query}") for folder in "ab" for query in ("", "?version=2")]
    assert len({storage.fetch(url, scratch, LARGE) for url in urls}) == 4


@given(path=st.text(max_size=40))
@example("../../a.mp4")
@example("..")
@example("." * 300 + "/.mp4")
@example("a.mp4" * 100)
def test_a_local_name_stays_in_its_folder(path):
    for url in (f"s3://clips/{path}", f"https://example.org/{path}"):
        name = storage._local_name(url)
        assert Path(name).name == name
        assert 0 < len(os.fsencode(name)) < 200
        assert not name.startswith(".")


@SIZES
def test_an_existing_file_stays(store, clip, content):
    clip.write_bytes(content)
    store.put("clip.mp4", b"there")
    with told(InputError):
        storage.upload(clip, "s3://clips/clip.mp4", overwrite=False)
    assert store.content("clip.mp4") == b"there"
    storage.upload(clip, "s3://clips/clip.mp4", overwrite=True)
    assert store.content("clip.mp4") == content


@SIZES
def test_a_file_that_appears_meanwhile_stays(store, clip, content):
    clip.write_bytes(content)
    with told(InputError):
        storage.upload(clip, "s3://clips/clip.mp4", False, alive=lambda: store.put("clip.mp4", b"another's"))
    assert store.content("clip.mp4") == b"another's"
    assert not store.unfinished()


def test_a_changed_file_is_fetched_anew(store, scratch):
    url = "s3://clips/clip.mp4"
    assert not storage.exists(url)
    for content in (b"first", b"then another"):
        store.put("clip.mp4", content)
        assert storage.fetch(url, scratch, LARGE).read_bytes() == content
    store.client.delete_object(Bucket="clips", Key="clip.mp4")
    assert not storage.exists(url)


def test_a_file_that_changes_while_it_is_read_is_not_mixed(store, scratch):
    store.put("clip.mp4", CONTENT)
    with told():
        storage.fetch("s3://clips/clip.mp4", scratch, LARGE, alive=lambda: store.put("clip.mp4", CONTENT[::-1]))
    assert not [*scratch.iterdir()]


def test_what_is_missing_is_told_apart(store, clip, scratch):
    for url in ("s3://clips/none.mp4", "s3://nowhere/none.mp4"):
        assert not storage.exists(url)
        with told(NotThere):
            storage.fetch(url, scratch, LARGE)
    with told(NotThere):
        storage.upload(clip, "s3://nowhere/none.mp4", overwrite=True)


def test_a_folder_in_a_bucket_is_no_file(store, scratch):
    store.put("frames/0.png", SMALL)
    assert not storage.exists("s3://clips/frames")
    with told(InputError):
        storage.fetch("s3://clips/frames", scratch, LARGE)


@pytest.mark.parametrize("status", ["401", "403", "404", "410", "400", "500", "503"])
def test_what_a_web_server_refuses(server, scratch, status):
    kind = {"404": NotThere, "410": NotThere}.get(status, InputError if status < "5" else MTAnimateError)
    with told(kind):
        storage.fetch(server.url(status), scratch, LARGE)
    assert not [*scratch.iterdir()]


def test_exists_at_a_web_server(server):
    assert storage.exists(server.url("good"))
    assert not storage.exists(server.url("404"))
    with told(InputError):
        storage.exists(server.url("403"))


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


def test_what_is_too_large_is_refused_before_it_is_read(store, server, scratch):
    store.put("clip.mp4", CONTENT)
    pieces = []
    for url in ("s3://clips/clip.mp4", server.url("good")):
        with told(InputError):
            storage.fetch(url, scratch, len(CONTENT) - 1, alive=lambda: pieces.append(1))
        assert not pieces
        assert storage.fetch(url, scratch, len(CONTENT)).stat().st_size == len(CONTENT)


def test_what_is_too_large_is_refused_where_its_size_is_not_told(server, scratch):
    with told(InputError):
        storage.fetch(server.url("unsized"), scratch, len(CONTENT) - 1)
    assert not [*scratch.iterdir()]
    assert storage.fetch(server.url("unsized"), scratch, len(CONTENT)).read_bytes() == CONTENT


class Stop(Exception):
    """Raised by a sign of life."""


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("after", "error"), [(1, Stop), (2, KeyboardInterrupt), (2, TimeoutError)])
def test_a_sign_of_life_for_each_piece_may_stop_all(store, clip, scratch, after, error):
    store.put("there.mp4", CONTENT)
    signs = []

    def alive():
        signs.append(1)
        if len(signs) == after:
            raise error

    with pytest.raises(error):
        storage.fetch("s3://clips/there.mp4", scratch, LARGE, alive)
    assert len(signs) == after
    signs.clear()
    with pytest.raises(error):
        storage.upload(clip, "s3://clips/new.mp4", False, alive)
    assert len(signs) == after
    assert not [*scratch.iterdir()]
    assert store.names() == ["there.mp4"]
    assert not store.unfinished()


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


def test_a_result_that_is_not_there_is_not_uploaded(store, tmp_path):
    with told(InputError):
        storage.upload(tmp_path / "none.mp4", "s3://clips/none.mp4", overwrite=False)
    assert not store.names()


def test_many_threads_at_once(store, clip, scratch):
    def round_trip(number):
        url = f"s3://clips/{number}.mp4"
        storage.upload(clip, url, overwrite=False)
        return storage.fetch(url, scratch, LARGE).read_bytes() == CONTENT

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(round_trip, range(4)))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_has_a_connection_of_its_own(store, scratch):
    store.put("clip.mp4", CONTENT)
    storage.fetch("s3://clips/clip.mp4", scratch, LARGE).unlink()
    child = multiprocessing.get_context("fork").Process(
        target=storage.fetch, args=("s3://clips/clip.mp4", scratch, LARGE)
    )
    child.start()
    child.join(60)
    assert child.exitcode == 0
    (fetched,) = scratch.iterdir()
    assert fetched.read_bytes() == CONTENT
    assert storage.fetch("s3://clips/clip.mp4", scratch, LARGE) == fetched


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


def test_the_libraries_say_nothing_of_their_own(store, server, scratch):
    store.put("clip.mp4", SMALL)
    urls = ["s3://clips/clip.mp4", "s3://clips/none.mp4", *map(server.url, ("good", "unsized", "404", "stalls"))]
    command = [sys.executable, "-c", FAILING, str(scratch), *urls]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert done.stdout.splitlines()[1:] == ["told"] * 5
    assert "Traceback" not in done.stderr
    assert not any(word in done.stderr for word in ("Unclosed", "never"))


@pytest.mark.parametrize(
    "url",
    [
        *("file:///etc/passwd", "local:///etc/passwd", "memory://a.mp4", "ftp://example.org/a.mp4", "data://a"),
        *("github://a:b@main/c.py", "git://a", "reference://a", "az://clips/a.mp4", "simplecache::s3://clips/a.mp4"),
        *("zip://a.mp4::s3://clips/a.zip", "filecache::https://example.org/a.mp4", "s3::https://example.org/a.mp4"),
        *("s3://", "s3://clips", "s3://clips/", "s3://clips/frames/", "s3:///a.mp4", "gs://clips/"),
        *("s3://clips/a.mp4?versionId=1", f"s3://key:{SECRET}@clips/a.mp4", "s3://clips/a\nb.mp4"),
        *("https://", "https:///a.mp4", "http://[::1/a.mp4", "http://a:port/b", "http://a:99999/b", "http://a:0/b"),
    ],
)
def test_other_urls_are_refused_before_anything_is_asked(scratch, clip, url):
    assert storage.is_url(url)
    for call in (
        lambda: storage.exists(url),
        lambda: storage.fetch(url, scratch, LARGE),
        lambda: storage.upload(clip, url, overwrite=True),
    ):
        with told(InputError):
            call()


def test_a_web_server_is_not_written_to(server, clip):
    with told(InputError):
        storage.upload(clip, server.url("good"), overwrite=True)
    assert not server.asked


@pytest.mark.parametrize(
    "path", ["a.mp4", "/a/b.mp4", "s3:/a", "C:\\a.mp4", "C://a.mp4", "take::1.mp4", "a b: //c", ""]
)
def test_paths_are_no_urls(path):
    assert not storage.is_url(path)
    with told(InputError):
        storage.check_url(path)


def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(storage, "find_spec", lambda name: None if name == "gcsfs" else name)
    storage._missing.cache_clear()
    try:
        with told(InputError) as error:
            storage.check_url("gs://clips/a.mp4")
        assert "gcsfs" in str(error.value)
        assert "mtanimate[cluster]" in str(error.value)
        storage.check_url("s3://clips/a.mp4")
    finally:
        storage._missing.cache_clear()


WORD = st.text(st.characters(exclude_categories=("Cs",)), max_size=10).map(lambda text: quote(text, safe=""))


@given(
    scheme=st.sampled_from(["http", "HTTPS", "s3", "gs", "ftp", "simplecache::https", "zip://a::http"]),
    user=WORD,
    password=WORD,
    path=WORD,
    query=WORD,
)
def test_no_password_and_no_signature_is_shown(scheme, user, password, path, query):
    ends = f"#{SECRET}" if scheme.lower().startswith("http") else ""
    url = f"{scheme}://{user}:{password}{SECRET}@example.org/{path}?{query}={SECRET}&{SECRET}{ends}"
    assert SECRET not in storage.shown(url)
    assert SECRET not in storage.shown(f"{scheme}://{SECRET}@example.org/{path}")
    if scheme.lower() in ("http", "https", "s3"):
        assert storage.shown(url) == f"{scheme}://example.org/{path}"


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
