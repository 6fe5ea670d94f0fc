"""What is no file, or no number, is refused at once: nothing waits for a pipe, or grows from a few characters."""

import json
import os
import threading
import time
from fractions import Fraction

import pytest
from tiny import MODEL, tiny_animator

from mtanimate.animation.job_report import JobReport
from mtanimate.animation.motion_sequence import load_motion
from mtanimate.animation.settings import Settings
from mtanimate.checkpoints.configuration import read_configuration
from mtanimate.checkpoints.file import read_checkpoint, read_config, write_checkpoint
from mtanimate.checkpoints.pickles import read_pickle
from mtanimate.config import Config, load_file
from mtanimate.data.cache import read_index
from mtanimate.data.packing import PackedFaces
from mtanimate.data.planning import read_metadata
from mtanimate.data.preparation_journal import PreparationJournal
from mtanimate.errors import InputError
from mtanimate.evaluation.clip_results import ResultsFolder
from mtanimate.files import sha256
from mtanimate.inference.manifest import read_manifest
from mtanimate.metrics.detectors import OpenPose, StoredFeatures
from mtanimate.reading import parse_fraction, parse_json, read_table
from mtanimate.tensors import read_weights
from mtanimate.training.checkpointing import _read as read_state
from mtanimate.training.metrics import RunLog
from mtanimate.video import VideoReader, read_image
from mtanimate.video.footage import is_moving

needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes as POSIX has them")


def rows_of(path):
    with read_table(path) as table:
        return list(table)


# By the name of the file: what reads it, given its path.
READERS = {
    "a.yaml": load_file,
    "b.yaml": lambda path: read_configuration(path, "fomm"),
    "a.csv": rows_of,
    "b.csv": read_metadata,
    "last.pt": read_state,
    "a.pth": read_pickle,
    "b.pth": lambda path: read_weights(path, "weights", "get others"),
    "a.safetensors": read_config,
    "b.safetensors": lambda path: load_motion(path, "", MODEL),
    "a.npz": lambda path: load_motion(path, "", MODEL),
    "faces.npz": PackedFaces,
    "manifest.json": lambda path: read_manifest(path.parent),
    "index.json": lambda path: read_index(path.parent),
    "index.jsonl": lambda path: read_index(path.parent),
    "log.jsonl": lambda path: RunLog(path.parent, 5, tensorboard=False),
    "journal.jsonl": lambda path: PreparationJournal(path.parent),
    "jobs.csv.report.jsonl": JobReport,
    "settings.json": lambda path: ResultsFolder(path.parent, {}),
    "truth/a/0_keypoints.json": lambda path: OpenPose(path.parents[2]),
    "truth/a.npy": lambda path: StoredFeatures(path.parents[1], None),
    "a.mp4": VideoReader,
    "a.png": read_image,
    "any": sha256,
}


def within(seconds, work, *arguments):
    """What `work` raised, or None; fails where it is still at it after so many seconds."""
    raised = []

    def run():
        try:
            work(*arguments)
        except Exception as error:
            raised.append(error)
        else:
            raised.append(None)

    threading.Thread(target=run, daemon=True).start()
    deadline = time.monotonic() + seconds
    while not raised and time.monotonic() < deadline:
        time.sleep(0.01)
    assert raised, f"it waits for ever: {arguments}"
    return raised[0]


@needs_pipes
@pytest.mark.parametrize("name", READERS)
def test_no_pipe_is_waited_for(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)
    error = within(10, READERS[name], path)
    assert isinstance(error, InputError)
    assert path.name in str(error)
    assert "\n" not in str(error)


@needs_pipes
def test_a_pipe_called_as_a_picture_does_not_move(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    assert within(10, is_moving, tmp_path / "a.png") is None


HOSTILE = {
    "deep": "[" * 100_000 + "]" * 100_000,
    "deeper than it should be": "[" * 60 + "]" * 60,
    "digits": "9" * 5000,
    "digits that Python reads": "9" * 4000,
    "nan": "NaN",
    "infinity": "-Infinity",
    "huge": "1e999",
    "open": "{",
    "nothing": "",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_json_is_refused_in_one_line(tmp_path, text):
    error = within(5, parse_json, text)
    assert isinstance(error, ValueError)
    assert "\n" not in str(error)
    folder = tmp_path
    (folder / "manifest.json").write_text(f'{{"format": "mtanimate-export-1", "model": {text}}}')
    (folder / "index.json").write_text(f'{{"version": {text}}}')
    (folder / "a.report.jsonl").write_text(f'{{"key": {text}}}\n')
    (folder / "settings.json").write_text(f'{{"every": {text}}}')
    readers = (
        read_manifest,
        read_index,
        lambda path: JobReport(path / "a.report.jsonl"),
        lambda path: ResultsFolder(path, {}),
    )
    for read in readers:
        with pytest.raises(InputError) as caught:
            read(folder)
        assert len(str(caught.value)) < 1000


def test_hostile_json_in_a_checkpoint_is_refused(tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "a.safetensors", tiny_animator(), Config(model=MODEL), {})
    monkeypatch.setattr("mtanimate.checkpoints.file.read_metadata", lambda path: {"config": HOSTILE["deep"]})
    with pytest.raises(InputError, match=r"a\.safetensors"):
        read_config(tmp_path / "a.safetensors")


def test_plain_json_stays_as_it_is():
    value = {"a": [1, -2.5, 10**30, 1e300, None, True, "NaN", {}, []], "b": json.loads("[" * 40 + "]" * 40)}
    assert parse_json(json.dumps(value)) == value


def test_a_log_goes_on_whatever_its_lines_hold(tmp_path):
    lines = ['{"step": 1}', '{"step": "2"}', HOSTILE["deep"], '{"step": NaN}', "[]", '{"step": 9}', '{"ste']
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    RunLog(tmp_path, 5, tensorboard=False)
    assert (tmp_path / "log.jsonl").read_text() == lines[0] + "\n"


@pytest.mark.parametrize("text", ["1e999999999", "1/0", "9" * 50, "1.5", "nan", "", 3, None])
def test_a_fraction_that_would_be_written_out_is_refused_at_once(text):
    assert isinstance(within(5, parse_fraction, text), ValueError)
    assert parse_fraction("30000/1001") == Fraction(30000, 1001)


INDEX = {"digest": "a", "name": "a", "identity": "a", "split": "train", "first": 0, "count": 1, "rate": "25"}


@pytest.mark.parametrize(
    "change", [{"rate": "1e999999999"}, {"rate": "0"}, {"first": -1}, {"count": 10**30}, {"count": "1"}, {"digest": []}]
)
def test_a_cache_whose_index_lies_is_refused(tmp_path, change):
    for resolution, entry in ((64, INDEX | change), (0, INDEX), (10**9, INDEX), ("64", INDEX)):
        (tmp_path / "index.json").write_text(json.dumps({"version": 1, "resolution": resolution, "entries": [entry]}))
        assert isinstance(within(5, read_index, tmp_path), InputError)


@pytest.mark.parametrize("options", [{"reference-frame": "9" * 5000}, {"face": "9" * 5000}, {"crf": "9" * 5000}])
def test_numbers_of_thousands_of_digits_in_a_row_are_refused(options):
    with pytest.raises(InputError):
        Settings().changed(options)


def test_a_file_of_more_text_than_there_can_be_is_refused(tmp_path):
    with (tmp_path / "a.yaml").open("wb") as file:
        file.truncate(1 << 33)  # it takes no room on most disks
    begun = time.monotonic()
    with pytest.raises(InputError, match=r"a\.yaml"):
        load_file(tmp_path / "a.yaml")
    assert time.monotonic() - begun < 5


def test_what_is_written_is_read(tmp_path):
    config = Config(model=MODEL)
    write_checkpoint(tmp_path / "a.safetensors", tiny_animator(), config, {})
    assert read_checkpoint(tmp_path / "a.safetensors").config == config
    (tmp_path / "a.csv").write_text("\ufeffa;b\n1;2,5\n", "utf-8")
    assert rows_of(tmp_path / "a.csv") == [{"a": "1", "b": "2,5"}]
