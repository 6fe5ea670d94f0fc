"""Frames at the source's own size: as sharp as the photograph, and in the right place."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mtanimate.faces.detection import Square, resize_frames
from mtanimate.geometry import coordinate_grid
from mtanimate.inference.enlargement import MIDDLE, Layers, SourcePixels, at_rest, take_apart
from mtanimate.models.dense_motion import DenseMotion

SIDE, CELLS = 64, 32  # of the network


def _photograph(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Noise of all frequencies: any pixel out of place shows."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _smooth(width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 19 + phase) * np.cos(y / 23 - phase) for phase in (0, 1, 2)]
    return (127 + 90 * np.stack(waves, -1)).round().astype(np.uint8)


def _seen(picture: np.ndarray, square: Square) -> Tensor:
    """What the network sees of a square: (1, 3, SIDE, SIDE) in [0, 1]."""
    return resize_frames(square.cut(picture)[None], SIDE).float() / 255


def _flow(x: float = 0.0, y: float = 0.0, *, exact: bool = True) -> Tensor:
    """A flow that moves everything by so many widths of the square: (1, CELLS, CELLS, 2)."""
    grid = coordinate_grid(CELLS, CELLS, like=torch.zeros(1))[None]
    if not exact:  # published networks' grids and sampling do not agree: this is what stands still
        grid = grid * (CELLS - 1) / CELLS
    return grid + 2 * torch.tensor([x, y]) * (SIDE / (SIDE - 1) if exact else 1)


def _layers(picture: Tensor, flow: Tensor, occlusion: float | None = 1.0, *, exact: bool = True) -> Layers:
    seen = None if occlusion is None else torch.full((1, 1, CELLS, CELLS), occlusion)
    motion = DenseMotion(torch.ones(1, 1, CELLS, CELLS), flow, seen, exact)
    return take_apart(picture, motion.warp(picture), motion)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("occlusion", [1.0, None])
@pytest.mark.parametrize("side", [100, 65, 200])
def test_what_does_not_move_is_the_photograph_to_the_bit(side: int, occlusion: float | None, exact: bool) -> None:
    picture = _photograph(260, 230)
    square = Square(31, 17, side)
    source = _seen(picture, square)
    layers = _layers(source, _flow(exact=exact), occlusion, exact=exact)
    if not exact:  # the network's own picture is enlarged a little; here it is to stand still
        layers = at_rest(source, layers)
    frame = SourcePixels(picture, square, side).render(layers)
    assert frame.dtype == np.uint8
    assert (frame[0] == square.cut(picture)).all()


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(("x", "y"), [(0.1, 0.0), (0.0, -0.07), (-0.05, 0.03)])
def test_what_moves_is_read_from_the_right_place(x: float, y: float, exact: bool) -> None:
    """By whole pixels of the photograph, so that not a bit may differ."""
    picture, square = _photograph(400, 400), Square(100, 100, 200)
    source = _seen(picture, square)
    layers = _layers(source, _flow(x, y, exact=exact), exact=exact)
    opened = Layers(
        layers.prediction,
        torch.full_like(source, MIDDLE),
        torch.ones_like(layers.gate),
        layers.movement,
        layers.inset,
    )
    frame = SourcePixels(picture, square, 200).render(opened)[0].astype(int)
    moved = Square(100 + round(200 * x), 100 + round(200 * y), 200).cut(picture)
    assert np.abs(frame - moved).max() <= 1


def test_what_enters_comes_from_around_the_square() -> None:
    """A quarter of the square's side lies ready; beyond it, and beyond the photograph, the edge repeats."""
    picture = _smooth(300, 300)
    square = Square(100, 100, 100)
    layers = at_rest(_seen(picture, square), _layers(_seen(picture, square), _flow()))
    shifted = Layers(
        layers.prediction, layers.painted, layers.gate, layers.movement + torch.tensor([0.2, 0.0])[:, None, None],
        layers.inset,
    )  # fmt: skip
    frame = SourcePixels(picture, square, 100).render(shifted)[0].astype(int)
    assert np.abs(frame - Square(120, 100, 100).cut(picture)).max() <= 1
    corner = Square(200, 200, 100)
    frame = SourcePixels(picture, corner, 100).render(shifted)[0].astype(int)
    assert np.abs(frame[:, :80] - corner.cut(picture)[:, 20:]).max() <= 1
    assert (frame[:, 80:] == frame[:, 80:81]).all()


@pytest.mark.parametrize("exact", [True, False])
def test_at_the_networks_size_it_is_the_networks_picture(exact: bool) -> None:
    """But for rounding, and for detail that the flow may not carry."""
    picture, square = _smooth(SIDE, SIDE), Square(0, 0, SIDE)
    source = _seen(picture, square)
    grid = _flow(exact=exact)
    bent = grid + 0.05 * torch.sin(3 * grid.flip(-1))
    occlusion = torch.linspace(0, 1, CELLS).expand(1, 1, CELLS, CELLS)
    motion = DenseMotion(torch.ones(1, 1, CELLS, CELLS), bent, occlusion, exact)
    wide = F.interpolate(occlusion, (SIDE, SIDE), mode="bilinear")
    prediction = wide * motion.warp(source) + (1 - wide) * 0.5
    frame = SourcePixels(picture, square, SIDE).render(take_apart(source, prediction, motion))
    inside = slice(4, -4)
    difference = np.abs(frame[0] - 255 * prediction[0].permute(1, 2, 0).numpy())[inside, inside]
    assert difference.mean() < 1
    assert difference.max() < 6


def test_a_closed_gate_shows_the_network_alone() -> None:
    picture = _photograph(300, 300)
    square = Square(50, 50, 200)
    source = _seen(picture, square)
    motion = DenseMotion(torch.ones(1, 1, CELLS, CELLS), _flow(), torch.zeros(1, 1, CELLS, CELLS), True)
    prediction = torch.rand(1, 3, SIDE, SIDE)
    frame = SourcePixels(picture, square, 200).render(take_apart(source, prediction, motion))[0]
    bytes_ = (prediction * 255).round().to(torch.uint8)
    wanted = F.interpolate(bytes_, (200, 200), mode="bicubic", antialias=True)[0].permute(1, 2, 0).numpy()
    assert np.abs(frame.astype(int) - wanted).max() <= 1


def test_the_networks_shades_stay_and_detail_comes_from_the_source() -> None:
    """The network made the picture darker and soft: what is darker stays, what is soft does not."""
    picture = (_photograph(200, 200) // 4 + 100).astype(np.uint8)
    square = Square(0, 0, 200)
    source = _seen(picture, square)
    motion = DenseMotion(torch.ones(1, 1, CELLS, CELLS), _flow(), torch.full((1, 1, CELLS, CELLS), 0.7), True)
    soft = F.avg_pool2d(F.pad(source, (2, 2, 2, 2), mode="replicate"), 5, stride=1) - 20 / 255
    frame = SourcePixels(picture, square, 200).render(take_apart(source, soft, motion))[0].astype(float)
    assert abs((frame - picture).mean() + 20) < 0.5
    assert frame.std() > 0.97 * picture.std()


@pytest.mark.parametrize(
    ("bend", "kept"),
    [
        (lambda grid: grid * 0.9, True),
        (lambda grid: grid * 0.15, False),  # pores would be six times as large
        (lambda grid: grid * torch.tensor([-1.0, 1.0]), False),  # a fold shows things mirrored
        (lambda grid: grid * 6, False),  # pressed together, detail would flicker
    ],
)
def test_detail_fades_where_the_flow_stretches_or_folds(bend, kept: bool) -> None:
    source = _seen(_photograph(200, 200), Square(0, 0, 200))
    gate = _layers(source, bend(_flow())).gate[:, :, 4:-4, 4:-4]
    assert gate.min() == 1 if kept else gate.max() == 0


def test_an_enlarged_flow_has_no_steps() -> None:
    """A flow that bends smoothly moves a ramp smoothly: no cell of the flow shows in the result."""
    picture = np.repeat(np.linspace(20, 235, 800).astype(np.float32)[None, :, None], 800, axis=0)
    picture = np.repeat(picture, 3, axis=2)
    fine = picture.round().astype(np.uint8)
    grid = _flow()
    bent = grid + 0.1 * torch.sin(2.5 * grid[..., [0, 0]]) * torch.tensor([1.0, 0.0])
    source = _seen(fine, Square(0, 0, 800))
    frame = SourcePixels(fine, Square(0, 0, 800), 800).render(_layers(source, bent))[0, 400, :, 0].astype(float)
    places = np.linspace(-1, 1, 800)
    wanted = 127.5 + 107.5 * (places + 0.1 * np.sin(2.5 * places))
    assert np.abs(frame - wanted)[60:-60].max() < 1


def test_frames_of_a_batch_do_not_mix() -> None:
    picture, square = _photograph(300, 300), Square(40, 60, 150)
    source = _seen(picture, square)
    parts = [_layers(source, _flow(shift)) for shift in (0.0, 0.05, -0.05)]
    pixels = SourcePixels(picture, square, 150)
    together = pixels.render(Layers.cat(parts))
    for number, part in enumerate(parts):
        assert (pixels.render(part)[0] == together[number]).all()


def test_a_smaller_side_reduces_the_photograph() -> None:
    picture, square = _smooth(700, 600), Square(90, 50, 500)
    source = _seen(picture, square)
    frame = SourcePixels(picture, square, 120).render(at_rest(source, _layers(source, _flow())))[0]
    wanted = resize_frames(square.cut(picture)[None], 120)[0].permute(1, 2, 0).numpy()
    assert frame.shape == (120, 120, 3)
    assert np.abs(frame.astype(int) - wanted)[2:-2, 2:-2].max() <= 2


def test_a_locked_background_is_the_photograph() -> None:
    picture, square = _photograph(300, 300), Square(40, 60, 150)
    source = _seen(picture, square)
    motion = DenseMotion(
        torch.ones(1, 1, CELLS, CELLS), _flow(0.1), torch.full((1, 1, CELLS, CELLS), 0.4), True
    )  # fmt: skip
    still = torch.ones(1, 1, SIDE, SIDE)
    layers = take_apart(source, motion.warp(source), motion, still)
    torch.testing.assert_close(layers.prediction, source)
    assert (SourcePixels(picture, square, 150).render(layers)[0] == square.cut(picture)).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_gpu_makes_the_same_frames() -> None:
    picture, square = _photograph(500, 500), Square(100, 100, 300)
    layers = _layers(_seen(picture, square), _flow(0.03, -0.02), 0.5)
    there = SourcePixels(picture, square, 300, torch.device("cuda")).render(layers.to(torch.device("cuda")))
    here = SourcePixels(picture, square, 300).render(layers)
    assert np.abs(here.astype(int) - there).max() <= 2
