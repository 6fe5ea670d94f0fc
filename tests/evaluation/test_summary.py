"""ResultsFolder -> figures, against sums done by hand."""

import json

import pytest
from handmade import AED, AKD, L1, MISSING, MKR, PSNR, pair_row, row

from mtanimate.evaluation.summary import figures, interval, median_interval, summarise, worst

# A short clip with few landmarks and a long one: means over videos are not those over frames.
SHORT = row("a__1", frames=10, lost=2, l1=(1.0, 10), akd=(60.0, 20), psnr=(0.1, 10))
LONG = row("b__1", frames=30, lost=3, l1=(6.0, 30), akd=(30.0, 30), psnr=(0.003, 30))


def test_means_over_videos_and_over_frames():
    found = figures([SHORT, LONG], "generated", [L1, AKD, PSNR])
    assert found["metrics"] == {"l1": pytest.approx(0.15), "akd": 2, "psnr": pytest.approx(30)}
    assert found["over_frames"]["l1"] == pytest.approx(7 / 40)
    assert found["over_frames"]["akd"] == pytest.approx(90 / 50)
    assert found["over_frames"]["psnr"] == pytest.approx(25.8922, abs=1e-4)  # -10 log10(0.103 / 40)
    assert found["intervals"]["akd"] == interval([3.0, 1.0], ["a", "b"]) == (1, 3)


def test_each_series_has_its_own():
    result = summarise([SHORT, LONG], [L1], {})
    assert result["videos"] == 2
    assert result["frames"] == 40
    assert result["metrics"] == {"l1": pytest.approx(0.15)}
    assert result["repeating"]["metrics"] == {"l1": pytest.approx(0.3)}
    assert result["repeating"]["over_frames"] == {"l1": pytest.approx(14 / 40)}
    assert result["without_subject"] == {"truth": 2, "generated": 5}
    assert result["milliseconds_per_frame"] == {"generation": 25, "metrics": 12.5}
    assert result["reasons"] == {}


def test_rows_of_before_and_of_now_are_alike():
    """Those of before were read from files."""
    kept = json.loads(json.dumps(SHORT.series))
    before = row("a__1", frames=10, lost=2, **kept["generated"])
    assert summarise([before, LONG], [L1, AKD], {}) == summarise([SHORT, LONG], [L1, AKD], {})


def test_a_video_without_a_figure_does_not_count():
    nobody = row("c__1", frames=10, l1=(5.0, 10), akd=(0.0, 0))
    equal = row("d__1", frames=10, l1=(0.0, 10), akd=(10.0, 10), psnr=(0.0, 10))
    found = figures([SHORT, nobody, equal], "generated", [L1, AKD, PSNR])
    assert found["metrics"] == {"l1": pytest.approx(0.2), "akd": 2, "psnr": pytest.approx(20)}
    assert found["over_frames"]["akd"] == pytest.approx(70 / 30)
    assert found["over_frames"]["psnr"] == pytest.approx(23.0103, abs=1e-4)  # of 0.1 / 20
    assert found["intervals"]["akd"] == (1, 3)


def test_the_worst_videos():
    sums = {"a": 3, "b": 9, "c": 1, "d": 7, "e": 5}
    rows = [row(f"{name}__1", l1=(value, 10), psnr=(value, 10)) for name, value in sums.items()]
    rows.append(row("f__1", psnr=(0.0, 10)))
    assert [each["video"] for each in worst(rows, "generated", L1)] == ["b__1", "d__1", "e__1"]
    assert [each["value"] for each in worst(rows, "generated", L1)] == pytest.approx([0.9, 0.7, 0.5])
    assert [each["video"] for each in worst(rows, "generated", PSNR)] == ["b__1", "d__1", "e__1"]
    assert worst(rows[:1], "repeating", L1) == [{"video": "a__1", "value": pytest.approx(0.6)}]
    assert worst(rows, "generated", AKD) == []
    assert summarise(rows, [L1], {})["worst"] == {"l1": worst(rows, "generated", L1)}


def test_why_there_is_no_figure():
    rows = [row("a__1", l1=(1.0, 10), psnr=(0.0, 10), akd=(0.0, 0), mkr=(680, 680))]
    result = summarise(rows, [L1, AKD, MKR, AED, PSNR], {"aed": "nobody is known", "l1": "not told"})
    assert result["metrics"] == {"l1": 0.1, "akd": None, "mkr": 1, "aed": None, "psnr": None}
    assert result["reasons"].keys() == {"akd", "aed", "psnr"}
    assert result["reasons"]["aed"] == "nobody is known"
    assert result["reasons"]["psnr"] == "all frames equal the truth: infinite"
    assert result["reasons"]["akd"].startswith("no frame counts: the detector found no subject")
    assert summarise([row("a__1", mkr=(0, 0))], [MKR], {})["reasons"]["mkr"] == result["reasons"]["akd"]


def test_a_summary_is_json():
    result = summarise([SHORT, LONG, row("c__1", l1=(0.0, 10))], [L1, AKD, MKR, AED, PSNR], {})
    assert json.loads(json.dumps(result, allow_nan=False))["metrics"]["mkr"] is None


def test_gestures_are_medians_over_the_pairs_that_count():
    rows = [
        pair_row("t1.jpg", "a", mouth=(0.9, 0.5), yaw=(1.0, 0.9)),
        pair_row("t2.jpg", "a", mouth=(0.1, 0.1), yaw=MISSING),
        pair_row("t3.jpg", "b", mouth=(0.4, 0.2)),
        pair_row("t4.jpg", "b", mouth=MISSING, yaw=MISSING),
    ]
    found = summarise(rows, [L1], {})["gestures"]
    people = [(row.source, row.identity) for row in rows]
    assert people[0] == ("t1.jpg", "t1.jpg by a")
    assert found["mouth"]["correlation"] == {
        "median": 0.4,
        "interval": median_interval([0.9, 0.1, 0.4, None], people),
    }
    assert found["mouth"]["gain"]["median"] == 0.2
    assert (found["mouth"]["pairs"], found["mouth"]["missing"]) == (3, 1)
    assert found["yaw"] == {
        "correlation": {"median": 1.0, "interval": None},
        "gain": {"median": 0.9, "interval": None},
        "pairs": 1,
        "missing": 2,
    }
    nothing = {"median": None, "interval": None}
    assert found["eyes"] == {"correlation": nothing, "gain": nothing, "pairs": 0, "missing": 0}


def test_without_the_mesh_there_are_no_gestures():
    assert "gestures" not in summarise([SHORT, LONG], [L1], {})
