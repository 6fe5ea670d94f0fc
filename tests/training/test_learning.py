"""Steps of training: what they change, that they help, and at which rate."""

import pytest
import torch
from golden import close
from tiny import make_run, train, weights

from mtanimate.config import TrainingConfig
from mtanimate.training.run import schedule

# Learning


@pytest.mark.parametrize("phase", ["warmup", "full"])
def test_the_loss_falls(tmp_path, videos, phase):
    """Over 40 steps the mean of the last ten lies clearly below that of the first ten."""
    run = make_run(tmp_path, videos, steps=40, warmup_steps=40 if phase == "warmup" else 0, log_every=10)
    _, reports = train(run)
    pixel = [report.losses["pixel"] for report in reports]
    assert len(pixel) == 4
    assert pixel[-1] < 0.9 * pixel[0]


def test_warmup_leaves_the_generator_alone_and_the_full_phase_does_not(tmp_path, videos):
    run = make_run(tmp_path, videos, steps=2, warmup_steps=1)
    start = weights(run)
    run._step()
    after_warmup = weights(run)
    run._step()
    changed = {
        phase: {name.split(".")[0] for name, tensor in new.items() if not torch.equal(tensor, old[name])}
        for phase, old, new in (("warmup", start, after_warmup), ("full", after_warmup, weights(run)))
    }
    assert changed["warmup"] == {"motion_estimator", "dense_motion"}
    assert changed["full"] == {"motion_estimator", "dense_motion", "generator"}


def test_equivariance_steps_train_the_estimator_alone(tmp_path, videos):
    run = make_run(tmp_path, videos, steps=1, equivariance_steps=1, loss={"anchor": 10.0})
    start = weights(run)
    terms, outcome = run._step()
    assert set(terms) == {"equivariance_keypoints", "anchor"}
    assert outcome is None
    changed = {name.split(".")[0] for name, tensor in weights(run).items() if not torch.equal(tensor, start[name])}
    assert changed == {"motion_estimator"}


def test_half_precision_trains(tmp_path, videos):
    _, reports = train(make_run(tmp_path, videos, steps=2, precision="bf16"))
    assert 0 < reports[-1].losses["pixel"] < 10


def test_the_estimators_gradient_is_clipped(tmp_path, videos):
    run = make_run(tmp_path, videos, clip_gradient=1e-3)
    run._step()
    gradients = [parameter.grad for parameter in run.animator.motion_estimator.parameters()]
    norm = torch.sqrt(sum((gradient**2).sum() for gradient in gradients if gradient is not None))
    assert norm.item() == pytest.approx(1e-3, rel=1e-2)


# Directions


def test_both_directions_double_the_samples(tmp_path, videos):
    one = make_run(tmp_path / "one", videos, steps=2)
    two = make_run(tmp_path / "two", videos, steps=2, loss={"both_directions": True})
    train(one)
    train(two)
    assert one.state.samples == 2 * 4
    assert two.state.samples == 2 * 2 * 4


def test_both_directions_are_the_two_single_ones(tmp_path, videos):
    """In evaluation mode, so that batches do not share statistics."""
    run = make_run(tmp_path, videos, loss={"both_directions": True, "equivariance_keypoints": 0})
    single = make_run(tmp_path, videos, loss={"equivariance_keypoints": 0})
    animator = run.animator.eval().requires_grad_(False)
    source, driving = run.sampler.batch(3, torch.Generator().manual_seed(1))
    both = run.objective(animator, source, driving)
    there, back = single.objective(animator, source, driving), single.objective(animator, driving, source)
    close(both.prediction, torch.cat([there.prediction, back.prediction]))
    assert torch.equal(both.source, torch.cat([source, driving]))
    assert torch.equal(both.driving, torch.cat([driving, source]))
    close(both.terms["pixel"], (there.terms["pixel"] + back.terms["pixel"]) / 2)
    close(there.terms["pixel"], 10 * (there.prediction - driving).abs().mean())


# The learning rate


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
        run._step()
        rates.append(run.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.01, 0.00853553, 0.005], rel=1e-5)
