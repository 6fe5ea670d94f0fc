"""Detectors in processes of their own, which end with whoever started them."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from drawn_face import scene
from processes import children, gone

from mtanimate.errors import InputError, MTAnimateError
from mtanimate.metrics.detector_pool import DetectorChoice, DetectorPool
from mtanimate.metrics.detectors import Detections, DlibFaces, Frames

in_proc = pytest.mark.skipif(
    not Path(f"/proc/self/task/{os.getpid()}/children").exists(), reason="finds processes in Linux's /proc"
)


@cache
def drawings():
    """Five pictures, one of nobody, and what the detector finds in this process."""
    places = [(10, 10, 190), (30, 12, 180), None, (20, 40, 200), (44, 30, 170)]
    pictures = np.stack([scene(256, 256, *([place] if place else [])) for place in places])
    frames, faces = Frames(pictures, "drawn", range(5), generated=True), DlibFaces()
    found = faces.landmarks(frames)
    return frames, Detections(found, faces.descriptors(frames, found))


def assert_same(seen, expected):
    np.testing.assert_array_equal(seen.landmarks, expected.landmarks)
    np.testing.assert_array_equal(seen.descriptors, expected.descriptors)


def test_processes_find_the_same_as_this_one():
    """Also where the pictures cannot be shared out evenly."""
    frames, expected = drawings()
    assert expected.without_subject == 1
    with DetectorPool(DetectorChoice("faces"), identity=True, processes=2) as pool:
        for count in (5, 3, 1):
            assert_same(pool.detect(frames[:count]), expected[:count])


def test_descriptors_only_where_they_are_wanted():
    frames, expected = drawings()
    with DetectorPool(DetectorChoice("faces"), identity=False, processes=1) as pool:
        seen = pool.detect(frames[:2])
    assert seen.descriptors is None
    np.testing.assert_array_equal(seen.landmarks, expected.landmarks[:2])


def test_an_unknown_detector_is_said_before_anything_starts():
    with pytest.raises(InputError, match="--detector fases"):
        DetectorPool(DetectorChoice("fases"), identity=True, processes=1)


def test_keys_tell_all_that_findings_depend_on():
    with DetectorPool(DetectorChoice("faces"), identity=True, processes=1) as both:
        keys = [both.key("ab", 256, 1), both.key("abc", 256, 1), both.key("ab", 128, 1), both.key("ab", 256, 2)]
        assert keys[0] == both.key("ab", 256, 1)
        both.detector.name = "a later version"
        keys += [both.key("ab", 256, 1), both.key("ab", 25, 61)]
    with DetectorPool(DetectorChoice("faces"), identity=False, processes=1) as landmarks:
        keys.append(landmarks.key("ab", 256, 1))
    assert len(set(keys)) == len(keys) == 7


def test_parts_of_what_was_seen():
    _, seen = drawings()
    assert len(seen) == 5
    assert_same(Detections.joined([seen[:2], seen[2:]]), seen)
    assert_same(seen[3:].repeated(3), Detections.joined([seen[3:4]] * 3))
    alone = Detections(seen.landmarks, None)
    assert (
        alone[:2].descriptors is alone.repeated(2).descriptors is Detections.joined([alone, alone]).descriptors is None
    )


# Ends


@pytest.fixture
def openpose(tmp_path):
    """A folder of OpenPose's files for two frames of the clip `one`: a detector that needs nothing."""
    for number in range(2):
        file = tmp_path / "truth" / "one" / f"{number}_keypoints.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"people": [{"pose_keypoints_2d": [1, 2, number]}]}))
    return tmp_path


def frames_of(numbers):
    return Frames(np.zeros((len(numbers), 8, 8, 3), np.uint8), "one", numbers, generated=False)


def test_what_stored_files_lack_is_said(openpose):
    with DetectorPool(DetectorChoice("none", openpose=openpose), identity=True, processes=2) as pool:
        seen = pool.detect(frames_of(range(2)))
        assert seen.landmarks[1].tolist() == [[1, 2]]
        assert np.isnan(seen.landmarks[0]).all()
        assert seen.descriptors is None
        with pytest.raises(InputError, match="no file for frame 2"):
            pool.detect(frames_of(range(3)))
        assert len(pool.detect(frames_of(range(2)))) == 2


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@in_proc
def test_a_process_that_is_killed_is_said(openpose):
    before = children(os.getpid())
    with DetectorPool(DetectorChoice("none", openpose=openpose), identity=False, processes=1) as pool:
        tracker = set(children(os.getpid())) - set(before)
        pool.detect(frames_of(range(2)))
        for worker in set(children(os.getpid())) - set(before) - tracker:
            os.kill(worker, signal.SIGKILL)
        with pytest.raises(MTAnimateError, match="a process that looks for landmarks was ended") as caught:
            pool.detect(frames_of(range(2)))
        assert caught.value.exit_code == 1


LOOKING = """
import sys
import numpy as np
from pathlib import Path
from mtanimate.metrics.detectors import Frames
from mtanimate.metrics.detector_pool import DetectorChoice
from mtanimate.metrics.detector_pool import DetectorPool

frames = Frames(np.zeros((2, 8, 8, 3), np.uint8), "one", range(2), generated=False)
try:
    with DetectorPool(DetectorChoice("none", openpose=Path(sys.argv[1])), identity=False, processes=2) as pool:
        print("opened", flush=True)
        while True:
            pool.detect(frames)
            print("looked", flush=True)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.fixture(params=["starting", "working"])
def looking(request, openpose):
    """A process, leader of a group, whose two workers are just starting, or at work; and all it has started."""
    command = [sys.executable, "-c", LOOKING, str(openpose)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout.readline() == "opened\n"
        if request.param == "working":
            assert process.stdout.readline() == "looked\n"
        else:
            wait_for(lambda: len(children(process.pid)) >= 3)
            time.sleep(0.1)  # their imports have begun
        yield process, children(process.pid)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


@in_proc
def test_nothing_outlives_a_parent_that_is_killed(looking):
    process, started = looking
    assert len([one for one in started if not gone(one)]) >= 3
    process.kill()
    process.wait()
    wait_for(lambda: all(map(gone, started)))


@in_proc
def test_ctrl_c_shows_nothing_of_the_workers(looking):
    process, started = looking
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert stderr == ""
    assert process.returncode == 130
    wait_for(lambda: all(map(gone, started)))
