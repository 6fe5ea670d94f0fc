"""How long a work of several stages takes still, and who hears of which stage."""

import pytest

import mtanimate
from mtanimate.animation.animate import STAGES
from mtanimate.cli import terminal
from mtanimate.cli.terminal import Stages, staged_progress


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when they are told to."""
    now = [100.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    return now


def test_every_stage_is_timed_by_itself(clock):
    """The second is six times as slow: what the first took says nothing of it, once it has begun."""
    stages = Stages({"reading": 1, "drawing": 6})
    assert stages.at(0, 100, "reading") == (0, 0)
    clock[0] += 5
    assert stages.at(50, 100, "reading") == (10, 5 + 60)
    clock[0] += 5 + 30  # the network is loaded in between
    stages.at(0, 100, "drawing")
    clock[0] += 20
    rate, left = stages.at(20, 100, "drawing")
    assert (rate, left) == (pytest.approx(1), pytest.approx(80))


def test_a_stage_that_is_left_out_takes_nothing(clock):
    stages = Stages({"looking": 1, "reading": 2, "drawing": 4})
    stages.at(0, 10, "reading")
    clock[0] += 10
    assert stages.at(10, 10, "reading") == (1, 20)


def test_lines_where_there_is_no_terminal(clock, capsys):
    with staged_progress({"reading": 1, "drawing": 2}, "frames", quiet=False) as update:
        for stage in ("reading", "drawing"):
            for done in range(0, 31, 5):
                update(done, 30, stage)
                clock[0] += 5
    assert capsys.readouterr().err.splitlines() == [
        "reading: 10 of 30 frames, 1.0/s, 80 s left in all",
        "reading: 20 of 30 frames, 1.0/s, 70 s left in all",
        "reading: 30 of 30 frames, 1.0/s, 60 s left in all",
        "drawing: 5 of 30 frames, 1.0/s, 25 s left in all",
        "drawing: 15 of 30 frames, 1.0/s, 15 s left in all",
        "drawing: 25 of 30 frames, 1.0/s, 5 s left in all",
        "drawing: 30 of 30 frames, 1.0/s, 0 s left in all",
    ]


def test_all_stages_of_an_animation_are_heard_of(tmp_path, media):
    """Each from 0 to its end, in order; also where faces are looked for, which decodes everything."""
    pytest.importorskip("dlib", reason="faces need dlib: pip install 'mtanimate[faces]'")
    told = []
    mtanimate.animate(
        media / "talk.mp4",
        media / "talk.mp4",
        tmp_path / "out.mp4",
        checkpoint=str(media / "tiny.safetensors"),
        device="cpu",
        end=0.5,
        progress=lambda *counts: told.append(counts),
    )
    names = list(dict.fromkeys(stage for _, _, stage in told))
    assert names == list(STAGES)
    for name in names:
        counts = [(done, total) for done, total, stage in told if stage == name]
        assert counts == sorted(counts)
        assert counts[0][0] == 0
        assert counts[-1][0] == counts[-1][1] > 0
