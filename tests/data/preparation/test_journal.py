"""What a run that was ended by force leaves to the next one."""

import csv
import re
from dataclasses import replace
from fractions import Fraction

import pytest

from mtanimate.data.preparation_journal import Cut, CutPlan, PreparationJournal
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.faces.detection import Square


def cut(name="a__00", size=256, first=0):
    return Cut(f"train/{name}.mp4", "a", "a.mp4", first, 40, Square(1, 2, 30), size, Fraction(30000, 1001))


def plan(*cuts, source_bytes=7, tracked=True, skipped=()):
    return CutPlan("a.mp4", source_bytes, tracked, list(cuts), list(skipped))


@pytest.fixture
def out(tmp_path):
    (tmp_path / "train").mkdir()
    return tmp_path


def make(out, made):
    (out / made.file).write_text("a clip")


def test_what_was_written_is_read_again(out):
    written = plan(cut(), cut("a__01"), skipped=["no"])
    PreparationJournal(out).add(written)
    journal = PreparationJournal(out)
    assert journal.tracked("a.mp4", 7) == written
    assert journal.tracked("a.mp4", 8) is None
    assert journal.tracked("b.mp4", 7) is None
    assert journal.left(written) == written.cuts
    make(out, cut())
    assert journal.left(written) == [cut("a__01")]


def test_a_clip_that_was_cut_otherwise_is_left_to_do_and_removed(out):
    journal = PreparationJournal(out)
    journal.add(plan(cut()))
    for other in (plan(cut(size=128)), plan(cut(first=1)), plan(cut(), source_bytes=8)):
        make(out, cut())
        assert journal.left(other) == other.cuts
        journal.add(other)
        assert not (out / cut().file).exists()
        journal.add(plan(cut()))


def test_a_stray_file_is_no_clip_and_stays(out):
    make(out, cut())
    journal = PreparationJournal(out)
    assert journal.left(plan(cut())) == [cut()]
    with pytest.raises(InputError, match=re.escape(cut().file)):
        journal.add(plan(cut()))
    assert (out / cut().file).read_text() == "a clip"


def test_nothing_is_written_twice(out):
    for done in (plan(cut()), plan(skipped=["no face was found"]), plan(cut("csv"), tracked=False)):
        PreparationJournal(out).add(done)
        for made in done.cuts:
            make(out, made)
        before = (out / "journal.jsonl").read_bytes()
        PreparationJournal(out).add(done)
        assert (out / "journal.jsonl").read_bytes() == before


def test_a_torn_line_is_forgotten(out):
    journal = PreparationJournal(out)
    journal.add(plan(cut()))
    path = out / "journal.jsonl"
    whole = path.read_bytes()
    for length in (1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole + whole.replace(b"a.mp4", b"b.mp4")[:length])
        journal = PreparationJournal(out)
        assert journal.tracked("a.mp4", 7)
        assert not journal.tracked("b.mp4", 7)
        journal.add(replace(plan(), source="c.mp4"))
        assert PreparationJournal(out).tracked("c.mp4", 7)


@pytest.mark.parametrize("content", ["hello\n", "{}\n", "[1, 2]\n", "[1,2,3,[[1]],5]\n", "\xff\n", "[1", "mine"])
def test_another_file_is_refused(out, content):
    (out / "journal.jsonl").write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match=r"journal\.jsonl"):
        PreparationJournal(out)
    assert (out / "journal.jsonl").read_text("latin-1") == content


def test_another_manifest_is_refused(out):
    (out / "manifest.csv").write_text("mine\n")
    with pytest.raises(InputError, match=r"manifest\.csv"):
        PreparationJournal(out)
    (out / "manifest.csv").unlink()
    journal = PreparationJournal(out)
    journal.add(plan(cut()))
    (out / "manifest.csv").write_text("mine\n")
    with pytest.raises(MTAnimateError, match=r"manifest\.csv"):
        journal.write_manifest()
    assert (out / "manifest.csv").read_text() == "mine\n"


def test_the_manifest_lists_what_is_finished(out):
    journal = PreparationJournal(out)
    journal.add(plan(cut("b"), cut("a"), cut("never made")))
    make(out, cut("a"))
    make(out, cut("b"))
    path = journal.write_manifest()
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == ["train/a.mp4", "train/b.mp4"]
    assert rows[0] == {
        "file": "train/a.mp4", "identity": "a", "partition": "train", "source": "a.mp4", "first_frame": "0",
        "end_frame": "40", "x": "1", "y": "2", "side": "30", "size": "256", "fps": "30000/1001", "frames": "40",
    }  # fmt: skip


def test_a_manifest_is_written_whole_or_not_at_all(out, monkeypatch):
    journal = PreparationJournal(out)
    old = journal.write_manifest().read_text()
    journal.add(plan(cut()))
    make(out, cut())

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mtanimate.files.os.replace", full)
    with pytest.raises(MTAnimateError, match="No space left"):
        journal.write_manifest()
    assert (out / "manifest.csv").read_text() == old
    assert sorted(path.name for path in out.iterdir()) == ["journal.jsonl", "manifest.csv", "train"]
