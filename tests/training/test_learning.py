"""Steps of training: what they change, that they help, and at which rate."""

from dataclasses import replace

import pytest
import torch
from golden import close
from tiny import make_run, take_steps, train, weights

from mtanimate.config import TrainingConfig
from mtanimate.data.loading import Batch
from mtanimate.errors import InputError
from mtanimate.faces.mesh import VERTICES
from mtanimate.models.losses.face import close_ups, contour_points, landmark_loss
from mtanimate.training.objective import Objective, Phase
from mtanimate.training.step import phase_of, schedule

# Learning


@pytest.mark.parametrize("phase", ["warmup", "full"])
def test_the_loss_falls(tmp_path, videos, phase):
    """Over 30 steps the mean of the last ten lies clearly below that of the first ten."""
    run = make_run(tmp_path, videos, steps=30, checkpoint_every=30, warmup_steps=30 if phase == "warmup" else 0)
    _, reports = train(run)
    pixel = torch.tensor([report.losses["pixel"] for report in reports]).view(3, 10).mean(dim=1)
    assert pixel[-1] < 0.9 * pixel[0]


def test_warmup_leaves_the_generator_alone_and_the_full_phase_does_not(tmp_path, videos):
    run = make_run(tmp_path, videos, steps=2, warmup_steps=1)
    start = weights(run)
    take_steps(run, 1)
    after_warmup = weights(run)
    take_steps(run, 1)
    changed = {
        phase: {name.split(".")[0] for name, tensor in new.items() if not torch.equal(tensor, old[name])}
        for phase, old, new in (("warmup", start, after_warmup), ("full", after_warmup, weights(run)))
    }
    assert changed["warmup"] == {"motion_estimator", "dense_motion"}
    assert changed["full"] == {"motion_estimator", "dense_motion", "generator"}


def test_equivariance_steps_train_the_estimator_alone(tmp_path, videos):
    run = make_run(tmp_path, videos, steps=1, equivariance_steps=1, loss={"anchor": 10.0})
    start = weights(run)
    (step,) = take_steps(run, 1)
    assert set(step.terms) == {"equivariance_keypoints", "anchor"}
    assert step.scene is None
    changed = {name.split(".")[0] for name, tensor in weights(run).items() if not torch.equal(tensor, start[name])}
    assert changed == {"motion_estimator"}


def test_half_precision_trains(tmp_path, videos):
    half = make_run(tmp_path, videos, run_precision="bf16", steps=2)
    _, reports = train(half)
    _, exact = train(make_run(tmp_path / "exact", videos, steps=2))
    assert reports[0].losses["pixel"] != exact[0].losses["pixel"]
    assert reports[0].losses["pixel"] == pytest.approx(exact[0].losses["pixel"], rel=0.05)


def test_the_estimators_gradient_is_clipped_and_its_length_told(tmp_path, videos):
    run = make_run(tmp_path, videos, clip_gradient=1e-3)
    (step,) = take_steps(run, 1)
    gradients = [parameter.grad for parameter in run.trainer.animator.motion_estimator.parameters()]
    norm = torch.sqrt(sum((gradient**2).sum() for gradient in gradients if gradient is not None))
    assert norm.item() == pytest.approx(1e-3, rel=1e-2)
    assert step.gradient_norm > 1e-3  # of the whole network, before clipping


def test_accumulated_parts_are_one_batch(tmp_path, videos):
    """In evaluation mode, so that parts do not have statistics of their own."""
    norms = []
    for parts in (1, 2, 4):
        run = make_run(tmp_path / str(parts), videos, accumulate=parts, clip_gradient=0)
        run.trainer.module.eval()
        run.trainer.module.train = lambda mode=True: None
        (step,) = take_steps(run, 1)
        norms.append(step.gradient_norm)
    assert norms == pytest.approx([norms[0]] * 3, rel=1e-4)


@pytest.mark.parametrize("part", ["backbone", "generator", "motion_estimator"])
def test_frozen_parts_stay_as_they_are(tmp_path, videos, part):
    run = make_run(tmp_path, videos, steps=2, freeze=(part,))
    start = weights(run)
    train(run)
    inside = "motion_estimator.backbone." if part == "backbone" else f"{part}."
    changed = {name for name, tensor in weights(run).items() if not torch.equal(tensor, start[name])}
    assert not any(name.startswith(inside) for name in changed)
    assert any(name.startswith("dense_motion.") for name in changed)


def test_nothing_left_to_train_is_said(tmp_path, videos):
    parts = ("motion_estimator", "dense_motion", "generator", "background_predictor")
    with pytest.raises(InputError, match="nothing is left to train"):
        make_run(tmp_path, videos, freeze=parts)


# Directions


def test_both_directions_are_the_two_single_ones(tmp_path, videos):
    """In evaluation mode, so that batches do not share statistics."""
    run = make_run(tmp_path, videos, loss={"equivariance_keypoints": 0})
    animator = run.trainer.animator.eval().requires_grad_(False)
    config = run.config.loss
    single, double = Objective(config), Objective(replace(config, both_directions=True))
    batch = next(run._load()).augmented()
    turned = Batch(batch.driving, batch.source, batch.transform, None, None, [], [])
    both, there, back = double(animator, batch), single(animator, batch), single(animator, turned)
    close(both.scene.prediction, torch.cat([there.scene.prediction, back.scene.prediction]))
    assert torch.equal(both.scene.source, torch.cat([batch.source, batch.driving]))
    assert torch.equal(both.scene.driving, torch.cat([batch.driving, batch.source]))
    close(both.terms["pixel"], (there.terms["pixel"] + back.terms["pixel"]) / 2)
    close(there.terms["pixel"], 10 * (there.scene.prediction - batch.driving).abs().mean())


# Landmarks


def test_landmarks_add_their_terms_in_both_directions(tmp_path, videos):
    run = make_run(tmp_path, videos, loss={"equivariance_keypoints": 0, "both_directions": True})
    animator = run.trainer.animator.eval()
    batch = next(run._load()).augmented()
    faces = torch.rand(2, len(batch.source), VERTICES, 2, generator=torch.Generator().manual_seed(0)) * 1.2 - 0.6
    batch = replace(batch, landmarks=faces, faces=(torch.arange(len(batch.source)),) * 2)
    plain = Objective(run.config.loss)(animator, batch)
    close_by = Objective(replace(run.config.loss, landmarks=2, close_up=0.5))(animator, batch)
    assert close_by.terms.keys() - plain.terms.keys() == {"landmarks", "close_up"}
    scene = close_by.scene
    sources, driving = contour_points(faces).flatten(0, 1), contour_points(faces).flip(0).flatten(0, 1)
    away = landmark_loss(scene.dense.flow, sources, driving)
    close(close_by.terms["landmarks"], 2 * away)
    everyone = torch.arange(len(driving))
    fake, real = (close_ups(pictures, driving, everyone) for pictures in (scene.prediction, scene.driving))
    close(close_by.terms["close_up"], 0.5 * 10 * (fake - real).abs().mean())
    nobody = Objective(replace(run.config.loss, landmarks=2, close_up=0.5))(
        animator, replace(batch, landmarks=torch.full_like(faces, torch.nan), faces=(everyone[:0],) * 2)
    )
    assert nobody.terms["landmarks"] == nobody.terms["close_up"] == 0
    sum(nobody.terms.values()).backward()
    assert all(tensor.grad is None or tensor.grad.isfinite().all() for tensor in animator.parameters())


# The learning rate and the phases


def test_phases_follow_one_another():
    config = TrainingConfig(equivariance_steps=2, warmup_steps=3)
    phases = [phase_of(config, step) for step in range(7)]
    assert phases == [Phase.EQUIVARIANCE] * 2 + [Phase.WARMUP] * 3 + [Phase.FULL] * 2


def test_milestones_divide_by_ten():
    config = TrainingConfig(milestones=(0.6, 0.9))
    factors = [schedule(config, step, 100) for step in (0, 59, 60, 89, 90, 99)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_cosine_falls_to_zero():
    config = TrainingConfig(schedule="cosine")
    factors = [schedule(config, step, 100) for step in (0, 25, 50, 75, 100)]
    assert factors == pytest.approx([1, 0.853553, 0.5, 0.146447, 0], abs=1e-6)


def test_ramp_rises_to_the_full_rate():
    config = TrainingConfig(ramp_steps=4)
    assert [schedule(config, step, 1000) for step in range(6)] == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])


def test_the_optimiser_gets_the_scheduled_rate(tmp_path, videos):
    run = make_run(tmp_path, videos, steps=4, schedule="cosine", learning_rate=0.01)
    rates = []
    for _ in range(3):
        take_steps(run, 1)
        rates.append(run.trainer.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.01, 0.00853553, 0.005], rel=1e-5)
