"""YAML that grows, nests or lies: one line, at once, wherever YAML is read."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtanimate.checkpoints.configuration import read_configuration
from mtanimate.config import ModelConfig, from_mapping, load_file, load_preset, override
from mtanimate.errors import InputError
from mtanimate.reading import read_yaml

LAUGHS = "a0: &a0 [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"a{n}: &a{n} [{','.join(9 * [f'*a{n - 1}'])}]\n" for n in range(1, 10)
)
HOSTILE = {
    "laughs": LAUGHS + "model: *a9\n",
    "large": f"model: [{'1,' * 20_000}]",
    "deep": "[" * 5000 + "]" * 5000,
    "deep in a block": "".join(" " * depth + "a:\n" for depth in range(300)),
    "digits": f"a: {'9' * 5000}",
    "date": "model:\n  resolution: 2001-99-99\n",
    "tag": "a: !!int x",
    "python": "a: !!python/object/apply:os.system [ls]",
    "number as key": "1: 2",
    "list as key": "? [a]\n: b\n",
    "nan": "model: {resolution: .nan}",
    "huge float": f"loss: {{pixel: {'9' * 4000}}}",
    "itself": "a: &a [*a]\nmodel: *a\n",
    "name": "model: {estimator: {name: [a]}}",
    "text": "hello",
    "nothing": "",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_it_is_refused_in_one_line_at_once(tmp_path, text):
    file = tmp_path / "a.yaml"
    file.write_text(text)
    begun = time.monotonic()
    for read in (load_file, lambda path: read_configuration(path, "fomm"), lambda path: read_configuration(path, "")):
        with pytest.raises(InputError) as error:
            read(file)
        assert "a.yaml" in str(error.value) or read is load_file
        assert len(str(error.value)) < 2000
    with pytest.raises(InputError):
        override(load_preset("small"), [f"model.resolution={text}"])
    assert time.monotonic() - begun < 20


def test_aliases_that_stay_small_are_taken():
    assert read_yaml("a: &a {b: [1, 2e3]}\nc: [*a, *a]") == {"a": {"b": [1, 2000]}, "c": 2 * [{"b": [1, 2000]}]}


@given(st.text(alphabet="ab01:-&*![]{}?,.'\" \n", max_size=60))
def test_any_text_is_read_or_refused(text):
    refused = ""
    try:
        read_yaml(text)
    except ValueError as error:
        refused = str(error)
    assert "\n" not in refused


@pytest.mark.parametrize(
    "values",
    [
        {"resolution": 10**9},
        {"num_keypoints": 10**9},
        {"estimator": {"layers": 10**6}},
        {"estimator": {"dim": 4 * 10**9}},
        {"estimator": {"backbone": {"stage2_blocks": [4, 10**9]}}},
        {"estimator": {"backbone": {"widths": 10_000 * [8]}}},
        {"estimator": {"name": "fomm", "scale_factor": 1e-9}},
        {"generator": {"num_down_blocks": 10**6}},
        {"dense_motion": {"num_blocks": 64}},
        {"background": {"block_expansion": 10**12}},
    ],
    ids=str,
)
def test_no_network_without_limits(values):
    with pytest.raises(InputError):
        from_mapping(ModelConfig, values, "model")
