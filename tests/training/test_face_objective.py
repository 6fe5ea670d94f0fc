"""The objective of the preset face, in each of its phases, on a network as small as it goes."""

from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest
import torch
from elsewhere import elsewhere
from tiny import MODEL as TINY

from mtanimate.config import AugmentationConfig, HRNetConfig, LossConfig, TransformConfig, load_preset
from mtanimate.data.augmentation import Recipe, draw_colour, draw_windows
from mtanimate.data.loading import Batch, collate
from mtanimate.data.pairs import Pair
from mtanimate.models.animator import Animator
from mtanimate.models.losses.face import close_ups, contour_points
from mtanimate.models.losses.motion import Transform
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
    terms = {"token_landmarks", "pixel", "landmarks", "expression", "still", "painting", "warped"}
    assert set(outcome.terms) == terms
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


CLOSE = replace(LOSS, window=0, painting=0, close_up=1.0)
FREE = LossConfig(perceptual=0, pixel=10, anchor=1.0, equivariance_keypoints=1, equivariance_affine=1, mask=1)


def on_meta(given):
    """The same without values."""
    if isinstance(given, torch.Tensor):
        return given.to("meta")
    if isinstance(given, tuple):
        return tuple(map(on_meta, given))
    if is_dataclass(given):
        return replace(given, **{field.name: on_meta(getattr(given, field.name)) for field in fields(given)})
    return given


@pytest.mark.parametrize(
    ("model", "loss", "phase"),
    [
        pytest.param(model, loss, phase, id=f"{name}-{phase}", marks=() if quick else pytest.mark.slow)
        for name, model, loss in (("face", MODEL, LOSS), ("close", MODEL, CLOSE), ("free", TINY, FREE))
        for phase in Phase
        for quick in [name == "free" or phase is Phase.FULL]
    ],
)
def test_no_step_waits_for_the_gpu(model, loss, phase):
    """From the batch to the gradients; `meta` stands for the GPU. What is kept on the device is there from the second
    step on."""
    animator = Animator(model).train().to("meta")
    objective = Objective(replace(loss, both_directions=True))
    given = on_meta(replace(batch(), faces=(torch.tensor([1]), torch.tensor([0, 1]))))
    objective(animator, given, phase)
    with elsewhere() as found:
        terms = objective(animator, given, phase).terms
        sum(terms.values()).backward()
    assert all(term.device.type == "meta" for term in terms.values())
    assert found == []


@pytest.mark.parametrize("both_directions", [False, True])
def test_close_ups_are_of_the_pictures_that_have_a_face(both_directions, animator):
    """As if the others were not in the batch; driving frames come first."""
    given = batch()
    given.landmarks[0, 0] = given.landmarks[1, 1] = torch.nan  # a source, and another pair's driving frame
    given = replace(given, faces=(torch.tensor([1]), torch.tensor([0])))
    loss = replace(CLOSE, both_directions=both_directions, pixel=1, still=0)
    outcome = Objective(loss)(animator.eval(), given, Phase.FULL)
    scene = outcome.scene
    meshes = contour_points(torch.cat([given.landmarks[1], given.landmarks[0]])[: len(scene.driving)])
    seen = ~meshes.isnan().flatten(1).any(dim=1)
    assert seen.tolist() == [True, False, False, True][: len(scene.driving)]
    everyone = torch.arange(int(seen.sum()))
    fake, real = (close_ups(pictures[seen], meshes[seen], everyone) for pictures in (scene.prediction, scene.driving))
    assert torch.equal(outcome.terms["close_up"], (fake - real).abs().mean())


def test_a_batch_knows_which_pictures_have_a_face():
    pictures = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    config = AugmentationConfig()
    pairs = []
    for faces in ((True, True), (False, True), (True, False)):
        random = np.random.default_rng(0)
        landmarks = torch.stack([torch.zeros(478, 2) if face else torch.full((478, 2), torch.nan) for face in faces])
        recipe = Recipe(draw_windows(config, False, 4, random), draw_colour(config, random))
        transform = Transform.random(random, TransformConfig())
        pairs.append(Pair(pictures, recipe, transform, landmarks, "clip", []))
    of_sources, of_driving = collate(pairs).augmented().faces
    assert (of_sources.tolist(), of_driving.tolist()) == ([0, 2], [0, 1])
    assert collate([replace(pair, landmarks=None) for pair in pairs]).augmented().faces is None


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
        for term in ("token_landmarks", "expression", "still", "window", "painting", "warped"):
            assert getattr(config.loss, term) == getattr(defaults, term) == 0
        assert config.data.differing == config.data.augmentation.gaze == 0
        assert config.model.estimator.motion_kind == "parts"
        assert not config.model.dense_motion.prior
        assert not config.model.generator.openings
