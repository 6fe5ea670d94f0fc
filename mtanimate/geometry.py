"""Coordinate grids, warps and 2x2 affine algebra, as pure functions.

Conventions, here and everywhere in the package:

* A coordinate is (x, y): x to the right, y down, from -1 to 1.
* A grid over n pixels gives pixel i the value 2i/(n-1) - 1: -1 and 1 lie on the CENTRES of the first and last pixel.
* Sampling is bilinear, with zeros outside, and `align_corners=False`: -1 and 1 are the OUTER EDGES. The two do not
  agree, so an identity grid is no exact copy: read by a flow of 64 x 64, a picture of 256 x 256 is enlarged by 1.6 %,
  up to two pixels at its edge. Every published checkpoint of the field was trained this way, and correcting it would
  break them.
* `exact` sampling, which networks can be trained with instead, has -1 and 1 on the centres too and repeats the edge
  outside: what does not move is copied bit by bit.
* Images are (B, 3, H, W), float, RGB, in [0, 1].
"""

import math
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

_MANY = 8  # channels from which gathering rows is faster than `grid_sample`
CPU = torch.device("cpu")  # constants are cached for each device: copying them to a GPU anew would wait for it


def coordinate_grid(height: int, width: int, like: Tensor) -> Tensor:
    """The coordinates of all pixel centres.

    Args:
        height: in pixels, at least 2.
        width: in pixels, at least 2.
        like: a tensor whose dtype and device the grid gets.

    Returns:
        (height, width, 2), (x, y) in [-1, 1].
    """
    x = 2 * torch.arange(width, dtype=like.dtype, device=like.device) / (width - 1) - 1
    y = 2 * torch.arange(height, dtype=like.dtype, device=like.device) / (height - 1) - 1
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=-1)


def sample(image: Tensor, grid: Tensor, padding: str | None = None, *, exact: bool = False) -> Tensor:
    """Reads an image at coordinates, bilinearly.

    Computed in the grid's precision: half-precision coordinates would be wrong by whole pixels.

    Args:
        image: (B, C, H, W).
        grid: (B, h, w, 2), (x, y) in [-1, 1].
        padding: outside of the image: zeros, border or reflection; None: zeros, or border with `exact`.
        exact: see the module.

    Returns:
        (B, C, h, w), in the image's dtype.
    """
    padding = padding or ("border" if exact else "zeros")
    shared = image.stride(0) == 0  # one source for all frames is converted once
    values = image[:1].to(grid.dtype).expand_as(image) if shared else image.to(grid.dtype)
    if _gathers(values, padding):
        return _gathered(values, grid, padding, exact).to(image.dtype)
    return F.grid_sample(values, grid, padding_mode=padding, align_corners=exact).to(image.dtype)


def infers_on_cpu(tensor: Tensor) -> bool:
    """Whether a CPU computes with this tensor now, and not for training: no export is being traced."""
    return tensor.device.type == "cpu" and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def _gathers(image: Tensor, padding: str) -> bool:
    """Whether `_gathered` can do what `grid_sample` does, and is faster, which takes a PyTorch with FBGEMM."""
    usual = image.dtype == torch.float32 and min(image.shape[2:]) > 1 and padding != "reflection"
    fast = image.shape[1] >= _MANY and "fbgemm" in torch.backends.quantized.supported_engines
    return usual and fast and infers_on_cpu(image)


def _gathered(image: Tensor, grid: Tensor, padding: str, exact: bool) -> Tensor:
    """As `sample`, by sums of four weighted rows of a table that has the channels of a pixel in each row."""
    _, channels, height, width = image.shape
    shared = image.stride(0) == 0
    table = (image[:1] if shared else image).permute(0, 2, 3, 1).reshape(-1, channels)
    x, y = grid.unbind(dim=-1)
    left, across = _taps(x, width, padding, exact)
    top, down = _taps(y, height, padding, exact)
    first = top.mul_(width).add_(left).to(torch.int32)
    if not shared:
        first += height * width * torch.arange(len(image), dtype=torch.int32)[:, None, None]
    # A coordinate that is not finite reads any pixel, with weights that are not finite.
    first = first.clamp_(0, len(table) - width - 2)
    pixels = torch.stack([first, first + 1, first + width, first + width + 1], dim=-1)
    weights = torch.stack([h * v for v in down for h in across], dim=-1)
    found = F.embedding_bag(pixels.view(-1, 4), table, mode="sum", per_sample_weights=weights.view(-1, 4))
    return found.view(*grid.shape[:3], channels).permute(0, 3, 1, 2)


def _taps(places: Tensor, count: int, padding: str, exact: bool) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """The first of the two pixels, of `count` along an axis, that each coordinate reads, and the weights of both."""
    places = (places + 1) / 2 * (count - 1) if exact else ((places + 1) * count - 1) / 2
    if padding == "border":
        places = places.clamp_(0, count - 1)
    first = places.floor().clamp_(0, count - 2)
    beyond = places.sub_(first)
    return first, ((1 - beyond.abs()).clamp_min_(0), (1 - (1 - beyond).abs_()).clamp_min_(0))


def resize(maps: Tensor, size: tuple[int, int], *, exact: bool = False) -> Tensor:
    """Resizes maps bilinearly, without anti-aliasing.

    Args:
        maps: (B, C, H, W).
        size: (height, width).
        exact: whether the corner pixels' centres stay at the corners.

    Returns:
        (B, C, *size).
    """
    if maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=exact)


def warp(image: Tensor, flow: Tensor, padding: str | None = None, *, exact: bool = False) -> Tensor:
    """Reads an image at a backward flow.

    Args:
        image: (B, C, H, W).
        flow: (B, h, w, 2), (x, y) in [-1, 1]; it is resized to the image's size first.
        padding: as `sample` has it.
        exact: see the module.

    Returns:
        (B, C, H, W).
    """
    if flow.shape[1:3] != image.shape[2:]:
        size = (image.shape[2], image.shape[3])
        # Contiguous, since PyTorch enlarges two channels that come last in four times as long.
        flow = resize(flow.permute(0, 3, 1, 2).contiguous(), size, exact=exact).permute(0, 2, 3, 1)
    return sample(image, flow, padding, exact=exact)


def matmul_2x2(a: Tensor, b: Tensor) -> Tensor:
    """Multiplies matrices (..., 2, 2), written out: a batched `matmul` of tiny matrices is far slower."""
    a00, a01, a10, a11 = a.flatten(-2).unbind(-1)
    b00, b01, b10, b11 = b.flatten(-2).unbind(-1)
    product = [a00 * b00 + a01 * b10, a00 * b01 + a01 * b11, a10 * b00 + a11 * b10, a10 * b01 + a11 * b11]
    return torch.stack(product, dim=-1).unflatten(-1, (2, 2))


def inverse_2x2(a: Tensor) -> Tensor:
    """Inverts matrices (..., 2, 2) by the adjugate; infinite where the determinant is zero."""
    a00, a01, a10, a11 = a.flatten(-2).unbind(-1)
    determinant = a00 * a11 - a01 * a10
    adjugate = torch.stack([a11, -a01, -a10, a00], dim=-1)
    return (adjugate / determinant[..., None]).unflatten(-1, (2, 2))


def transform_points(matrix: Tensor, points: Tensor) -> Tensor:
    """Multiplies matrices (..., 2, 2) by points (..., 2), (x, y), broadcast over the leading dimensions."""
    x, y = points.unbind(-1)
    return torch.stack(
        [matrix[..., 0, 0] * x + matrix[..., 0, 1] * y, matrix[..., 1, 0] * x + matrix[..., 1, 1] * y], dim=-1
    )


def full_precision(device: torch.device) -> AbstractContextManager:
    """A context without autocast: half-precision matrix products would put coordinates off by whole pixels."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


@lru_cache
def antialias_kernel(scale: float, device: torch.device = CPU) -> Tensor:
    """The Gaussian that is applied before a reduction, with sigma (1/scale - 1)/2.

    Args:
        scale: of the reduction, below 1.
        device: of the result, which is cached.

    Returns:
        (k, k), summing to 1.
    """
    sigma = (1 / scale - 1) / 2
    radius = round(4 * sigma)
    with torch.inference_mode(False):  # cached for all callers; training cannot use inference tensors
        offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
        line = torch.exp(-(offsets**2) / (2 * sigma**2))
        kernel = line[:, None] * line[None, :]
        return (kernel / kernel.sum()).to(device)


def antialias_downsample(image: Tensor, scale: float) -> Tensor:
    """Blurs an image with a Gaussian and keeps every (1/scale)-th pixel, from pixel 0 on.

    Args:
        image: (B, C, H, W).
        scale: 1, or 1 / integer.

    Returns:
        (B, C, ceil(scale * H), ceil(scale * W)).

    Raises:
        ValueError: for another scale.
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
