"""Grids, warps and 2x2 algebra: conventions by exact numbers, algebra against torch.linalg."""

import math

import pytest
import torch
from golden import close, tensors
from hypothesis import given, settings
from hypothesis import strategies as st

from mtanimate.geometry import (
    antialias_downsample,
    antialias_kernel,
    coordinate_grid,
    inverse_2x2,
    matmul_2x2,
    resize,
    sample,
    transform_points,
    warp,
)

SCALES = [0.5, 0.25, 0.125]


def picture(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def matrices(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, 2, 2, generator=generator, dtype=torch.float64)


# Grids


def test_grid_puts_one_on_the_centres_of_the_rim():
    grid = coordinate_grid(2, 3, torch.zeros(()))
    expected = [[[-1, -1], [0, -1], [1, -1]], [[-1, 1], [0, 1], [1, 1]]]  # (x, y), y down
    assert torch.equal(grid, torch.tensor(expected, dtype=torch.float32))


def test_grid_has_the_dtype_asked_for():
    assert coordinate_grid(2, 2, torch.zeros((), dtype=torch.float64)).dtype == torch.float64


# Sampling


@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(6, 20), st.integers(1, 9), st.integers(1, 9)),
    padding=st.sampled_from(["zeros", "border", "reflection"]),
    exact=st.booleans(),
    shared=st.booleans(),
)
def test_inference_reads_what_training_reads(shape, padding, exact, shared):
    """Without gradients, rows of many channels are gathered on a CPU; with them, PyTorch samples."""
    batch, channels, height, width = shape
    image = picture(1 if shared else batch, channels, height, width).expand(batch, -1, -1, -1)
    grid = 3 * picture(batch, 5, 7, 2, seed=1) - 1.5
    expected = sample(image, grid, padding, exact=exact)
    with torch.no_grad():
        found = sample(image, grid, padding, exact=exact)
    close(found, expected, atol=1e-5)


@torch.no_grad()
def test_a_coordinate_that_is_not_finite_spoils_its_own_pixel_only():
    grid = coordinate_grid(4, 4, torch.zeros(())).repeat(2, 1, 1, 1)
    whole = sample(picture(2, 16, 5, 5), grid, exact=True)
    for value in (math.nan, math.inf, -math.inf):
        grid[1, 2, 3, 0] = value
        found = sample(picture(2, 16, 5, 5), grid, exact=True)
        same = torch.ones(2, 1, 4, 4, dtype=torch.bool)
        same[1, :, 2, 3] = False
        assert torch.equal(found[same.expand_as(found)], whole[same.expand_as(whole)])


def test_identity_grid_is_not_an_exact_copy():
    """On n pixels output pixel i reads position i n / (n - 1) - 1/2, and the rim mixes with zeros."""
    image = torch.tensor([10.0, 20, 30, 40]).view(1, 1, 1, 4).expand(1, 1, 4, 4)
    grid = coordinate_grid(4, 4, image)[None]
    # Along x: positions -1/2, 5/6, 13/6, 7/2. Along y, where the image is constant, the rim rows lose half.
    row = torch.tensor([5.0, 10 + 10 * 5 / 6, 30 + 10 / 6, 20.0])
    close(sample(image, grid)[0, 0, 1], row, atol=1e-5)
    close(sample(image, grid)[0, 0, 0], row / 2, atol=1e-5)


def test_x_comes_before_y():
    image = picture(1, 1, 3, 5)
    # The centre of pixel (row 2, column 1): edges at -1 and 1, so 2 (i + 1/2) / n - 1.
    grid = torch.tensor([2 * 1.5 / 5 - 1, 2 * 2.5 / 3 - 1]).view(1, 1, 1, 2)
    assert sample(image, grid).item() == pytest.approx(image[0, 0, 2, 1].item(), abs=1e-6)


def test_outside_is_black_or_the_border_or_the_reflection():
    image = torch.tensor([1.0, 2, 3, 4]).view(1, 1, 1, 4)
    grid = torch.tensor([[2 * 5.5 / 4 - 1, 0.0]]).view(1, 1, 1, 2)  # the centre of a pixel 5 that is not there
    found = {padding: sample(image, grid, padding).item() for padding in ("zeros", "border", "reflection")}
    assert found == {"zeros": 0, "border": 4, "reflection": pytest.approx(3, abs=1e-5)}


def test_half_precision_image_is_read_at_full_precision_coordinates():
    image = picture(1, 3, 8, 700).half()
    grid = coordinate_grid(8, 700, torch.zeros(()))[None] * 0.99
    found = sample(image, grid)
    assert found.dtype == torch.float16
    assert torch.equal(found, sample(image.float(), grid).half())
    assert not torch.equal(found, sample(image.float(), grid.half().float()).half())


def test_warp_resizes_the_flow_and_keeps_its_values():
    image = picture(2, 3, 8, 12)
    flow = torch.tensor([0.25, -0.5]).expand(2, 4, 6, 2)
    warped = warp(image, flow)
    assert warped.shape == image.shape
    expected = sample(image, flow[:, :1, :1])
    close(warped, expected.expand_as(image), atol=1e-6)


def test_warp_with_a_flow_of_the_same_size_is_sampling():
    image, flow = picture(1, 2, 5, 6), picture(1, 5, 6, 2, seed=1) * 2 - 1
    assert torch.equal(warp(image, flow), sample(image, flow))


@pytest.mark.parametrize("side", [64, 16, 5])
def test_exact_warps_copy_what_stands_still(side):
    image = picture(2, 3, 64, 48)
    still = coordinate_grid(side, side, image).expand(2, -1, -1, -1)
    close(warp(image, still, exact=True), image, atol=1e-4)
    assert (warp(image, still) - image).abs().mean() > 0.1


def test_exact_warps_move_by_whole_pixels_and_repeat_the_edge():
    image = picture(1, 1, 8, 9)
    two_left = coordinate_grid(8, 9, image)[None] - torch.tensor([2 * 2 / 8, 0])
    warped = warp(image, two_left, exact=True)
    close(warped[..., 2:], image[..., :-2], atol=1e-5)
    close(warped[..., :2], image[..., :1].expand(-1, -1, -1, 2), atol=1e-5)


def test_resize_is_bilinear_on_pixel_areas():
    maps = torch.tensor([0.0, 4.0]).view(1, 1, 1, 2)
    close(resize(maps, (1, 4)).flatten(), torch.tensor([0.0, 1, 3, 4]), atol=1e-6)
    assert resize(maps, (1, 2)) is maps


# Algebra


@given(seed=st.integers(0, 2**31))
def test_matmul_equals_torch(seed):
    a, b = matrices(seed, 3, 1), matrices(seed + 1, 1, 4)
    close(matmul_2x2(a, b), a @ b, atol=1e-12)


@given(seed=st.integers(0, 2**31))
def test_inverse_equals_torch(seed):
    a = matrices(seed, 6) + 5 * torch.eye(2, dtype=torch.float64)
    close(inverse_2x2(a), torch.linalg.inv(a), atol=1e-10)
    close(matmul_2x2(a, inverse_2x2(a)), torch.eye(2, dtype=torch.float64).expand(6, 2, 2), atol=1e-10)


def test_inverse_of_a_singular_matrix_is_not_finite():
    assert not torch.isfinite(inverse_2x2(torch.tensor([[1.0, 2], [2, 4]]))).any()


@given(seed=st.integers(0, 2**31))
def test_transform_points_equals_torch(seed):
    matrix = matrices(seed, 2, 1)
    points = torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    close(transform_points(matrix, points), (matrix @ points[..., None])[..., 0], atol=1e-12)


# Anti-aliased reduction


@pytest.mark.parametrize(("scale", "length"), [(0.5, 5), (0.25, 13), (0.125, 29)])
def test_kernel_sums_to_one_and_is_a_gaussian(scale, length):
    kernel = antialias_kernel(scale)
    assert kernel.shape == (length, length)
    assert kernel.sum().item() == pytest.approx(1, abs=1e-6)
    middle, sigma = length // 2, (1 / scale - 1) / 2
    ratio = kernel[middle, middle + 1] / kernel[middle, middle]
    assert ratio.item() == pytest.approx(math.exp(-1 / (2 * sigma**2)), rel=1e-5)
    assert torch.equal(kernel, kernel.T)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("size", [(64, 64), (50, 70)])
def test_constant_image_stays_constant_inside(scale, size):
    reduced = antialias_downsample(torch.full((1, 3, *size), 0.6), scale)
    assert reduced.shape[2:] == tuple(math.ceil(scale * side) for side in size)
    rim = math.ceil(antialias_kernel(scale).shape[0] // 2 * scale)
    inside = reduced[:, :, rim : -rim - 1, rim : -rim - 1]
    assert inside.numel()
    close(inside, torch.full_like(inside, 0.6), atol=1e-6)
    assert reduced[0, 0, 0, 0].item() < 0.5  # zeros outside


def test_reduction_starts_at_pixel_0():
    """An impulse far from the rim spreads its kernel around it, read at pixels 0, 4, 8, ..."""
    image = torch.zeros(1, 1, 64, 64)
    image[0, 0, 32, 31] = 1
    kernel = antialias_kernel(0.25)
    reduced = antialias_downsample(image, 0.25)[0, 0]
    assert reduced[8, 8].item() == pytest.approx(kernel[6, 7].item())  # pixel 32 is one to the right of 31
    assert reduced[8, 7].item() == pytest.approx(kernel[6, 3].item())  # pixel 28


def test_scale_one_returns_the_image_itself():
    image = picture(1, 3, 7, 9)
    assert antialias_downsample(image, 1.0) is image


@pytest.mark.parametrize(
    "scale",
    [
        0.3,
        0.75,
        2.0,
    ],
)
def test_scale_must_be_the_inverse_of_an_integer(scale):
    with pytest.raises(ValueError, match="1 / integer"):
        antialias_downsample(picture(1, 3, 8, 8), scale)


def test_a_gradient_flows_after_a_use_in_inference_mode():
    """Playing and training in one process: nothing kept from the first may spoil the second."""
    scale = 1 / 3  # that no other test has put into the cache
    with torch.inference_mode():
        antialias_downsample(picture(1, 3, 16, 16), scale)
    image = picture(1, 3, 16, 16).requires_grad_()
    antialias_downsample(image, scale).sum().backward()
    assert image.grad is not None


@pytest.mark.parametrize("scale", SCALES)
def test_antialias_downsample(scale):
    arrays = tensors("antialias.npz")
    close(antialias_kernel(scale).expand(3, 1, -1, -1), arrays[f"kernel_{scale}"], atol=1e-7)
    close(antialias_downsample(arrays["image"], scale), arrays[f"out_{scale}"])
    close(antialias_downsample(arrays["image_odd"], scale), arrays[f"odd_fomm_{scale}"])
