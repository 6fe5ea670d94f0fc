"""The checkpoint that ships: whole, described, and better than doing nothing on people it has never seen."""

import hashlib

import pytest
import torch
from commands import moving_disc
from golden import SHARED

import mtanimate
from mtanimate.checkpoints.file import read_metadata
from mtanimate.checkpoints.registry import entries, resolve
from mtanimate.video import VideoReader
from mtanimate.video.crop import resize_frames

TEST_CLIPS = SHARED / "data" / "talking-heads" / "test"


def test_it_is_what_the_registry_says():
    file = resolve("default")
    assert file.stat().st_size < 40 * 2**20
    (entry,) = [entry for entry in entries().values() if entry.file == file]
    assert hashlib.sha256(file.read_bytes()).hexdigest() == entry.sha256


def test_its_metadata_says_where_it_comes_from():
    metadata = read_metadata(resolve("default"))
    assert int(metadata["about.samples"]) > 10_000
    assert "research" in metadata["about.licence"]
    assert metadata["about.data"]


@pytest.fixture(scope="module")
def animator():
    return mtanimate.load("default", device="cpu")


@torch.inference_mode()
def test_a_picture_driven_by_itself_stays_itself(animator):
    """Also of something that is no face."""
    picture = resize_frames(moving_disc(1, 256), animator.config.resolution).float() / 255
    source = animator.encode_source(picture)
    assert (animator.drive(source, source.motion) - picture).abs().mean() < 0.05


@pytest.mark.skipif(not TEST_CLIPS.is_dir(), reason=f"no test clips at {TEST_CLIPS}")
@torch.inference_mode()
def test_unseen_people_are_reconstructed_better_than_by_repeating_the_first_frame(animator):
    ours, repeated = [], []
    for path in sorted(TEST_CLIPS.glob("*.mp4"))[::5]:
        reader = VideoReader(path)
        chosen = reader.frames(range(0, reader.frame_count, 16))
        frames = resize_frames(chosen, animator.config.resolution).float() / 255
        predictions = animator.drive(animator.encode_source(frames[:1]), animator.estimate_motion(frames[1:]))
        ours.append((predictions - frames[1:]).abs().mean())
        repeated.append((frames[:1] - frames[1:]).abs().mean())
    assert len(ours) == 8
    assert sum(ours) < 0.9 * sum(repeated)
