"""`data check`: a folder with everything that can be wrong in it."""

import numpy as np
import pytest
from tiny import CONFIG, counting_frames, write_video

from mtanimate.data import checking
from mtanimate.data.checking import check_dataset
from mtanimate.errors import InputError
from mtanimate.video import write_image


@pytest.fixture(scope="module", autouse=True)
def _soon():
    """How fast a data set is read is measured in a moment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checking, "MEASURED_SECONDS", 0.1)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for split in ("train", "test"):
        (folder / split).mkdir()
    write_video(folder / "train" / "ann__1.mp4", counting_frames(10, 0))
    write_video(folder / "train" / "bob__1.mp4", counting_frames(12, 1, 96))
    write_video(folder / "train" / "eve__1.mp4", np.zeros((5, 64, 80, 3), np.uint8))
    write_video(folder / "train" / "low__1.mp4", counting_frames(5, 2, 32))
    write_video(folder / "train" / "one__1.mp4", counting_frames(1, 2))
    write_video(folder / "test" / "ann__2.mp4", counting_frames(8, 2))
    (folder / "train" / "copy__1.mp4").write_bytes((folder / "train" / "ann__1.mp4").read_bytes())
    whole = (folder / "train" / "bob__1.mp4").read_bytes()
    (folder / "train" / "cut__1.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "train" / "text__1.mp4").write_text("no video")
    (folder / "train" / "frames__1").mkdir()
    for index, frame in enumerate(counting_frames(3, 0)):
        write_image(folder / "train" / "frames__1" / f"{index}.png", frame)
    return folder


@pytest.fixture(scope="module")
def findings(folder):
    told = []
    found = check_dataset(folder, CONFIG, processes=0, progress=lambda done, total: told.append((done, total)))
    assert told == [(done, 10) for done in range(1, 11)]
    return found


def test_what_is_broken_is_named(findings):
    assert len(findings.problems) == 3
    for name in ("cut__1.mp4", "one__1.mp4 has 1 frame", "text__1.mp4"):
        assert sum(name in line for line in findings.problems) == 1


def test_what_is_odd_is_named(findings):
    assert len(findings.warnings) == 4
    for words in (
        "low__1.mp4 is 32 x 32: smaller than the 64",
        "eve__1.mp4 is 80 x 64: its rims",
        "ann__1.mp4 is the same as",
        "identity 'ann' is in train and in test",
    ):
        assert sum(words in line for line in findings.warnings) == 1


def test_what_there_is_is_counted(findings):
    assert (findings.train, findings.test, findings.identities) == (9, 1, 9)
    assert findings.frames == 10 + 12 + 5 + 5 + 8 + 10 + 3
    assert findings.seconds == pytest.approx(50 / 25)
    assert findings.sizes == {"64x64": 4, "96x96": 1, "80x64": 1, "32x32": 1}
    assert findings.samples_per_second > 1


@pytest.mark.parametrize(
    ("names", "identities", "said"),
    [
        (["ann/1.mp4", "ann/2.mp4", "bob/1.mp4"], 2, "each uppermost folder is taken for one person"),
        (["ann/a.mp4", "ann/b.mp4", "bob/c.mp4"], 3, "each clip is taken for another one's, also the 2 in"),
        (["ann__1.mp4", "more/ann__2.mp4", "more/bob.mp4"], 2, None),
        (["a.mp4", "b.mp4"], 2, None),
    ],
)
def test_how_people_are_known_is_said(tmp_path, folder, names, identities, said):
    for number, name in enumerate(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_video(tmp_path / name, counting_frames(2 + number, 0))
    found = check_dataset(tmp_path, CONFIG, processes=0)
    assert found.identities == identities
    assert ("folder" in found.known_by) == (said is not None and "folder" in said)
    assert [said in line for line in found.warnings] == [True] if said else found.warnings == []


def test_nothing_usable(tmp_path):
    (tmp_path / "a.mp4").write_text("no video")
    found = check_dataset(tmp_path, CONFIG, processes=0)
    assert (len(found.problems), found.samples_per_second) == (1, None)


def test_nothing_there(tmp_path):
    with pytest.raises(InputError, match="no videos"):
        check_dataset(tmp_path, CONFIG, processes=0)
