"""Coordinate grids, warps and 2x2 affine algebra: pure functions.

Conventions, here and everywhere in the package:

* A coordinate is (x, y): x to the right, y down, from -1 to 1.
* A grid over an n-pixel axis gives pixel i the value 2i/(n-1) - 1: -1 and 1 lie on the CENTRES of the
  first and last pixel.
* Sampling is bilinear with zeros outside and `align_corners=False`, in which -1 and 1 are the OUTER EDGES.
  The two do not agree, so an identity grid is not an exact copy: read by a flow of 64 x 64, a picture of
  256 x 256 is enlarged by 1.6 %, up to two pixels at its edge. Every published checkpoint of the field was
  trained this way; repairing it breaks them.
* `exact` sampling, which networks may be trained with instead, has -1 and 1 on the centres too and repeats the
  edge outside: what stands still is copied to the bit.
* Images are (B, 3, H, W), float, RGB, in [0, 1].
"""

import math
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

CPU = torch.device("cpu")  # constants are kept for each device: to bring one there anew, a GPU would be waited for


def coordinate_grid(height: int, width: int, like: Tensor) -> Tensor:
    """The (x, y) of every pixel centre: (height, width, 2) in [-1, 1], with `like`'s dtype and device."""
    x = 2 * torch.arange(width, dtype=like.dtype, device=like.device) / (width - 1) - 1
    y = 2 * torch.arange(height, dtype=like.dtype, device=like.device) / (height - 1) - 1
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=-1)


def sample(image: Tensor, grid: Tensor, padding: str | None = None, *, exact: bool = False) -> Tensor:
    """Read `image` (B, C, H, W) at `grid` (B, h, w, 2): (B, C, h, w). `padding`: zeros, border, reflection; by itself
    what belongs to the way of sampling: zeros, or the border where it is exact.

    Computed in the grid's precision: half-precision coordinates would be off by whole pixels.
    """
    padding = padding or ("border" if exact else "zeros")
    values = F.grid_sample(image.to(grid.dtype), grid, padding_mode=padding, align_corners=exact)
    return values.to(image.dtype)


def resize(maps: Tensor, size: tuple[int, int], *, exact: bool = False) -> Tensor:
    """Bilinear resize of (B, C, H, W) to `size` (height, width), without anti-aliasing. exact: corner pixels'
    centres stay the corners'."""
    if maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=exact)


def warp(image: Tensor, flow: Tensor, *, exact: bool = False) -> Tensor:
    """Read `image` (B, C, H, W) at a backward flow (B, h, w, 2), resized to the image's size first."""
    if flow.shape[1:3] != image.shape[2:]:
        size = (image.shape[2], image.shape[3])
        flow = resize(flow.permute(0, 3, 1, 2), size, exact=exact).permute(0, 2, 3, 1)
    return sample(image, flow, exact=exact)


def matmul_2x2(a: Tensor, b: Tensor) -> Tensor:
    """Product of (..., 2, 2) matrices, written out: a batched `matmul` of tiny matrices is far slower."""
    a00, a01, a10, a11 = a.flatten(-2).unbind(-1)
    b00, b01, b10, b11 = b.flatten(-2).unbind(-1)
    product = [a00 * b00 + a01 * b10, a00 * b01 + a01 * b11, a10 * b00 + a11 * b10, a10 * b01 + a11 * b11]
    return torch.stack(product, dim=-1).unflatten(-1, (2, 2))


def inverse_2x2(a: Tensor) -> Tensor:
    """Inverse of (..., 2, 2) matrices by the adjugate; infinite where the determinant is zero."""
    a00, a01, a10, a11 = a.flatten(-2).unbind(-1)
    determinant = a00 * a11 - a01 * a10
    adjugate = torch.stack([a11, -a01, -a10, a00], dim=-1)
    return (adjugate / determinant[..., None]).unflatten(-1, (2, 2))


def transform_points(matrix: Tensor, points: Tensor) -> Tensor:
    """`matrix` (..., 2, 2) times `points` (..., 2), broadcast over the leading dimensions, written out."""
    x, y = points.unbind(-1)
    return torch.stack(
        [matrix[..., 0, 0] * x + matrix[..., 0, 1] * y, matrix[..., 1, 0] * x + matrix[..., 1, 1] * y], dim=-1
    )


def full_precision(device: torch.device) -> AbstractContextManager:
    """Outside of autocast: in half precision, products of matrices would put coordinates off by whole pixels."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


@lru_cache
def antialias_kernel(scale: float, device: torch.device = CPU) -> Tensor:
    """The Gaussian (k, k) that goes before a reduction by `scale` < 1: sigma (1/scale - 1)/2, sums to 1."""
    sigma = (1 / scale - 1) / 2
    radius = round(4 * sigma)
    with torch.inference_mode(False):  # kept for all callers: training cannot use an inference tensor
        offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
        line = torch.exp(-(offsets**2) / (2 * sigma**2))
        kernel = line[:, None] * line[None, :]
        return (kernel / kernel.sum()).to(device)


def antialias_downsample(image: Tensor, scale: float) -> Tensor:
    """Blur (B, C, H, W) with a Gaussian and keep every (1/scale)-th pixel, from pixel 0 on.

    `scale` is 1 or the inverse of an integer; the result has ceil(scale * H) rows.
    """
    if scale == 1:
        return image
    stride = round(1 / scale)
    if stride < 2 or not math.isclose(1 / stride, scale):
        raise ValueError(f"scale must be 1 / integer, not {scale}")
    kernel = antialias_kernel(scale, image.device).to(image.dtype)
    channels = image.shape[1]
    weight = kernel.expand(channels, 1, *kernel.shape)
    return F.conv2d(image, weight, stride=stride, padding=kernel.shape[0] // 2, groups=channels)
