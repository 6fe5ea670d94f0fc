"""Two names of one place are told to be one; no output takes an input's place; one run at a time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtanimate import outputs as places
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.files import CameMeanwhile, half_written, replacing, replacing_folder
from mtanimate.outputs import check_not_input, claim, ignores_case, place

HOLDING = """
import sys
from pathlib import Path
from mtanimate.outputs import claim
with claim(Path(sys.argv[1])):
    print("claimed", flush=True)
    sys.stdin.read()
"""
NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters='/\\:*?"<>|'), min_size=1, max_size=8)
NAMES = NAMES.map(lambda name: name.strip(" .")).filter(bool)

links = pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MTANIMATE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """a/b, and `link` to it."""
    folder = tmp_path_factory.mktemp("tree")
    (folder / "a" / "b").mkdir(parents=True)
    if os.name != "nt":
        (folder / "link").symlink_to(folder / "a" / "b")
    return folder


@links
@given(
    name=NAMES, detours=st.lists(st.sampled_from([".", "../b", "../../link", "../../a/b", "nowhere/.."]), max_size=5)
)
def test_however_a_path_is_spelt_it_is_one_place(tree, name, detours):
    spelt = tree / "a" / "b"
    for detour in detours:
        spelt = Path(os.path.realpath(spelt)) / detour  # `..` behind a link is of what it points to
    assert place(Path(f"{spelt}{os.sep}{name}")) == place(tree / "a" / "b" / name)


@given(first=NAMES, second=NAMES)
def test_two_places_are_not_one(tree, first, second):
    same = place(tree / "a" / first) == place(tree / "a" / second)
    assert same == (first == second) or ignores_case(tree / "a")


def test_case_counts_where_the_file_system_says_so(tree, tmp_path, monkeypatch):
    (tmp_path / "Probe").touch()
    ignored = (tmp_path / "pROBE").exists()
    assert ignores_case(tmp_path) == ignored
    assert (place(tmp_path / "a.mp4") == place(tmp_path / "A.mp4")) == ignored
    monkeypatch.setattr(places, "ignores_case", lambda folder: True)
    assert place(tmp_path / "stra\N{COMBINING DIAERESIS}sse.mp4") == place(
        tmp_path / "STR\N{LATIN SMALL LETTER A WITH DIAERESIS}SSE.MP4"
    )


@links
def test_an_input_by_any_name_is_no_output(tmp_path):
    source, frames = tmp_path / "face.png", tmp_path / "frames"
    source.touch()
    frames.mkdir()
    (frames / "0.png").touch()
    os.link(source, tmp_path / "hard.png")
    (tmp_path / "soft.png").symlink_to(source)
    (tmp_path / "folder").symlink_to(tmp_path)
    for name in ("face.png", "hard.png", "soft.png", "folder/face.png", "frames/../face.png"):
        with pytest.raises(InputError, match=r"--out .*\.png is also an input"):
            check_not_input("--out", tmp_path / name, [None, source])
    with pytest.raises(InputError, match="--out"):
        check_not_input("--out", frames, [frames / "0.png"])
    with pytest.raises(InputError, match="--out"):
        check_not_input("--out", frames / "0.png", [frames])
    check_not_input("--out", tmp_path / "new.png", [source, tmp_path / "missing.png"])
    check_not_input("--out", frames / "0.png", [source])


def test_a_claim_is_one_run_s_until_it_ends_and_leaves_nothing(tmp_path, cache):
    (tmp_path / "out").mkdir()
    path, others = tmp_path / "out" / "o.mp4", tmp_path / "out" / "p.mp4"
    holder = subprocess.Popen([sys.executable, "-c", HOLDING, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline().strip() == b"claimed"
        with pytest.raises(MTAnimateError, match=r"o\.mp4 is being written by another run"), claim(others, path):
            pass
        with claim(others):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with claim(path, others):
        pass
    assert list((tmp_path / "out").iterdir()) == []
    assert list((cache / "claims").iterdir()) == []


def test_without_a_cache_folder_there_are_no_claims(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MTANIMATE_CACHE", str(tmp_path / "file"))
    with claim(tmp_path / "o.mp4"), claim(tmp_path / "o.mp4"):
        pass
    with pytest.raises(ZeroDivisionError), claim(tmp_path / "o.mp4"):
        1 / 0  # noqa: B018


# Links


def write_file(path, overwrite):
    with replacing(path, overwrite) as partial:
        partial.write_text("new")


def write_folder(path, overwrite):
    with replacing_folder(path, overwrite) as partial:
        (partial / "new").touch()


@links
@pytest.mark.parametrize("write", [write_file, write_folder])
@pytest.mark.parametrize("target", ["a file", "a folder", "nothing"])
def test_a_link_is_replaced_only_when_told_to_and_what_it_points_to_stays(write, target, tmp_path):
    path = tmp_path / "o"
    path.symlink_to(tmp_path / "target")
    if target == "a file":
        (tmp_path / "target").write_text("precious")
    elif target == "a folder":
        (tmp_path / "target").mkdir()
    for refused in (False, lambda file: False):
        with pytest.raises(CameMeanwhile):
            write(path, refused)
        assert path.is_symlink()
    write(path, True)
    assert not path.is_symlink()
    assert path.is_file() if write is write_file else path.is_dir()
    assert (tmp_path / "target").exists() == (target != "nothing")
    if target == "a file":
        assert (tmp_path / "target").read_text() == "precious"
    assert half_written(tmp_path) == []


@given(there=st.sampled_from(["nothing", "ours", "another", "a folder"]), ours=st.booleans(), told=st.booleans())
def test_only_what_may_be_is_replaced(tmp_path_factory, there, ours, told):
    """overwrite: told to, or a function that knows ours by what is in it."""
    folder = tmp_path_factory.mktemp("any")
    path = folder / "o"
    if there == "a folder":
        path.mkdir()
        (path / "precious").touch()
    elif there != "nothing":
        path.write_text(there)
    overwrite = True if told else (lambda file: file.is_file() and file.read_text() == "ours") if ours else False
    replaced = there == "nothing" or (there != "a folder" and (told or (ours and there == "ours")))
    if replaced:
        write_file(path, overwrite)
        assert path.read_text() == "new"
    else:
        with pytest.raises((CameMeanwhile, OSError)):
            write_file(path, overwrite)
        assert (path / "precious").exists() if there == "a folder" else path.read_text() == there
    assert list(folder.iterdir()) == [path]
