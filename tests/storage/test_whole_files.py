"""Files at URLs: fetched and uploaded whole or not at all."""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest
from stored import CONTENT, LARGE, NAMES, SIZES, SMALL, told

from mtanimate import storage
from mtanimate.errors import InputError
from mtanimate.storage_errors import NotThere

pytest.importorskip("fsspec", reason="needs the extra cluster")
pytest.importorskip("aiohttp", reason="needs the extra cluster")


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


def test_exists_at_a_web_server(server):
    assert storage.exists(server.url("good"))
    assert not storage.exists(server.url("404"))
    with told(InputError):
        storage.exists(server.url("403"))


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
