"""`mtanimate animate` as a user runs it."""

import json
import signal

import numpy as np
import pytest
from commands import interrupted, run_here
from forks import run

import mtanimate
from mtanimate.video import VideoReader, read_image


def arguments(media, out, **changes):
    options = {
        "source": media / "face.png",
        "driving": media / "talk.mp4",
        "out": out,
        "checkpoint": media / "tiny.safetensors",
        "crop": "none",  # there is no face in them
        "driving-crop": "none",
    } | changes
    return ["animate", *(text for key, value in options.items() for text in (f"--{key}", value))]


def test_a_video_with_sound_and_exact_rate(media, tmp_path):
    out = tmp_path / "a result ü.mp4"
    done = run(*arguments(media, out), "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    reader, driving = VideoReader(out), VideoReader(media / "talk.mp4")
    assert (reader.fps, reader.frame_count) == (driving.fps, driving.frame_count)
    assert (reader.width, reader.height) == (64, 64)
    assert reader.has_audio
    assert result["frames"] == 20
    assert result["audio"] is True
    assert result["warnings"] == []
    assert result["frames_per_second"] > 0
    expected = {"out", "frames", "fps", "width", "height", "seconds", "frames_per_second", "device", "backend"}
    expected |= {"precision", "checkpoint", "audio", "reference_frame", "reference_distance", "lost_frames", "warnings"}
    assert set(result) == expected
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_says_what_it_does_and_quiet_is_quiet(media, tmp_path):
    loud = run(*arguments(media, tmp_path / "loud.mp4"))
    assert "device cpu" in loud.stderr
    assert "20 of 20 frames" in loud.stderr
    assert "loud.mp4: 20 frames" in loud.stdout
    quiet = run(*arguments(media, tmp_path / "quiet.mp4"), "--quiet")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")


def test_no_audio(media, tmp_path):
    assert run(*arguments(media, tmp_path / "o.mkv"), "--no-audio").returncode == 0
    assert not VideoReader(tmp_path / "o.mkv").has_audio


def test_python_says_the_same(media, tmp_path):
    result = mtanimate.animate(
        source=media / "face.png",
        driving=media / "talk.mp4",
        out=tmp_path / "api.mp4",
        checkpoint=str(media / "tiny.safetensors"),
        crop="none",
        driving_crop="none",
    )
    run(*arguments(media, tmp_path / "cli.mp4"))
    assert result.frames == 20
    assert (tmp_path / "api.mp4").read_bytes() == (tmp_path / "cli.mp4").read_bytes()


def test_the_reference_frame_leaves_the_source_at_rest(media, tmp_path):
    """Where the driver is at rest, the result is that of no movement at all."""
    options = {"source": media / "face.png", "codec": "png", "end": 0.3}
    for name, more in (("moved", {"reference-frame": 3}), ("still", {"strength": 0})):
        assert run(*arguments(media, tmp_path / name, **options, **more)).returncode == 0
    moved, still = (read_image(tmp_path / name / "0000003.png").astype(int) for name in ("moved", "still"))
    assert np.abs(moved - still).max() <= 1
    assert np.abs(read_image(tmp_path / "still" / "0000006.png") - still).max() == 0


BAD = {
    "missing source": {"source": "nowhere.png"},
    "empty source": {"source": "empty"},
    "truncated source": {"source": "half.png"},
    "text as source": {"source": "text.png"},
    "empty folder as source": {"source": "nothing"},
    "wrong crop": {"crop": "1,2,3"},
    "crop out of the picture": {"crop": "10,10,60,60"},
    "face without looking for one": {"face": "2"},
    "codec that the container cannot hold": {"codec": "prores"},
    "end before the start": {"start": "0.5", "end": "0.2"},
    "start after the end": {"start": "99"},
    "strength of a copied pose": {"mode": "absolute", "strength": "2"},
    "reference frame that is not there": {"reference-frame": "20"},
    "motion file and driving video": {"motion": "face.png"},
    "motion saved as a pickle": {"save-motion": "motion.pkl"},
    "missing driving": {"driving": "nowhere.mp4"},
    "empty driving": {"driving": "empty"},
    "truncated driving": {"driving": "half.mp4"},
    "text as driving": {"driving": "text.png"},
    "sound without pictures": {"driving": "sound.m4a"},
    "unknown checkpoint": {"checkpoint": "smal-talking-heads"},
    "broken checkpoint": {"checkpoint": "half.safetensors"},
    "picture as checkpoint": {"checkpoint": "face.png"},
    "no such out folder": {"out": "no/such/folder/o.mp4"},
    "out without a known ending": {"out": "o.xyz"},
    "out without an ending": {"out": "o"},
    "no such device": {"device": "cuda:77"},
    "nonsense device": {"device": "gpu"},
    "half precision on a cpu": {"precision": "fp16", "device": "cpu"},
}


@pytest.fixture(scope="session")
def broken(media):
    """Broken files beside the good ones."""
    (media / "empty").touch()
    (media / "nothing").mkdir()
    (media / "text.png").write_text("this is not a picture")
    for good, half in (("face.png", "half.png"), ("talk.mp4", "half.mp4"), ("tiny.safetensors", "half.safetensors")):
        content = (media / good).read_bytes()
        (media / half).write_bytes(content[: len(content) // 2])
    return media


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_exit_2(broken, tmp_path, case):
    def place(key, value):
        return tmp_path / value if key == "out" else broken / value if key in ("source", "driving") else value

    changes = {key: place(key, value) for key, value in BAD[case].items()}
    if str(changes.get("checkpoint", "")).endswith(("safetensors", "png")):
        changes["checkpoint"] = broken / changes["checkpoint"]
    done = run_here(
        *arguments(broken, tmp_path / "o.mp4", **{k: v for k, v in changes.items() if k != "out"}),
        *(["--out", changes["out"]] if "out" in changes else []),
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("mtanimate: ")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_option_is_refused(media, tmp_path):
    done = run(*arguments(media, tmp_path / "o.mp4"), "--paste-bak")
    assert done.returncode == 2
    assert "--paste-bak" in done.stderr


def test_nothing_is_overwritten_unasked(media, tmp_path):
    out = tmp_path / "o.mp4"
    out.write_text("precious")
    done = run(*arguments(media, out))
    assert done.returncode == 2
    assert out.read_text() == "precious"
    assert run(*arguments(media, out), "--overwrite").returncode == 0
    assert VideoReader(out).frame_count == 20


def test_an_input_is_never_the_output(media, tmp_path):
    copy = tmp_path / "talk.mp4"
    copy.write_bytes((media / "talk.mp4").read_bytes())
    done = run(*arguments(media, copy, driving=copy), "--overwrite")
    assert done.returncode == 2
    assert copy.read_bytes() == (media / "talk.mp4").read_bytes()


def test_a_full_disk(media, small_disk):
    done = run(*arguments(media, small_disk / "o.mkv", codec="ffv1"), "--quiet")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "disk" in done.stderr or "space" in done.stderr
    assert list(small_disk.iterdir()) == []


def test_ctrl_c_leaves_nothing(media, tmp_path):
    begun = lambda: any(tmp_path.iterdir())  # noqa: E731
    code, stderr = interrupted(
        signal.SIGINT, begun, *arguments(media, tmp_path / "o.mp4", driving=media / "long.mp4"), "--quiet"
    )
    assert code == 130
    assert stderr == "mtanimate: interrupted\n"
    assert list(tmp_path.iterdir()) == []


def test_kill_leaves_the_old_result(media, tmp_path):
    out = tmp_path / "o.mp4"
    out.write_text("the old result")
    begun = lambda: len(list(tmp_path.iterdir())) > 1  # noqa: E731
    options = arguments(media, out, driving=media / "long.mp4")
    interrupted(signal.SIGKILL, begun, *options, "--quiet", "--overwrite")
    assert out.read_text() == "the old result"


def test_debug_shows_a_traceback(media, tmp_path):
    done = run(*arguments(media, tmp_path / "o.mp4", source="nowhere.png"), "--debug")
    assert "Traceback" in done.stderr
