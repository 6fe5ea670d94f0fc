"""The objective of the preset face, in each of its phases, on a network as small as it goes."""

from dataclasses import replace

import pytest
import torch

from mtanimate.config import HRNetConfig, LossConfig, load_preset
from mtanimate.data.loading import Batch
from mtanimate.models.animator import Animator
from mtanimate.models.losses.equivariance import Transform
from mtanimate.training.objective import Objective, Phase

SIDE = 64
FACE = load_preset("face")
MODEL = replace(
    FACE.model,
    resolution=SIDE,
    estimator=replace(
        FACE.model.estimator,
        backbone=HRNetConfig(widths=(), stem_width=8, layer1_width=8, layer1_blocks=1),
        dim=32,
        layers=1,
        heads=2,
        scale_factor=1.0,
        refinement_width=4,
    ),
    dense_motion=replace(FACE.model.dense_motion, block_expansion=8, max_features=16, num_blocks=2),
    generator=replace(
        FACE.model.generator, block_expansion=8, max_features=16, num_down_blocks=1, num_bottleneck_blocks=1
    ),
)
LOSS = replace(FACE.loss, perceptual=0, window=32)


@pytest.fixture
def animator():
    torch.manual_seed(0)
    return Animator(MODEL).train()


def batch(faces: bool = True) -> Batch:
    random = torch.Generator().manual_seed(1)
    pictures = torch.rand(2, 2, 3, SIDE, SIDE, generator=random)
    meshes = torch.rand(2, 2, 478, 2, generator=random) - 0.5 if faces else torch.full((2, 2, 478, 2), torch.nan)
    people = torch.zeros(2, 2, 1, SIDE, SIDE)
    transform = Transform(torch.eye(2, 3).expand(2, 2, 3), torch.zeros(25, 2), torch.zeros(2, 25))
    return Batch(pictures[0], pictures[1], transform, meshes, people, [], [])


def gradients(animator, terms):
    animator.zero_grad()
    sum(terms.values()).backward()
    return {
        name: sum(p.grad.abs().sum().item() for p in module.parameters() if p.grad is not None)
        for name, module in animator.named_children()
    }


def test_the_estimator_learns_alone_what_it_is_tied_to(animator):
    outcome = Objective(LOSS)(animator, batch(), Phase.EQUIVARIANCE)
    assert set(outcome.terms) == {"token_landmarks"}
    found = gradients(animator, outcome.terms)
    assert found["motion_estimator"] > 0
    assert found["dense_motion"] == found["generator"] == 0


def test_the_motion_half_learns_from_flow_and_warped_source(animator):
    outcome = Objective(LOSS)(animator, batch(), Phase.WARMUP)
    assert set(outcome.terms) == {"token_landmarks", "pixel", "landmarks", "expression", "still"}
    found = gradients(animator, outcome.terms)
    assert found["dense_motion"] > 0
    assert found["generator"] == 0


def test_the_generator_learns_on_windows(animator):
    outcome = Objective(LOSS)(animator, batch(), Phase.FULL)
    assert set(outcome.terms) == {"token_landmarks", "pixel", "landmarks", "expression", "still", "painting"}
    assert outcome.scene.prediction.shape == outcome.scene.driving.shape == (4, 3, 32, 32)
    assert all(size > 0 for size in gradients(animator, outcome.terms).values())


def test_what_is_painted_learns_behind_an_occlusion_that_is_shut(animator):
    """Where all of the warped source is let through, the other terms say nothing to the generator's last layer."""
    assert animator.dense_motion.occlusion is not None
    torch.nn.init.constant_(animator.dense_motion.occlusion.bias, 200.0)  # 1, to the bit
    plain = Objective(replace(LOSS, painting=0))(animator, batch(), Phase.FULL)
    gradients(animator, plain.terms)
    assert animator.generator.final.weight.grad.abs().sum() == 0
    gradients(animator, Objective(LOSS)(animator, batch(), Phase.FULL).terms)
    assert animator.generator.final.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("phase", list(Phase))
def test_pictures_without_a_face_take_part_without_those_terms(animator, phase):
    terms = Objective(LOSS)(animator, batch(faces=False), phase).terms
    assert all(torch.isfinite(term) for term in terms.values())
    assert not any(terms[name] for name in ("token_landmarks", "landmarks", "expression") if name in terms)
    sum(terms.values()).backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in animator.parameters())


def test_the_papers_presets_know_nothing_of_it():
    defaults = LossConfig()
    for name in ("vox", "taichi", "ted", "mgif", "fomm", "small", "vox-release"):
        config = load_preset(name)
        for term in ("token_landmarks", "expression", "still", "window", "painting"):
            assert getattr(config.loss, term) == getattr(defaults, term) == 0
        assert config.data.differing == config.data.augmentation.gaze == 0
        assert config.model.estimator.motion_kind == "parts"
        assert not config.model.dense_motion.prior
