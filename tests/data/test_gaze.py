"""Eyes that look elsewhere: the picture, its landmarks, and what stays."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtanimate.data.augmentation import Recipe, augment, carry
from mtanimate.data.warps import Glance
from mtanimate.geometry import coordinate_grid

SIDE = 256


def mesh(apart: float = 0.5) -> np.ndarray:
    """Eyes `apart` from outer corner to outer corner, irises in their middles, all else at the chin."""
    points = np.zeros((478, 3), np.float32)
    points[:, 1] = 0.8
    for vertex, x in ((33, -0.5), (263, 0.5), (468, -0.35), (473, 0.35)):
        points[vertex, :2] = apart * x, -0.1
    return points


def glance(apart: float = 0.5, seed: int = 0) -> tuple[Glance, torch.Tensor]:
    meshes = np.stack([mesh(apart)] * 2)
    drawn = Glance.draw(meshes, np.random.default_rng(seed))
    assert drawn is not None
    return drawn, torch.from_numpy(meshes[:, :, :2])


def recipe(drawn: Glance | None) -> Recipe:
    colour = torch.stack([torch.eye(3), torch.zeros(3, 3)])
    return Recipe(torch.eye(2, 3).expand(2, 2, 3), colour, glance=drawn)


def dots(places: torch.Tensor) -> torch.Tensor:
    """A dark dot at each of `places` (2, N, 2): (2, 1, 3, R, R) uint8."""
    grid = coordinate_grid(SIDE, SIDE, places)
    near = (grid[None, None] - places[:, :, None, None]).norm(dim=-1).amin(dim=1) < 0.01
    return (255 * (1 - near.float()))[:, None, None].expand(-1, -1, 3, -1, -1).to(torch.uint8)


def middle(picture: torch.Tensor, about: torch.Tensor) -> torch.Tensor:
    """Of what is dark near a place."""
    grid = coordinate_grid(SIDE, SIDE, picture)
    dark = (1 - picture[0]) * ((grid - about).norm(dim=-1) < 0.08)
    return (dark[..., None] * grid).sum(dim=(0, 1)) / dark.sum()


@pytest.mark.parametrize("seed", range(5))
def test_irises_are_where_their_landmarks_go(seed):
    drawn, places = glance(seed=seed)
    irises = places[:, [468, 473]]
    moved = carry(places, recipe(drawn))[:, [468, 473]]
    assert (moved - irises).norm(dim=-1).max() > 0.002
    pictures, _ = augment(dots(irises), Recipe.stack([recipe(drawn)]))
    for frame in range(2):
        for eye in range(2):
            found = middle(pictures[frame, 0], moved[frame, eye])
            assert (found - moved[frame, eye]).norm() < 0.004  # half a pixel


def test_each_frame_looks_its_own_way_and_both_eyes_the_same():
    drawn, places = glance()
    shift = carry(places, recipe(drawn)) - places
    torch.testing.assert_close(shift[:, 468], shift[:, 473])
    assert (shift[0, 468] - shift[1, 468]).norm() > 0.001


@given(st.floats(0.2, 1.0), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_nothing_folds_and_the_face_stays(apart, seed):
    drawn, places = glance(apart, seed)
    moved = carry(places, recipe(drawn))
    assert (moved[:, 152] - places[:, 152]).abs().max() < 1e-4
    assert ((moved[:, 468] - places[:, 468]).norm(dim=-1) <= 0.06 * apart).all()
    stacked = Recipe.stack([recipe(drawn)]).glance
    origins = stacked.origins(coordinate_grid(SIDE, SIDE, places).expand(2, -1, -1, -1))
    assert (origins[:, :, 1:, 0] > origins[:, :, :-1, 0]).all()
    assert (origins[:, 1:, :, 1] > origins[:, :-1, :, 1]).all()
    assert (origins[:, 0] == coordinate_grid(SIDE, SIDE, places)[0]).all()


def test_faces_that_were_not_found_look_where_they_looked():
    lost = np.stack([mesh(), np.full_like(mesh(), np.nan)])
    assert Glance.draw(lost, np.random.default_rng(0)) is None
    drawn, places = glance()
    pictures = dots(places[:, [468, 473]]).expand(-1, 2, -1, -1, -1)
    both, _ = augment(pictures, Recipe.stack([recipe(drawn), recipe(None)]))
    torch.testing.assert_close(both[:, 1], pictures[:, 1] / 255)
    assert (both[:, 0] - pictures[:, 0] / 255).abs().max() > 0.5
