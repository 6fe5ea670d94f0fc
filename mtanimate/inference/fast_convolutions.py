"""The generator's convolutions with fewer multiplications, for inference on a CPU in float32.

Each module computes what the module it replaces computes, up to rounding (1e-4 of the values). PyTorch's own
convolutions run at the CPU's peak, so that only less arithmetic makes them faster.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Winograd's F(4x4, 3x3) by Lavin and Gray (CVPR 2016): transforms of the tile, of the kernel, of the result.
_TILE = [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0], [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0]]
_TILE += [[0, 4, 0, -5, 0, 1]]
_KERNEL = [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]  # over 24
_TILES = 256  # computed at once
_RESULT = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]


def _both_ways(matrix: list[list[int]]) -> Tensor:
    """The transform of rows, then of columns, as one matrix on flattened squares."""
    one = torch.tensor(matrix, dtype=torch.float64)
    return torch.kron(one, one)


class WinogradConv(nn.Module):
    """A 3x3 convolution of padding 1, with 36 instead of 144 multiplications for each 4x4 tile of the result."""

    kernels: Tensor
    tile: Tensor
    result: Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        outputs, inputs = conv.weight.shape[:2]
        kernels = conv.weight.double().flatten(2).permute(2, 1, 0).reshape(9, -1)
        transformed = _both_ways(_KERNEL).to(kernels) / 24**2 @ kernels
        self.register_buffer("kernels", transformed.view(36, inputs, outputs).to(conv.weight))
        self.register_buffer("tile", _both_ways(_TILE).to(conv.weight))
        self.register_buffer("result", _both_ways(_RESULT).to(conv.weight))
        self.bias = conv.bias

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, O, H, W), channels last. Few rows are computed at a time, to stay in the cache."""
        batch, _, height, width = x.shape
        rows, columns = -(-height // 4), -(-width // 4)
        padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 4 * columns - width + 1, 1, 4 * rows - height + 1))
        result = x.new_empty(batch, rows, 4, columns, 4, self.kernels.shape[2])
        step = max(1, _TILES // columns)
        for picture, tiles in zip(padded, result, strict=True):
            for row in range(0, rows, step):
                tiles[row : row + step] = self._tiles(picture[4 * row : 4 * min(row + step, rows) + 2])
        return result.view(batch, 4 * rows, 4 * columns, -1)[:, :height, :width].permute(0, 3, 1, 2)

    def _tiles(self, picture: Tensor) -> Tensor:
        """(4 R + 2, 4 S + 2, C) -> (R, 4, S, 4, O)."""
        tiles = picture.unfold(0, 6, 4).unfold(1, 6, 4)
        rows, columns, inputs = tiles.shape[:3]
        transformed = self.tile @ tiles.permute(3, 4, 0, 1, 2).reshape(36, -1)
        products = torch.bmm(transformed.view(36, -1, inputs), self.kernels)
        squares = (self.result @ products.view(36, -1)).view(4, 4, rows, columns, -1)
        return (squares if self.bias is None else squares.add_(self.bias)).permute(2, 0, 3, 1, 4)


class UpsampledConv(nn.Module):
    """Nearest-neighbour upsampling by 2, then a 3x3 convolution of padding 1.

    Each of the four phases of the result is a 2x2 convolution of the small picture: two of the kernel's three rows read
    the same row of it, and are added up beforehand. That takes 16 instead of 36 multiplications.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        first, middle, last = conv.weight.unbind(2)
        rows = [torch.stack([first, middle + last], 2), torch.stack([first + middle, last], 2)]
        phases = []
        for row in rows:
            left, centre, right = row.unbind(3)
            phases += [torch.stack([left, centre + right], 3), torch.stack([left + centre, right], 3)]
        weight = torch.cat(phases).contiguous(memory_format=torch.channels_last)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if conv.bias is None else nn.Parameter(conv.bias.repeat(4), requires_grad=False)
        self.outputs = conv.out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, O, 2 H, 2 W), channels last."""
        batch, _, height, width = x.shape
        # Phase (a, b) of pixel (i, j) is at (i + a, j + b): the first reads a row before it, the second one after.
        y = F.conv2d(x, self.weight, self.bias, padding=1).permute(0, 2, 3, 1)
        result = y.new_empty(batch, height, 2, width, 2, self.outputs)
        for phase in range(4):
            a, b = divmod(phase, 2)
            channels = slice(phase * self.outputs, (phase + 1) * self.outputs)
            result[:, :, a, :, b] = y[:, a : a + height, b : b + width, channels]
        return result.view(batch, 2 * height, 2 * width, -1).permute(0, 3, 1, 2)


class FewOutputsConv(nn.Module):
    """A k x k convolution to few channels, of padding k // 2, for odd k.

    Three channels fill only a fifth of a vector register. So 2 x 2 neighbouring results are computed at once, as
    channels, by kernels of k + 1.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        outputs, inputs, size, _ = conv.weight.shape
        self.padding = size // 2
        weight = conv.weight.new_zeros(outputs, 4, inputs, size + 1, size + 1)
        for phase in range(4):
            a, b = divmod(phase, 2)
            weight[:, phase, :, a : a + size, b : b + size] = conv.weight
        weight = weight.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if conv.bias is None else nn.Parameter(conv.bias.repeat_interleave(4), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, O, H, W)."""
        height, width = x.shape[2:]
        if height % 2 or width % 2:
            x = F.pad(x, (0, width % 2, 0, height % 2))
        found = F.conv2d(x, self.weight, self.bias, stride=2, padding=self.padding)
        return F.pixel_shuffle(found, 2)[:, :, :height, :width]
