"""A network at work: half precision that fails is noticed, backgrounds can stand still."""

from dataclasses import replace

import pytest
import torch
from tiny import tiny_animator

from mtanimate.models.performer import Performer


@pytest.fixture
def pictures():
    return torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def spoiled(animator, value, monkeypatch):
    """The generator's output is `value` everywhere under autocast, as where half precision overflows."""
    render = animator.render

    def broken(source, motion, background=None):
        rendering = render(source, motion, background)
        if torch.is_autocast_enabled("cpu"):
            return replace(rendering, prediction=torch.full_like(rendering.prediction, value))
        return rendering

    monkeypatch.setattr(animator, "render", broken)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_a_batch_that_half_precision_spoils_is_computed_again(value, pictures, monkeypatch):
    animator = tiny_animator().eval()
    expected = Performer(animator, "fp32", print)
    source = expected.encode(pictures[:1])
    motion = expected.estimate(pictures)
    wanted = expected.drive(source, motion)
    said = []
    spoiled(animator, value, monkeypatch)
    performer = Performer(animator, "bf16", said.append)
    driven = performer.drive(performer.encode(pictures[:1]), motion)
    torch.testing.assert_close(driven, wanted, atol=1e-5, rtol=0)
    performer.drive(performer.encode(pictures[:1]), motion)
    assert performer.precision == "fp32"
    assert len(said) == 1  # once


def test_motion_that_half_precision_spoils_is_read_again(pictures, monkeypatch):
    animator = tiny_animator().eval()
    estimate = animator.estimate_motion
    wanted = estimate(pictures.float() / 255)

    def broken(frames):
        motion = estimate(frames)
        return replace(motion, affine=motion.affine * float("nan")) if torch.is_autocast_enabled("cpu") else motion

    monkeypatch.setattr(animator, "estimate_motion", broken)
    said = []
    read = Performer(animator, "fp16", said.append).estimate(pictures)
    torch.testing.assert_close(read.affine, wanted.affine, atol=1e-5, rtol=0)
    assert "fp16 gave values that are not finite" in said[0]


def test_keypoints_do_not_tremble_in_bf16(pictures):
    """bf16 has eight bits: the estimator stays in float32 with it."""
    read = [Performer(tiny_animator().eval(), precision, print).estimate(pictures) for precision in ("fp32", "bf16")]
    assert torch.equal(read[0].keypoints, read[1].keypoints)


def test_a_black_source_may_stay_black(pictures, monkeypatch):
    animator = tiny_animator().eval()
    spoiled(animator, 0.0, monkeypatch)
    performer = Performer(animator, "bf16", lambda line: None)
    performer.drive(performer.encode(torch.zeros_like(pictures[:1])), performer.estimate(pictures))
    assert performer.precision == "bf16"


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_locked_background_is_the_sources(share, pictures, monkeypatch):
    """share: of every pixel that the masks give to the background."""
    animator = tiny_animator().eval()
    dense_motion = animator.dense_motion.forward

    def masked(*arguments):
        dense = dense_motion(*arguments)
        masks = torch.zeros_like(dense.masks)
        masks[:, 0], masks[:, 1] = share, 1 - share
        return replace(dense, masks=masks)

    monkeypatch.setattr(animator.dense_motion, "forward", masked)
    performer = Performer(animator, "fp32", print)
    source, motion = performer.encode(pictures[:1]), performer.estimate(pictures)
    moved, locked = performer.drive(source, motion), performer.drive(source, motion, lock=True)
    expected = (pictures[:1].float() / 255).expand(4, -1, -1, -1) if share else moved
    torch.testing.assert_close(locked, expected, atol=1e-5, rtol=0)
