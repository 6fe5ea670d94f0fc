"""Motion files: whole, private, refused where they are foreign."""

import json
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mtanimate.animation import motion_sequence
from mtanimate.animation.motion_sequence import MotionSequence, load_motion, save_motion
from mtanimate.config import HeatmapEstimatorConfig, ModelConfig
from mtanimate.errors import InputError
from mtanimate.models.motion import Motion

CONFIG = ModelConfig()


def sequence(frames: int = 6, times: bool = False, background: bool = False) -> MotionSequence:
    torch.manual_seed(0)
    motion = Motion(torch.rand(frames, 10, 2), torch.rand(frames, 10, 2, 2))
    moments = [Fraction(number * number, 90) for number in range(frames)] if times else None
    behind = torch.rand(frames, 3, 3) if background else None
    return MotionSequence(motion, Fraction(30000, 1001), "abc", moments, behind, [2, 3], "def" if background else "")


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
@pytest.mark.parametrize(("times", "background"), [(False, False), (True, False), (False, True)])
def test_what_is_saved_is_loaded(suffix, times, background, tmp_path):
    made = sequence(times=times, background=background)
    path = tmp_path / f"motion ü{suffix}"
    save_motion(path, made)
    read = load_motion(path, "abc", CONFIG)
    assert torch.equal(read.motion.keypoints, made.motion.keypoints)
    assert torch.equal(read.motion.affine, made.motion.affine)
    assert (read.fps, read.times, read.lost, read.source) == (made.fps, made.times, made.lost, made.source)
    assert (read.background is not None) == background
    assert not background or torch.equal(read.background, made.background)
    assert path.stat().st_size < 6 * 10 * 6 * 4 + 3000  # motion alone, no picture
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_another_checkpoints_motion_is_refused(suffix, tmp_path):
    path = tmp_path / f"motion{suffix}"
    save_motion(path, sequence())
    with pytest.raises(InputError, match="made with another checkpoint"):
        load_motion(path, "other", CONFIG)
    with pytest.raises(InputError, match="made with another checkpoint"):
        load_motion(path, "abc", replace(CONFIG, num_keypoints=11))


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_damaged_files_are_refused(suffix, tmp_path):
    path = tmp_path / f"motion{suffix}"
    save_motion(path, sequence())
    content = path.read_bytes()
    generator = np.random.default_rng(0)
    for cut in (1, 10, len(content) // 2, len(content) - 3):
        path.write_bytes(content[:cut])
        with pytest.raises(InputError, match="is not a motion file"):
            load_motion(path, "abc", CONFIG)
    for _ in range(60):
        changed = bytearray(content)
        for position in generator.integers(len(content), size=8):
            changed[position] ^= int(generator.integers(1, 256))
        path.write_bytes(changed)
        with suppress(InputError):  # none where only a value has changed, or the compression's slack
            load_motion(path, "abc", CONFIG)


def test_pickles_are_not_opened(tmp_path):
    path = tmp_path / "motion.npz"
    np.savez(path, keypoints=np.array([{"a": 1}], object), affine=np.zeros(1), lost=np.zeros(1), about=np.array("{}"))
    with pytest.raises(InputError, match="is not a motion file"):
        load_motion(path, "abc", CONFIG)


def test_values_that_are_not_finite_are_refused(tmp_path):
    made = sequence()
    made.motion.keypoints[2, 3, 0] = torch.nan
    save_motion(tmp_path / "motion.npz", made)
    with pytest.raises(InputError, match="not finite"):
        load_motion(tmp_path / "motion.npz", "abc", CONFIG)
    made = sequence(background=True)
    made.background[2, 1, 1] = torch.inf
    save_motion(tmp_path / "other.npz", made)
    with pytest.raises(InputError, match="not finite"):
        load_motion(tmp_path / "other.npz", "abc", CONFIG)


HOSTILE = {
    "no rate": {"fps": "0"},
    "a rate without end": {"fps": "1e999999999"},
    "a rate of no use": {"fps": "1000000"},
    "a long rate": {"fps": "9" * 5000},
    "times without end": {"times": json.dumps(6 * ["1e999999999"])},
    "deep times": {"times": "[" * 100_000},
    "times that are numbers": {"times": "[1, 2, 3, 4, 5, 6]"},
    "far": {"keypoints": np.full((6, 10, 2), 1e30)},
    "far for float32": {"affine": np.full((6, 10, 2, 2), 1e300)},
    "no parts": {"keypoints": np.zeros((6, 0, 2)), "affine": np.zeros((6, 0, 2, 2))},
    "another rank": {"keypoints": np.zeros(6)},
    "a single number": {"keypoints": np.zeros(())},
    "text": {"keypoints": np.full((6, 10, 2), "x")},
    "lost nowhere": {"lost": np.full((2, 2), np.nan)},
}


@pytest.mark.parametrize("changes", HOSTILE.values(), ids=HOSTILE)
def test_hostile_values_are_refused_at_once(changes, tmp_path):
    path = tmp_path / "motion.npz"
    save_motion(path, sequence())
    with np.load(path) as stored:
        arrays = dict(stored)
    about = json.loads(str(arrays.pop("about")))
    about |= {name: value for name, value in changes.items() if name in about}
    arrays |= {name: value for name, value in changes.items() if name in arrays}
    np.savez(path, **arrays, about=np.array(json.dumps(about)))
    with pytest.raises(InputError) as error:
        load_motion(path, "abc", CONFIG)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000


def test_a_small_file_that_unpacks_to_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(motion_sequence, "_MOST_BYTES", 10_000_000)
    path = tmp_path / "motion.npz"
    np.savez_compressed(path, keypoints=np.zeros(1_300_000), affine=0, lost=0, about="{}")
    assert path.stat().st_size < 20_000
    with pytest.raises(InputError, match="unpacks"):
        load_motion(path, "abc", CONFIG)


def test_a_background_for_other_frames_is_refused(tmp_path):
    save_motion(tmp_path / "motion.npz", replace(sequence(), background=torch.rand(5, 3, 3)))
    with pytest.raises(InputError, match="6 frames, background"):
        load_motion(tmp_path / "motion.npz", "abc", CONFIG)


def test_a_foreign_format_is_named(tmp_path):
    arrays = {"keypoints": np.zeros((1, 10, 2)), "affine": np.zeros((1, 10, 2, 2)), "lost": np.zeros(0, int)}
    np.savez(tmp_path / "motion.npz", **arrays, about=np.array(json.dumps({"format": "other"})))
    with pytest.raises(InputError, match="its format is other"):
        load_motion(tmp_path / "motion.npz", "abc", CONFIG)


def test_where_it_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        save_motion(tmp_path / "nowhere" / "motion.npz", sequence())
    with pytest.raises(InputError, match=r"must end in \.safetensors or \.npz"):
        save_motion(Path(tmp_path / "motion.pkl"), sequence())


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_only_motion_is_replaced_and_only_when_asked(suffix, tmp_path):
    path, other = tmp_path / f"motion{suffix}", tmp_path / f"other{suffix}"
    save_motion(path, sequence())
    before = path.read_bytes()
    with pytest.raises(InputError, match="exists already"):
        save_motion(path, sequence(times=True))
    assert path.read_bytes() == before
    save_motion(path, sequence(times=True), overwrite=True)
    assert load_motion(path, "abc", CONFIG).times is not None
    if suffix == ".npz":
        np.savez(other, weights=np.zeros(3))
    else:
        save_file({"weights": torch.zeros(3)}, other, {"format": "pt"})
    before = other.read_bytes()
    with pytest.raises(InputError, match="other"):
        save_motion(other, sequence(), overwrite=True)
    assert other.read_bytes() == before


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_what_the_matrices_are_follows_from_the_checkpoint(suffix, tmp_path):
    made = sequence()
    save_motion(tmp_path / f"m{suffix}", made)
    config = replace(CONFIG, estimator=HeatmapEstimatorConfig(name="mraa"))
    assert load_motion(tmp_path / f"m{suffix}", made.checkpoint, config).motion.kind == "axes"
