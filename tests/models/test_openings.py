"""Eyes and mouth as openings: their edges, what is inside, and what a generator is told of them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtanimate.config import load_preset, override
from mtanimate.errors import InputError
from mtanimate.models.animator import Animator
from mtanimate.models.face_points import OPENING_MAPS, OPENINGS, VERTICES, Openings, canonical_points
from tests.models.test_face import face


def points(**moved: tuple[float, float]) -> torch.Tensor:
    """A face's usual places (1, K, 2), but for those that are `moved`, v13=(x, y)."""
    own = canonical_points().clone()
    for vertex, (x, y) in moved.items():
        own[VERTICES.index(int(vertex[1:]))] += torch.tensor([x, y])
    return own[None]


def at(*spots: tuple[float, float]) -> torch.Tensor:
    return torch.tensor(spots)[None, None]


offsets = st.tuples(st.floats(-0.02, 0.02), st.floats(-0.05, 0.05))


@settings(max_examples=50, deadline=None)
@given(st.lists(offsets, min_size=12, max_size=12))
def test_edges_go_through_corners_and_middles(moved):
    vertices = [vertex for opening in OPENINGS for vertex in opening]
    own = points(**{f"v{vertex}": shift for vertex, shift in zip(vertices, moved, strict=True)})
    for number, (left, upper, lower, right) in enumerate(OPENINGS):
        for vertex in (left, upper, right):
            below, _ = Openings(own).depths(own[:, None, [VERTICES.index(vertex)]])
            assert below[0, number].abs() < 1e-5
        for vertex in (left, lower, right):
            _, above = Openings(own).depths(own[:, None, [VERTICES.index(vertex)]])
            assert above[0, number].abs() < 1e-5


def test_beyond_a_corner_nothing_is_inside():
    beyond = at((-0.6, -0.01), (0.0, 0.0), (0.35, 0.77), (-0.35, 0.77), (0.0, -0.3), (0.0, 1.2))
    assert Openings(points()).inside(beyond).max() == 0


@given(st.floats(0, 0.3))
@settings(max_examples=30, deadline=None)
def test_a_mouth_is_inside_as_far_as_it_is_open(opened):
    own = points(v14=(0, opened))
    height = torch.linspace(0.6, 1.3, 141)
    column = torch.stack([torch.zeros_like(height), height], dim=1)[None, None]
    inside = Openings(own).inside(column)[0, 2, 0]
    gap = 0.087 + opened
    assert (inside > 0.5).sum() * 0.005 == pytest.approx(gap - 0.02, abs=0.011)
    assert not inside[(height < 0.735) | (height > 0.822 + opened)].any()


def test_a_shut_eye_has_no_inside():
    shut = points(v159=(0, 0.094), v386=(0, 0.094))
    spots = 1.6 * torch.rand(1, 1, 4096, 2, generator=torch.Generator().manual_seed(0)) - 0.8
    assert Openings(points()).inside(spots)[:, :2].amax() == 1
    assert Openings(shut).inside(spots)[:, :2].amax() < 0.1


def test_points_on_one_another_give_numbers():
    """A profile, or a face that is none: corners beside the middle, or on its wrong side."""
    for own in (torch.zeros(1, len(VERTICES), 2), -canonical_points()[None]):
        assert Openings(own).inside(at((0.0, 0.0), (0.3, 0.7))).isfinite().all()


@pytest.fixture(scope="module")
def network() -> Animator:
    torch.manual_seed(0)
    return Animator(load_preset("face").model).eval()


def test_where_a_mouth_opens_the_source_is_trusted_less(network):
    source, driving = face(v13=(0, 0.043), v14=(0, -0.043)), face(v14=(0, 0.25))
    reduced = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        rest = network.dense_motion(reduced, source, source)
        opened = network.dense_motion(reduced, source, driving)
    unlike = opened.openings[0, 0]
    mouth = opened.openings[0, 3]
    assert rest.openings[0, 0].amax() < 1e-3
    assert unlike[mouth > 0.9].mean() > 0.8
    assert unlike[mouth == 0].mean() < 0.02
    lost = (rest.occlusion - opened.occlusion)[0, 0]
    assert lost[mouth > 0.9].mean() > 0.2 + lost[mouth == 0].mean()


def test_the_generator_learns_from_the_openings(network):
    source, driving = face(), face(v14=(0, 0.25))
    picture = torch.rand(1, 3, 256, 256)
    encoded = network.encode_source(picture, source)
    rendering = network.render(encoded, driving)
    assert rendering.motion.openings.shape == (1, OPENING_MAPS, 128, 128)
    rendering.prediction.square().mean().backward()
    for layer in network.generator.opened:
        assert layer.weight.grad.abs().sum() > 0
    network.zero_grad()


def test_openings_need_a_face():
    with pytest.raises(InputError, match="openings"):
        override(load_preset("small"), ["model.generator.openings=true"])
