"""Keypoints, masks and grids: the right colour at the right place."""

import numpy as np
import pytest
import torch
from golden import close

from mtanimate.inspection.drawing import (
    colour_masks,
    draw_contours,
    draw_keypoints,
    draw_motion,
    token_colours,
)
from mtanimate.inspection.scene import GAP, HEADER, labelled_grid
from mtanimate.models.tpsmm import spline_motion


def test_colours_of_ten_tokens_differ():
    colours = token_colours(10)
    distances = torch.cdist(colours, colours) + 10 * torch.eye(10)
    assert distances.min() > 0.2
    close(token_colours(4), colours[:4])  # a token's colour does not depend on how many there are


@pytest.mark.parametrize(("x", "y", "column", "row"), [(-1, -1, 0, 0), (1, -1, 99, 0), (0, 1, 49, 49), (-1, 0, 0, 24)])
def test_a_keypoint_is_drawn_where_it_is(x, y, column, row):
    picture = np.zeros((50, 100, 3), np.uint8)
    drawn = draw_keypoints(picture, torch.tensor([[x, y]], dtype=torch.float32))
    close(torch.from_numpy(drawn[row, column]) / 255, token_colours(1)[0], atol=0.02)
    assert picture.max() == 0  # the picture given is left alone
    far = np.hypot(*np.meshgrid(np.arange(100) - column, np.arange(50) - row)) > 6
    assert drawn[far].max() == 0


def test_keypoints_outside_are_drawn_at_the_rim():
    picture = np.zeros((50, 50, 3), np.uint8)
    inside, outside = (draw_keypoints(picture, torch.tensor([[x, 0.0]])) for x in (1.0, 7.0))
    assert np.array_equal(inside, outside)


def test_masks_have_their_tokens_colours():
    masks = torch.zeros(1, 4, 2, 2)
    masks[0, 0, 0, 0] = masks[0, 1, 0, 1] = masks[0, 3, 1, 0] = 1
    masks[0, 2:, 1, 1] = 0.5
    painted = colour_masks(masks, (2, 2))[0]
    colours = token_colours(3)
    close(painted[:, 0, 0], torch.full((3,), 0.25))
    close(painted[:, 0, 1], colours[0])
    close(painted[:, 1, 0], colours[2])
    close(painted[:, 1, 1], (colours[1] + colours[2]) / 2)


def test_a_grid_has_its_pictures_in_place_and_titles_above():
    columns = {name: [np.full((40, 60, 3), 10 * c + r, np.uint8) for r in range(2)] for c, name in enumerate("ab")}
    sheet = labelled_grid(columns)
    assert sheet.shape == (HEADER + 2 * 40 + GAP, 2 * 60 + GAP, 3)
    for c in range(2):
        for r in range(2):
            top, left = HEADER + r * (40 + GAP), c * (60 + GAP)
            assert (sheet[top : top + 40, left : left + 60] == 10 * c + r).all()
        assert sheet[:HEADER, c * (60 + GAP) : c * (60 + GAP) + 60].min() < 100  # letters


def test_a_spline_has_one_colour_and_no_axes():
    picture = np.zeros((60, 60, 3), np.uint8)
    points = torch.tensor([[x, y] for y in (-0.5, 0.5) for x in (-0.8, -0.4, 0.0, 0.4, 0.8)])
    drawn = draw_motion(picture, spline_motion(points[None]), scale=0.5)
    for index, (x, y) in enumerate(points.tolist()):
        pixel = drawn[round((y + 1) / 2 * 59), round((x + 1) / 2 * 59)]
        close(torch.from_numpy(pixel) / 255, token_colours(2)[index // 5], atol=0.02)
    assert not drawn[25:35].any()  # where an axis would end


def test_contours_lie_where_a_part_ends():
    masks = torch.zeros(3, 8, 8)
    masks[0] = 0.5
    masks[1, 2:5, 2:5] = 1.0
    drawn = draw_contours(np.zeros((8, 8, 3), np.uint8), masks)
    colour = (token_colours(2)[0] * 255).round().to(torch.uint8).numpy()
    assert (drawn[2, 2:5] == colour).all()
    assert not drawn[3, 3].any()  # the part's inside stays as it is
    assert not drawn[5:].any()
