"""Files that get a JSON line at a time: torn last lines, foreign files, full disks, numbers that JSON does not have."""

import errno
import json
import math
import os
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from mtanimate.errors import InputError
from mtanimate.files import JsonLines


def number_of(value):
    if not isinstance(value["number"], int):
        raise TypeError("not a number")
    return value["number"]


@pytest.fixture
def lines(tmp_path):
    return JsonLines(tmp_path / "a.jsonl", "some command")


def test_what_is_appended_is_read_in_order(lines):
    for number in range(3):
        lines.append({"number": number, "name": "Jürgen 李\u2028"})
    assert lines.read(number_of) == [0, 1, 2]
    assert lines.file.read_text("utf-8").count("Jürgen 李\u2028") == 3


def test_a_name_that_is_not_text_is_read_back(lines):
    name = os.fsdecode(b"caf\xe9") if os.name == "posix" else "caf\udce9"
    lines.append(name)
    assert lines.read(str) == [name]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_does_not_have_become_null(lines, number):
    lines.append({"number": number, "deep": [{"list": (1.5, number)}]})
    assert json.loads(lines.file.read_text()) == {"number": None, "deep": [{"list": [1.5, None]}]}


def test_an_unfinished_last_line_is_cut_off(lines):
    lines.append({"number": 1})
    whole = lines.file.read_bytes()
    for length in range(1, len(whole)):
        lines.file.write_bytes(whole + whole[:length])
        assert lines.read(number_of) == [1]
        assert lines.file.read_bytes() == whole


@pytest.mark.parametrize(
    "content", ["mine", '{"number": 1}', "mine\n", '{"number": "1"}\n', "{}\n", "[]\n", "NaN\n", "\n3\n"]
)
def test_a_file_of_somebody_else_is_refused_and_stays(lines, content):
    lines.file.write_text(content)
    with pytest.raises(InputError, match=r"a\.jsonl"):
        lines.read(number_of)
    assert lines.file.read_text() == content


def test_only_wanted_lines_are_kept_as_they_are(lines):
    kept = ['{"number":   1}', '{"number": 2}']
    lines.file.write_text("\n".join([kept[0], '{"number": 9}', "mine", kept[1], '{"numb']))
    lines.keep(lambda value: value["number"] < 9)
    assert lines.file.read_text() == "".join(f"{line}\n" for line in kept)


def test_a_full_disk_leaves_no_part_of_a_line(lines):
    resource = pytest.importorskip("resource")
    lines.append({"number": 1})
    whole = lines.file.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 5, limits[1]))
    try:
        with pytest.raises(OSError, match=re.escape(os.strerror(errno.EFBIG))):
            lines.append({"number": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert lines.file.read_bytes() == whole


def test_lines_of_several_threads_do_not_mix(lines):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: lines.append({"number": number, "long": "x" * 10_000}), range(64)))
    assert sorted(lines.read(number_of)) == list(range(64))
