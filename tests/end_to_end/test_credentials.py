"""`--credentials`: signed results, what their readers find, and what is refused before any work."""

import hashlib
import json
import sys

import pytest
from certificates import write_certificate
from commands import run_here

from mtanimate.credentials import SOURCE_TYPE
from mtanimate.video import VideoReader

c2pa = pytest.importorskip("c2pa", reason="needs the extra c2pa")


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return write_certificate(tmp_path_factory.mktemp("certificates"))


def animate(media, out, pair, *options, driving="talk.mp4"):
    files = ["--source", media / "face.png", "--driving", media / driving, "--checkpoint", media / "tiny.safetensors"]
    return run_here("animate", *files, "--out", out, "--credentials", *pair, "--quiet", *options)


def manifest(file):
    with c2pa.Reader(file) as reader:
        return reader.get_validation_state(), json.loads(reader.json())


@pytest.mark.parametrize(
    ("name", "driving"),
    [("signed.mp4", "talk.mp4"), ("signed.mov", "talk.mp4"), ("signed.png", "face.png"), ("signed.jpg", "face.png")],
)
def test_the_librarys_own_reader_accepts_a_result(media, pair, tmp_path, name, driving):
    out = tmp_path / name
    assert animate(media, out, pair, driving=driving).returncode == 0
    state, store = manifest(out)
    assert state == "Valid"
    assert SOURCE_TYPE in json.dumps(store)
    found = {item["title"]: item["instance_id"] for item in store["manifests"][store["active_manifest"]]["ingredients"]}
    digests = {file: hashlib.sha256((media / file).read_bytes()).hexdigest() for file in ("face.png", driving)}
    assert found == {"source": f"urn:sha256:{digests['face.png']}", "driving": f"urn:sha256:{digests[driving]}"}
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_a_signed_video_still_plays_and_names_no_file(media, pair, tmp_path):
    out = tmp_path / "signed.mp4"
    animate(media, out, pair)
    assert VideoReader(out).frame_count == 20
    assert VideoReader(out).has_audio
    content = out.read_bytes()
    for private in (media, "face.png", "talk.mp4", "tiny", *pair):
        assert str(private).encode() not in content
    assert b"PRIVATE KEY" not in content


def test_inspect_reads_it_back_and_tells_a_change(media, pair, tmp_path):
    out = tmp_path / "signed.mp4"
    animate(media, out, pair)
    read = run_here("inspect", "--credentials", out, "--json")
    said = json.loads(read.stdout)
    assert read.returncode == 0
    assert (said["intact"], said["trusted"], said["problems"]) == (True, False, [])
    assert set(said["inputs"]) == {"source", "driving"}
    content = bytearray(out.read_bytes())
    content[content.rindex(b"mdat") + 100] ^= 1
    out.write_bytes(content)
    read = run_here("inspect", "--credentials", out, "--json")
    assert read.returncode == 1
    assert not json.loads(read.stdout)["intact"]


def test_inspect_says_that_a_file_has_none(media):
    read = run_here("inspect", "--credentials", media / "talk.mp4")
    assert read.returncode == 2
    assert "talk.mp4" in read.stderr


def test_damaged_credentials_are_one_line(media, pair, tmp_path):
    out = tmp_path / "signed.png"
    animate(media, out, pair, driving="face.png")
    whole = out.read_bytes()
    start = whole.index(b"caBX")
    for place in range(start, start + 3000, 97):
        out.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        read = run_here("inspect", "--credentials", out, "--quiet")
        assert read.returncode in (0, 1, 2)
        assert read.stderr.count("\n") <= 1


@pytest.mark.parametrize("out", ["result.gif", "result.webm", "result.mkv", "result.webp", "frames/"])
def test_what_cannot_be_signed_is_refused_before_any_work(media, pair, tmp_path, out):
    driving = "face.png" if out.endswith("webp") else "talk.mp4"
    refused = animate(media, f"{tmp_path}/{out}", pair, driving=driving)
    assert refused.returncode == 2
    assert "--credentials" in refused.stderr
    assert not list(tmp_path.iterdir())


def wrong_pairs(folder):
    """By what is wrong: a certificate and a key, and which of the two files the message has to name."""
    certificate, key = write_certificate(folder / "good")
    other, _ = write_certificate(folder / "other")
    web, web_key = write_certificate(folder / "web", purpose="SERVER_AUTH")
    old, old_key = write_certificate(folder / "old", days=-1)
    text = folder / "text.pem"
    text.write_text("-----BEGIN nothing-----\n")
    return {
        "swapped": (key, certificate, key),
        "of another": (other, key, key),
        "for web servers": (web, web_key, web),
        "expired": (old, old_key, old),
        "no certificate": (text, key, text),
        "no key": (certificate, text, text),
        "missing": (certificate, folder / "nowhere.pem", folder / "nowhere.pem"),
    }


@pytest.mark.parametrize(
    "wrong", ["swapped", "of another", "for web servers", "expired", "no certificate", "no key", "missing"]
)
def test_a_wrong_certificate_or_key_is_refused_before_any_work(media, tmp_path, wrong):
    certificate, key, named = wrong_pairs(tmp_path / "pairs")[wrong]
    out = tmp_path / "out" / "result.mp4"
    out.parent.mkdir()
    refused = animate(media, out, (certificate, key))
    assert refused.returncode == 2
    assert str(named) in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not list(out.parent.iterdir())


def test_rows_of_a_jobs_file_are_signed(media, pair, tmp_path):
    jobs = tmp_path / "jobs.csv"
    jobs.write_text(f"source,driving,out\n{media}/face.png,{media}/talk.mp4,one.mp4\n")
    network = ["--checkpoint", media / "tiny.safetensors"]
    assert run_here("animate", "--jobs", jobs, *network, "--credentials", *pair, "--quiet").returncode == 0
    assert manifest(tmp_path / "one.mp4")[0] == "Valid"
    jobs.write_text(f"source,driving,out\n{media}/face.png,{media}/talk.mp4,two.webm\n")
    assert run_here("animate", "--jobs", jobs, *network, "--credentials", *pair, "--quiet").returncode == 2


def test_without_the_library_the_extra_is_named(media, pair, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "c2pa", None)
    for refused in (animate(media, tmp_path / "a.mp4", pair), run_here("inspect", "--credentials", media / "talk.mp4")):
        assert refused.returncode == 2
        assert "mtanimate[c2pa]" in refused.stderr
