"""Which URLs are taken, how they go out, and how they are shown."""

import os
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from stored import LARGE, SECRET, told

from mtanimate import storage
from mtanimate.errors import InputError

pytest.importorskip("fsspec", reason="needs the extra cluster")
pytest.importorskip("aiohttp", reason="needs the extra cluster")

WORD = st.text(st.characters(exclude_categories=("Cs",)), max_size=10).map(lambda text: quote(text, safe=""))


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
def test_alocal_name_stays_in_its_folder(path):
    for url in (f"s3://clips/{path}", f"https://example.org/{path}"):
        name = storage.local_name(url)
        assert Path(name).name == name
        assert 0 < len(os.fsencode(name)) < 200
        assert not name.startswith(".")


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
