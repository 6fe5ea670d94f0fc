"""Attention, flow and whole figures: the right colour at the right place."""

import numpy as np
import pytest
import torch
from golden import close
from matplotlib import colormaps
from PIL import Image

from mtanimate.geometry import coordinate_grid
from mtanimate.inspection.attention_maps import (
    HIGHEST,
    LOWEST,
    OPACITY,
    TokenTable,
    cell_size,
    colour_bar,
    matrix_pictures,
    matrix_sheet,
    overlay,
    paint,
)
from mtanimate.inspection.drawing import (
    FAR,
    Canvas,
    axis_scale,
    colour_flow,
    colour_wheel,
    draw_arrows,
    draw_motion,
    token_colours,
)
from mtanimate.inspection.scene import scene_pictures, scene_sheet
from mtanimate.models.dense_motion import DenseMotion
from mtanimate.models.motion import Motion


def test_the_scale_of_attention():
    ends = paint(torch.tensor([0, 2.0**LOWEST, 2.0**HIGHEST, 1e9]))
    first, last = ((np.array(colormaps["inferno"](at)[:3]) * 255).round() for at in (0, 255))
    assert ends.tolist() == [first.tolist(), first.tolist(), last.tolist(), last.tolist()]
    middle = paint(torch.tensor([2.0 ** ((LOWEST + HIGHEST) / 2)]))[0]
    assert np.abs(middle - np.array(colormaps["inferno"](0.5)[:3]) * 255).max() <= 2


@pytest.mark.parametrize("patches", [8, 16, 24])
@pytest.mark.parametrize("side", [64, 136, 200])
def test_a_resized_map_keeps_its_peak(patches, side):
    generator = torch.Generator().manual_seed(patches + side)
    maps = 4 * torch.rand(5, patches, patches, generator=generator)
    peaks = torch.randint(patches**2, (5, 1), generator=generator)
    maps.view(5, -1).scatter_(1, peaks, 12)
    drawn = overlay(np.full((side, side), 100, np.uint8), maps).astype(int).sum(axis=3)
    for peak, picture in zip(peaks, drawn, strict=True):
        row, column = divmod(int(peak), patches)
        rows, columns = np.nonzero(picture == picture.max())
        assert abs((rows.mean() + 0.5) / side * patches - (row + 0.5)) < 1
        assert abs((columns.mean() + 0.5) / side * patches - (column + 0.5)) < 1


def test_the_picture_shows_through():
    picture = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    drawn = overlay(picture, torch.ones(1, 8, 8))[0].astype(float)
    for channel in range(3):
        assert np.corrcoef(drawn[..., channel].ravel(), picture.ravel())[0, 1] > 0.999
    assert np.ptp(drawn[..., 0]) >= 0.9 * (1 - OPACITY) * np.ptp(picture)


def test_the_colour_bar_has_the_colours_of_the_maps():
    (_, top, strip), labels = colour_bar(10, 20, 400, opaque=True)
    places = {label.text: label.y for label in labels}
    for text, value in (("1", 1), ("4", 4), ("½", 0.5)):
        shown = strip[round(places[text] - top), 5].astype(int)
        assert np.abs(shown - paint(torch.tensor([value]))[0].astype(int)).max() <= 3


def test_flow_is_the_way_things_went():
    """Everything was 0.1 further left in the source: it moved to the right."""
    flow = coordinate_grid(16, 16, like=torch.zeros(()))[None] - torch.tensor([0.1, 0])
    shown = colour_flow(flow, (32, 32))[0, :, 16, 16]
    wheel = colour_wheel(201)
    right = wheel[100, round(100 + 100 / 1.05 * 0.1 / FAR)] / 255
    close(shown, torch.from_numpy(right).float(), atol=0.02)
    still = colour_flow(coordinate_grid(16, 16, like=torch.zeros(()))[None], (16, 16))
    close(still, torch.ones_like(still), atol=0.01)
    hues = [wheel[100, 190], wheel[190, 100], wheel[100, 10], wheel[10, 100]]  # right, down, left, up
    assert min(np.abs(a.astype(int) - b).max() for i, a in enumerate(hues) for b in hues[:i]) > 40


def test_arrows_end_where_things_are():
    flow = coordinate_grid(12, 12, like=torch.zeros(())).clone()
    flow[6, 2, 0] -= 0.3  # what is in this cell came from 0.15 of the side further left
    dark = np.nonzero(draw_arrows(np.full((240, 240, 3), 255, np.uint8), flow).min(axis=2) < 120)
    head = ((2 + 0.5) * 20, (6 + 0.5) * 20)
    assert abs(dark[1].max() - head[0]) <= 2
    assert abs(dark[1].min() - (head[0] - 36)) <= 2
    assert abs(dark[0].mean() - head[1]) <= 2


def test_ink_leaves_the_rest_alone():
    picture = np.full((40, 40, 3), 50, np.uint8)
    canvas = Canvas(picture)
    canvas.line((5, 5), (5, 35), (255, 0, 0), 3)
    drawn = canvas.picture()
    assert drawn[20, 5].tolist() == [255, 0, 0]
    assert (drawn[:, 10:] == 50).all()
    assert picture.max() == 50


@pytest.mark.parametrize(("kind", "both_ways"), [("parts", False), ("axes", True)])
def test_local_frames_are_the_columns_of_the_matrix(kind, both_ways):
    turned = torch.tensor([[[[0.0, -1.0], [2.0, 0.0]]]])  # (1, 0) goes down, twice as long; (0, 1) goes left
    motion = Motion(torch.zeros(1, 1, 2), turned, kind)
    drawn = draw_motion(np.zeros((257, 257, 3), np.uint8), motion, scale=0.3)
    colour = token_colours(1)[0] * 255

    def inked(x, y):
        return np.abs(drawn[128 + y, 128 + x] - colour.numpy()).max() < 40

    assert inked(0, 70)
    assert inked(-32, 0)
    assert inked(32, 0) == inked(0, -70) == both_ways


def test_axes_of_a_usual_part_have_one_length():
    matrices = torch.eye(2).repeat(1, 5, 1, 1) * torch.tensor([1, 2, 3, 4, 1e6])[:, None, None]
    assert axis_scale(Motion(torch.zeros(1, 5, 2), matrices)) * 3 == pytest.approx(0.16)


def rows_of(count, titles, side=None):
    table = TokenTable(list(range(count)), count, titles)
    side = table.side
    picture = np.full((side, side, 3), 90, np.uint8)
    maps = torch.full((len(titles), count, 4, 4), 2.0)
    return table, table.pictures(picture, torch.zeros(count, 2), torch.full((count, 8, 8), 0.5), maps)


@pytest.mark.parametrize(("count", "titles"), [(1, 1), (10, 1), (10, 8), (15, 12), (10, 96)])
def test_nothing_overlaps(count, titles):
    names = [f"layer {index + 1}" for index in range(titles)]
    table, pictures = rows_of(count, names)
    sheet = table.sheet()
    assert len(pictures) == len(sheet.boxes) == count * (2 + titles)
    taken = np.zeros((sheet.height, sheet.width), int)
    for (left, top), picture in zip(sheet.boxes, pictures, strict=True):
        taken[top : top + picture.shape[0], left : left + picture.shape[1]] += 1
    for left, top, picture in sheet.fixed:
        taken[top : top + picture.shape[0], left : left + picture.shape[1]] += 1
    assert taken.max() == 1
    assert taken.sum() == sum(each[..., 0].size for each in [*pictures, sheet.fixed[0][2]])
    written = sheet.blank().min(axis=2) < 250
    for left, top, picture in sheet.fixed:
        written[top : top + picture.shape[0], left : left + picture.shape[1]] = False
    assert not (written & (taken > 0)).any()  # no letter under a picture
    assert not written[0].any()
    assert not written[-1].any()
    assert not written[:, -1].any()
    assert not written[:, 0].any()


def test_masks_and_rows_have_their_tokens_colours():
    table, pictures = rows_of(3, ["layer 1"])
    blank = table.sheet().blank()
    for token, colour in enumerate(token_colours(3)):
        assert (np.abs(blank - (colour * 255).numpy()).max(axis=2) < 3).sum() > 50  # its badge
        tint = pictures[3 * token + 1][0, 0].astype(float) - (1 - OPACITY) * 90
        close(torch.from_numpy(tint / 255).float(), 0.5 * OPACITY * colour, atol=0.01)


def test_a_vector_figure_looks_the_same(tmp_path):
    table, pictures = rows_of(2, ["layer 1", "layer 2"])
    sheet = table.sheet()
    sheet.vector(tmp_path / "drawn.png", pictures, {"Title": "a title"})
    drawn = np.array(Image.open(tmp_path / "drawn.png").convert("RGB")).astype(int)
    assert np.abs(drawn - sheet.filled(sheet.blank(), pictures)).mean() < 1


def test_matrices():
    matrices = torch.ones(2, 4, 4)
    matrices[1, 2, 3] = 16
    tokens = [2, 0]
    sheet, pictures = matrix_sheet(tokens, 4, ["layer 1", "layer 2"]), matrix_pictures(matrices, tokens)
    cell = cell_size(4)
    assert pictures[0].shape == (2 * cell, 4 * cell, 3)
    bright = paint(torch.tensor([16.0]))[0]
    assert (pictures[1][:cell, 3 * cell :] == bright).all()
    assert (pictures[1] == bright).all(axis=2).sum() == cell**2
    assert len(sheet.boxes) == 2


@pytest.mark.parametrize("occlusion", [True, False])
def test_a_scene_of_one_source_and_several_driving_pictures(occlusion):
    torch.manual_seed(0)
    motions = Motion(torch.rand(3, 4, 2) - 0.5, torch.eye(2).expand(3, 4, 2, 2))
    flow = coordinate_grid(16, 16, like=torch.zeros(())).expand(3, 16, 16, 2)
    masks = torch.softmax(torch.randn(3, 5, 16, 16), dim=1)
    dense = DenseMotion(masks, flow, torch.rand(3, 1, 16, 16) if occlusion else None)
    source, driving = torch.rand(1, 3, 64, 64), torch.rand(3, 3, 64, 64)
    drawn = scene_pictures(source, driving, motions[:1], motions, dense, driving)
    assert ("occlusion" in drawn) == occlusion
    assert {len(pictures) for pictures in drawn.values()} == {3}
    assert {picture.shape for pictures in drawn.values() for picture in pictures} == {(64, 64, 3)}
    sheet = scene_sheet(list(drawn), 64, 4)
    assert len(sheet.boxes) == len(drawn)
