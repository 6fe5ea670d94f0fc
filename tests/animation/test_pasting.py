"""What is pasted shows no seam, and changes nothing outside of its square."""

import numpy as np
import pytest
import torch
from torch import Tensor

from mtanimate.animation.pasting import Paste
from mtanimate.faces.detection import Square, resize_frames
from mtanimate.inference.enlargement import MIDDLE as ENLARGED_MIDDLE
from mtanimate.inference.enlargement import Layers, SourcePixels
from mtanimate.inference.prefetch import to_frames

MIDDLE = Square(60, 30, 120)


def _picture(width: int = 240, height: int = 200) -> np.ndarray:
    """Soft hills of colour with some grain, between 50 and 200."""
    y, x = np.mgrid[:height, :width]
    hills = [np.sin(x / 23 + phase) + np.cos(y / 17 - phase) for phase in (0, 1, 2)]
    grain = np.random.default_rng(0).normal(0, 2, (height, width, 3))
    return (125 + 35 * np.stack(hills, -1) + grain).round().astype(np.uint8)


def _crop(picture: np.ndarray, square: Square, resolution: int) -> Tensor:
    """What a network that moves nothing gives back: (1, 3, R, R) in [0, 1]."""
    return resize_frames(square.cut(picture)[None], resolution).float() / 255


def _resized(frames: Tensor, side: int) -> np.ndarray:
    """(1, 3, R, R) in [0, 1] -> uint8 (side, side, 3)."""
    return resize_frames(to_frames(frames), side)[0].permute(1, 2, 0).numpy()


def _paste(
    picture: np.ndarray,
    square: Square,
    frames: Tensor,
    onto: np.ndarray | None = None,
    feather: float = 0.08,
    earlier: tuple[Square, ...] = (),
) -> np.ndarray:
    height, width = picture.shape[:2]
    sources = resize_frames(square.cut(picture)[None], frames.shape[3])
    return Paste(width, height, square, feather, earlier)(frames, [], sources, picture[None], onto)


def _outside(square: Square, picture: np.ndarray) -> np.ndarray:
    outside = np.ones(picture.shape[:2], bool)
    outside[square.y : square.y + square.side, square.x : square.x + square.side] = False
    return outside


SQUARES = [
    MIDDLE,
    Square(0, 0, 75),
    Square(165, 125, 75),
    Square(165, 0, 75),
    Square(20, 0, 200),
    Square(101, 57, 31),
    Square(7, 9, 1),
]


@pytest.mark.parametrize("resolution", [64, 101, 256])
@pytest.mark.parametrize("square", SQUARES, ids=str)
def test_nothing_changes_outside(square: Square, resolution: int) -> None:
    picture = _picture()
    before = picture.copy()
    pasted = _paste(picture, square, torch.rand(2, 3, resolution, resolution))
    assert pasted.shape == (2, *picture.shape)
    assert pasted.dtype == np.uint8
    outside = _outside(square, picture)
    assert (pasted[:, outside] == picture[outside]).all()
    assert (picture == before).all()
    if square.side > 1:
        assert (np.abs(square.cut(pasted).astype(int) - square.cut(picture)).mean() > 20).all()


@pytest.mark.parametrize("resolution", [40, 64, 101, 120, 256])
@pytest.mark.parametrize("square", SQUARES[:-1], ids=str)
def test_an_unmoved_square_stays_as_it_was(square: Square, resolution: int) -> None:
    """But for what resizing it there and back costs."""
    picture = _picture()
    frames = _crop(picture, square, resolution)
    back = _resized(frames, square.side)
    resized = np.abs(back.astype(int) - square.cut(picture)).mean()
    pasted = np.abs(square.cut(_paste(picture, square, frames)[0]).astype(int) - square.cut(picture)).mean()
    assert pasted < resized + 0.5


def _step_across(picture: np.ndarray, pasted: np.ndarray, square: Square) -> float:
    """How much brighter the change becomes from just outside of the square to a few pixels within, along its rim."""
    change = square.cut(pasted).astype(float) - square.cut(picture)
    return max(abs(side.mean()) for side in (change[:6, 6:-6], change[-6:, 6:-6], change[6:-6, :6], change[6:-6, -6:]))


@pytest.mark.parametrize("offset", [6, -6])
def test_a_tint_leaves_no_step(offset: int) -> None:
    picture = _picture()
    frames = _crop(picture, MIDDLE, 64) + offset / 255
    hard = picture.copy()
    MIDDLE.cut(hard)[...] = _resized(frames, MIDDLE.side)
    pasted = _paste(picture, MIDDLE, frames)[0]
    assert _step_across(picture, hard, MIDDLE) > 5
    assert _step_across(picture, pasted, MIDDLE) < 0.5
    inside = MIDDLE.cut(pasted).astype(float) - MIDDLE.cut(picture)
    assert abs(inside.mean()) < 0.5


def test_a_tint_of_each_frame_and_channel() -> None:
    picture = _picture()
    tints = torch.tensor([[5, 0, -4], [-3, 2, 0]])[:, :, None, None] / 255
    pasted = _paste(picture, MIDDLE, _crop(picture, MIDDLE, 120) + tints)
    change = (MIDDLE.cut(pasted).astype(float) - MIDDLE.cut(picture)).mean(axis=(1, 2))
    assert np.abs(change).max() < 0.3


def test_what_moves_at_the_rim_does_not_tint_the_rest() -> None:
    """A third of the rim, the shoulders, went dark."""
    picture = _picture()
    frames = _crop(picture, MIDDLE, 120)
    frames[:, :, 80:] = 0
    pasted = _paste(picture, MIDDLE, frames)[0]
    change = MIDDLE.cut(pasted).astype(float) - MIDDLE.cut(picture)
    assert np.abs(change[:75]).mean() < 1.5


def test_a_tint_is_not_taken_for_more_than_it_can_be() -> None:
    picture = np.full((100, 100, 3), 60, np.uint8)
    pasted = _paste(picture, Square(20, 20, 60), torch.full((1, 3, 32, 32), 160 / 255))
    assert (pasted[0, 45:55, 45:55] == 150).all()


def test_the_edges_fade_into_the_picture() -> None:
    """From nothing at the border to all of the frame, ever more of it."""
    picture = np.full((200, 240, 3), 50, np.uint8)
    pasted = _paste(picture, MIDDLE, torch.full((1, 3, 64, 64), 200 / 255), feather=0.2)[0, :, :, 0].astype(int)
    row = pasted[90, 60:180]
    assert row[0] <= 51
    assert (np.diff(row[:60]) >= 0).all()
    assert np.diff(row).max() < 12
    assert (row[24:-24] == 190).all()
    assert (row == row[::-1]).all()


def test_an_edge_of_the_picture_does_not_fade() -> None:
    picture = np.full((80, 80, 3), 50, np.uint8)
    whole = _paste(picture, Square(0, 0, 80), torch.full((1, 3, 32, 32), 100 / 255))
    assert (whole == 90).all()
    corner = _paste(picture, Square(0, 0, 40), torch.full((1, 3, 32, 32), 100 / 255))[0, :, :, 0]
    assert (corner[:30, :30] == 90).all()
    assert (corner[39, :40] <= 55).all()
    assert (corner[:40, 39] <= 55).all()


@pytest.mark.parametrize("channel", [0, 1, 2])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_extreme_colours_do_not_overflow(channel: int, value: float) -> None:
    """Beside the other extreme, where bicubic resizing overshoots."""
    picture = np.full((90, 90, 3), 255 * (1 - value), np.uint8)
    frames = torch.full((1, 3, 16, 16), 1 - value)
    frames[:, channel, 4:12, 4:12] = value
    pasted = _paste(picture, Square(10, 10, 70), frames)[0].astype(int)
    others = [other for other in range(3) if other != channel]
    assert (pasted[:, :, others] == 255 * (1 - value)).all()
    assert (np.abs(pasted[40:50, 40:50, channel] - 255 * value) <= 1).all()
    assert (np.abs(pasted[14:20, 14:20, channel] - 255 * (1 - value)) <= 12).all()


def test_several_on_one_picture() -> None:
    """Squares apart; the first stays as it is when the second comes."""
    picture = _picture()
    left, right = Square(5, 20, 80), Square(140, 60, 90)
    frames = torch.rand(3, 3, 64, 64)
    first = _paste(picture, left, frames)
    alone = _paste(picture, right, 1 - frames)
    both = _paste(picture, right, 1 - frames, first.copy(), earlier=(left,))
    assert (left.cut(both) == left.cut(first)).all()
    assert (right.cut(both) == right.cut(alone)).all()


def test_overlapping_squares_share_what_both_have() -> None:
    """Each keeps its middle: a neighbour's square does not cover a face."""
    picture = np.full((200, 300, 3), 100, np.uint8)
    left, right = Square(20, 40, 120), Square(80, 40, 120)
    bright, dark = torch.full((1, 3, 32, 32), 220 / 255), torch.full((1, 3, 32, 32), 20 / 255)
    both = _paste(picture, right, dark, _paste(picture, left, bright), earlier=(left,))[0, 100, :, 0].astype(int)
    assert both[50:98].tolist() == [210] * 48
    assert both[122:180].tolist() == [30] * 58
    assert (np.diff(both[98:122]) <= 0).all()


def test_batches_do_not_mix() -> None:
    picture = _picture()
    frames = torch.rand(3, 3, 64, 64)
    together = _paste(picture, MIDDLE, frames)
    for number in range(3):
        assert (_paste(picture, MIDDLE, frames[number : number + 1])[0] == together[number]).all()


CORNERS = [MIDDLE, Square(0, 0, 75), Square(165, 125, 75), Square(101, 57, 31), Square(20, 0, 200)]


def _layers(square: Square, picture: np.ndarray, shift: float = 0.0, still: float | None = None) -> Layers:
    """What a network of 32 pixels gives that reads `shift` widths of the square to the right, everywhere."""
    small = _crop(picture, square, 32)
    gate = torch.full((1, 1, 32, 32), 1.0 - (still or 0))
    movement = torch.zeros(1, 2, 16, 16)
    movement[:, 0] = shift
    held = None if still is None else torch.full((1, 1, 32, 32), still)
    return Layers(small, torch.full_like(small, ENLARGED_MIDDLE), gate, movement, 0.5 / 32, held)


def _paste_layers(picture: np.ndarray, square: Square, layers: Layers) -> np.ndarray:
    height, width = picture.shape[:2]
    paste = Paste(width, height, square)
    pixels = SourcePixels(picture, paste.around, paste.around.side)
    return paste(layers, [pixels], resize_frames(square.cut(picture)[None], 32), picture[None])[0]


@pytest.mark.parametrize("square", CORNERS, ids=str)
def test_layers_that_do_not_move_leave_the_picture_as_it_is(square: Square) -> None:
    """To the bit, also where the square's surroundings reach out of the picture."""
    picture = _picture()
    assert (_paste_layers(picture, square, _layers(square, picture)) == picture).all()


@pytest.mark.parametrize("square", CORNERS, ids=str)
def test_what_moves_takes_its_surroundings_along(square: Square) -> None:
    """All of the square moves alike, up to its edge; around it less and less, down to nothing."""
    height, width = 200, 240
    picture = np.repeat(np.tile(np.arange(width, dtype=np.uint8), (height, 1))[:, :, None], 3, axis=2)
    shift = round(0.1 * square.side) / square.side
    pasted = _paste_layers(picture, square, _layers(square, picture, shift))[:, :, 0].astype(int)
    moved = pasted - picture[:, :, 0]
    x, y, side = square.x, square.y, square.side
    readable = width - x - round(shift * side)  # beyond it, there is no picture
    inside = moved[y : y + side, x : x + min(side, readable)]
    assert np.abs(inside - shift * side).max() <= 1
    reach = round(0.16 * side)
    row = moved[y + side // 2, max(0, x - reach) : x]
    assert (np.diff(row) >= 0).all()
    outside = np.ones((height, width), bool)
    outside[max(0, y - reach) : y + side + reach, max(0, x - reach) : x + side + reach] = False
    assert (moved[outside] == 0).all()


def test_what_is_held_still_stays_around_the_square_too() -> None:
    """The background that --background lock holds."""
    picture = _picture()
    pasted = _paste_layers(picture, MIDDLE, _layers(MIDDLE, picture, 0.1, still=1.0))
    assert np.abs(pasted.astype(int) - picture).max() <= 1


def test_of_two_faces_each_keeps_its_own_square() -> None:
    """The second takes along what lies between them, and nothing of the first."""
    picture = _picture()
    first, second = Square(20, 40, 90), Square(118, 40, 90)
    height, width = picture.shape[:2]
    canvas = _paste_layers(picture, first, _layers(first, picture, 0.1))[None].copy()
    before = canvas.copy()
    paste = Paste(width, height, second, earlier=(first,))
    pixels = SourcePixels(picture, paste.around, paste.around.side)
    sources = resize_frames(second.cut(picture)[None], 32)
    paste(_layers(second, picture, 0.1), [pixels], sources, picture[None], canvas)
    assert (first.cut(canvas)[:, :, :80] == first.cut(before)[:, :, :80]).all()
    assert (second.cut(canvas) != second.cut(before)).mean() > 0.5
