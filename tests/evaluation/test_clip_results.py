"""A file a clip: evaluations go on where they ended, and say what is wrong with their folder."""

import csv
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier

import pytest
from handmade import AKD, L1, MISSING, PSNR, pair_row, row

from mtanimate.errors import InputError, MTAnimateError
from mtanimate.evaluation.clip_results import ResultsFolder, read_clip_results, read_result
from mtanimate.evaluation.comparison import compare

SETTINGS = {"kind": "reconstruction", "every": 1, "metrics": ["l1", "akd"], "identity": None}
NAMES = ["p1__00", "people/p1__00", "people/Jürgen 李 #2", 'people/a.b/c,d "e"', "=1+1"]


def rows_of(folder, **changes):
    return ResultsFolder(folder / "out", SETTINGS | changes)


def test_what_was_measured_is_there_the_next_time(tmp_path):
    rows = rows_of(tmp_path)
    for name in NAMES:
        assert rows.get(name, "d1") is None
        rows.put(row(name, l1=(1.25, 10), akd=(3.0, 680)))
        again = rows_of(tmp_path).get(name, "d1")
        assert again.name == name
        assert again.value("generated", L1) == 0.125
        assert again.value("repeating", AKD) == pytest.approx(6 / 680)
        assert again.without_subject == {"truth": 1, "generated": 0}
    assert rows.get("p1", "d1") is rows.get("people", "d1") is None
    assert sorted(read_clip_results(tmp_path / "out")) == sorted(NAMES)


def test_a_changed_clip_is_measured_anew(tmp_path):
    rows = rows_of(tmp_path)
    rows.put(row("a", digest="old", l1=(1.0, 10)))
    assert rows.get("a", "new") is None
    rows.put(row("a", digest="new", l1=(2.0, 10)))
    assert rows.get("a", "old") is None
    assert rows.get("a", "new").value("generated", L1) == 0.2


def test_a_name_that_is_no_text(tmp_path):
    """Linux lets files have any bytes for a name."""
    name = os.fsdecode(b"caf\xe9")
    rows = rows_of(tmp_path)
    rows.put(row(name, l1=(1.0, 10)))
    assert rows.get(name, "d1").name == name
    rows.write_tables([row(name, l1=(1.0, 10))], [L1])
    assert json.loads((tmp_path / "out" / "videos.jsonl").read_text("utf-8"))["video"] == name
    assert "caf" in (tmp_path / "out" / "videos.csv").read_text("utf-8")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"every": 2}, "every is 1, not 2"),
        ({"metrics": ["l1"]}, r"metrics is \['l1', 'akd'\], not \['l1'\]"),
        ({"identity": "dlib"}, "identity is None, not dlib"),
        ({"lpips": "alex"}, "lpips is None, not alex"),
    ],
)
def test_other_settings_are_refused(tmp_path, changes, said):
    rows_of(tmp_path)
    rows_of(tmp_path)
    with pytest.raises(InputError, match=rf"--out .*out holds an evaluation where {said}: choose another folder"):
        rows_of(tmp_path, **changes)


def test_a_setting_of_another_version_is_refused(tmp_path):
    rows_of(tmp_path, older=3)
    with pytest.raises(InputError, match="older is 3, not None"):
        rows_of(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '"text"', '{"name": "a"}', '{"colour": 1}', "\udcff"])
def test_a_broken_row_is_named(tmp_path, text):
    rows = rows_of(tmp_path)
    rows.put(row("sub/a", l1=(1.0, 10)))
    (tmp_path / "out" / "videos" / "sub" / "a.json").write_text(text, "utf-8", "surrogateescape")
    for read in (lambda: rows.get("sub/a", "d1"), lambda: read_clip_results(tmp_path / "out")):
        with pytest.raises(InputError, match=r"sub/a.json is not from 'eval' \(.*\): remove it or choose another"):
            read()


@pytest.mark.parametrize(
    "changes",
    [
        {"name": 3},
        {"name": "../../outside"},
        {"frames": "9"},
        {"series": []},
        {"series": {"generated": {"l1": [1.0]}}},
        {"series": {"generated": {"l1": ["a", 1]}}},
        {"series": {"generated": {"l1": [1.0, None]}}},
        {"without_subject": {"truth": {}}},
        {"seconds": {"metrics": "long"}},
        {"gestures": {"blink": 1}},
        {"gestures": {"blink": {"gain": "much"}}},
    ],
    ids=str,
)
def test_a_row_with_other_values_is_named(tmp_path, changes):
    rows = rows_of(tmp_path)
    rows.put(row("sub/a", l1=(1.0, 10)))
    file = tmp_path / "out" / "videos" / "sub" / "a.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | changes), "utf-8")
    for read in (lambda: rows.get("sub/a", "d1"), lambda: read_clip_results(tmp_path / "out")):
        with pytest.raises(InputError, match=r"a.json is not from 'eval'"):
            read()


@pytest.mark.parametrize("text", ["", "{", "[]", "3"])
def test_broken_settings_and_results_are_named(tmp_path, text):
    rows = rows_of(tmp_path)
    for name in ("settings", "result"):
        (rows.out / f"{name}.json").write_text(text)
    with pytest.raises(InputError, match=r"settings.json is not from 'eval'"):
        rows_of(tmp_path)
    with pytest.raises(InputError, match=r"result.json is not from 'eval'"):
        read_result(rows.out)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": None},
        {"definitions": 3},
        {"settings": []},
        {"settings": {"metrics": []}},
        {"settings": {"metrics": ["colour"]}},
        {"settings": {"metrics": [["l1"]]}},
        {"settings": {"metrics": ["l1"], "subject": {}}},
    ],
    ids=str,
)
def test_a_result_with_other_values_cannot_be_compared(tmp_path, changes):
    result = {"kind": "reconstruction", "settings": {"metrics": ["l1"], "subject": None}, "definitions": {}} | changes
    for name in ("one", "other"):
        rows = rows_of(tmp_path / name)
        rows.put(row("a", l1=(1.0, 10)))
        rows.write_result(result)
    with pytest.raises(InputError, match="one"):
        compare([str(tmp_path / name / "out") for name in ("one", "other")], tmp_path / "compared")
    assert not (tmp_path / "compared").exists()


def test_results(tmp_path):
    rows = rows_of(tmp_path)
    with pytest.raises(InputError, match="holds no finished evaluation"):
        read_result(rows.out)
    rows.write_result({"videos": 2, "out": "ü"})
    assert read_result(rows.out) == {"videos": 2, "out": "ü"}


def test_tables(tmp_path):
    rows = rows_of(tmp_path)
    measured = [row(name, l1=(1.25, 10), akd=(3.0, 4), psnr=(0.0, 10)) for name in NAMES]
    measured.append(row("nobody", l1=(2.5, 10), akd=(0.0, 0)))
    rows.write_tables(measured, [L1, AKD, PSNR])
    lines = [json.loads(line) for line in (rows.out / "videos.jsonl").read_text("utf-8").splitlines()]
    assert [line["video"] for line in lines] == [*NAMES, "nobody"]
    assert lines[0] == {
        "video": "p1__00",
        "identity": "p1",
        "frames": 10,
        "generated.l1": 0.125,
        "generated.akd": 0.75,
        "generated.psnr": None,
        "repeating.l1": 0.25,
        "repeating.akd": 1.5,
        "repeating.psnr": None,
        "without_subject.truth": 1,
        "without_subject.generated": 0,
    }
    assert lines[-1]["generated.akd"] is None
    with (rows.out / "videos.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert table == [{k: "" if v is None else str(v) for k, v in line.items()} for line in lines]


def test_gestures_of_each_pair_are_kept_and_in_the_table(tmp_path):
    rows = rows_of(tmp_path)
    measured = [pair_row("t1.jpg", "a", mouth=(0.9, 0.5)), pair_row("t2.jpg", "a", mouth=MISSING)]
    for each in measured:
        rows.put(each)
        assert rows_of(tmp_path).get(each.name, "d1").gestures == each.gestures
        assert rows_of(tmp_path).get(each.name, "d1").source == each.source
    rows.write_tables(measured, [L1])
    with (rows.out / "videos.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    keys = ("counts", "correlation", "gain")
    assert [[line[f"gestures.mouth.{key}"] for key in keys] for line in table] == [
        ["True", "0.9", "0.5"],
        ["True", "", ""],
    ]
    assert [[line[f"gestures.eyes.{key}"] for key in keys] for line in table] == [["False", "", ""]] * 2
    assert table[0]["gestures.mouth.driving"] == "9.0"


# Full disks


@contextmanager
def room_for(size):
    """No file may grow beyond so many bytes."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_no_room(tmp_path):
    rows = rows_of(tmp_path)
    short, long = (row(name, l1=(1.0, 10)) for name in ("a", "b" * 100))
    rows.put(short)
    rows.write_tables([short], [L1])
    before = {file: file.read_bytes() for file in tmp_path.rglob("*.*") if file.is_file()}
    attempts = {
        "a.json": lambda: rows.put(row("a", l1=(2.0, 10))),
        "bbb.json": lambda: rows.put(long),
        "videos.jsonl": lambda: rows.write_tables([short, long], [L1]),
        "result.json": lambda: rows.write_result({"long": "x" * 100}),
        "settings.json": lambda: ResultsFolder(tmp_path / "other", SETTINGS),
    }
    for name, write in attempts.items():
        with room_for(50), pytest.raises(MTAnimateError, match=f"{name} could not be written") as caught:
            write()
        assert caught.value.exit_code == 1
        assert "None" not in str(caught.value)
        assert "\n" not in str(caught.value)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*.*") if file.is_file()} == before


def test_a_table_that_cannot_be_replaced(tmp_path):
    rows = rows_of(tmp_path)
    (rows.out / "videos.csv").mkdir()
    with pytest.raises(MTAnimateError, match=r"videos\.csv"):
        rows.write_tables([row("a", l1=(1.0, 10))], [L1])
    assert sorted(file.name for file in rows.out.iterdir()) == ["settings.json", "videos.csv", "videos.jsonl"]


def test_out_is_a_file(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(MTAnimateError, match=r"settings.json could not be written"):
        rows_of(tmp_path)


def test_a_folder_that_has_become_another_evaluations_is_left_alone(tmp_path):
    """Two runs at once, the folder emptied in between."""
    first = rows_of(tmp_path)
    shutil.rmtree(tmp_path / "out")
    rows_of(tmp_path, every=4)
    with pytest.raises(InputError, match="every is 4, not 1"):
        first.put(row("a", l1=(1.0, 10)))
    assert read_clip_results(tmp_path / "out") == {}


def test_a_folder_is_taken_by_one_evaluation_however_many_begin(tmp_path):
    ready = Barrier(8)

    def begin(number):
        ready.wait()
        try:
            return ResultsFolder(tmp_path, {"number": number}).settings
        except InputError:
            return None

    with ThreadPoolExecutor(8) as pool:
        (won,) = filter(None, pool.map(begin, range(8)))
    assert json.loads((tmp_path / "settings.json").read_text()) == won
