"""Convolution blocks that the networks of this field share (Monkey-Net, FOMM, MRAA, TPSMM and the paper).

They have batch norms; TPSMM's, of the same names and shapes otherwise, have instance norms.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Norm = Callable[[int], nn.Module]  # of channels (B, C, H, W)


def instance_norm(channels: int) -> nn.Module:
    """A norm of each channel of each picture by itself, in training and afterwards alike.

    Groups of one channel: PyTorch's own instance norm takes up to twenty times as long on a CPU, channels last.
    """
    return nn.GroupNorm(channels, channels)


class SameBlock(nn.Module):
    """Convolution 7x7, norm, ReLU: (B, inputs, H, W) -> (B, outputs, H, W)."""

    def __init__(self, inputs: int, outputs: int, norm: Norm = nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 7, padding=3)
        self.norm = norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)), inplace=True)


class DownBlock(nn.Module):
    """Convolution 3x3, norm, ReLU, average pooling: (B, inputs, H, W) -> (B, outputs, H/2, W/2)."""

    def __init__(self, inputs: int, outputs: int, norm: Norm = nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm = norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(F.relu(self.norm(self.conv(x)), inplace=True), 2)


class UpBlock(nn.Module):
    """Nearest upsampling, convolution 3x3, norm, ReLU: (B, inputs, H, W) -> (B, outputs, 2H, 2W)."""

    def __init__(self, inputs: int, outputs: int, norm: Norm = nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm = norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))), inplace=True)


class ResidualBlock(nn.Module):
    """Pre-activation residual block: norm, ReLU and convolution 3x3, twice, plus the input."""

    def __init__(self, channels: int, norm: Norm = nn.BatchNorm2d) -> None:
        super().__init__()
        self.norm1 = norm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.relu(self.norm1(x), inplace=True))
        return self.conv2(F.relu(self.norm2(y), inplace=True)) + x


def level_channels(block_expansion: int, max_features: int, level: int) -> int:
    """Channels of an encoder's features at `level` (0: full size): doubled at each level, at most `max_features`."""
    return min(max_features, block_expansion * 2**level)


class Encoder(nn.Module):
    """`num_blocks` DownBlocks in a row.

    Args:
        inputs: channels of the input.
        block_expansion: channels at full size; see `level_channels`.
        max_features: the most channels of a level.
        num_blocks: how often the size is halved.
        norm: of its blocks.
    """

    def __init__(
        self, inputs: int, block_expansion: int, max_features: int, num_blocks: int, norm: Norm = nn.BatchNorm2d
    ) -> None:
        super().__init__()
        channels = [level_channels(block_expansion, max_features, level) for level in range(num_blocks + 1)]
        self.down_blocks = nn.ModuleList(
            DownBlock(inputs if i == 0 else channels[i], channels[i + 1], norm) for i in range(num_blocks)
        )
        self.out_channels = channels[-1]

    def forward(self, x: Tensor) -> Iterator[Tensor]:
        """Yields the features of (B, inputs, H, W) at 1/2, 1/4, ... of its size."""
        for block in self.down_blocks:
            x = block(x)
            yield x


class Decoder(nn.Module):
    """`num_blocks` UpBlocks; after each, the encoder's features of its size are appended. Arguments as `Encoder`."""

    def __init__(
        self, inputs: int, block_expansion: int, max_features: int, num_blocks: int, norm: Norm = nn.BatchNorm2d
    ) -> None:
        super().__init__()
        blocks = []
        for level in reversed(range(num_blocks)):
            below = level_channels(block_expansion, max_features, level + 1)
            appended = 1 if level == num_blocks - 1 else 2
            blocks.append(UpBlock(appended * below, level_channels(block_expansion, max_features, level), norm))
        self.up_blocks = nn.ModuleList(blocks)
        skipped = [inputs, *(level_channels(block_expansion, max_features, level) for level in range(1, num_blocks))]
        own = [level_channels(block_expansion, max_features, level) for level in range(num_blocks)]
        self.channels = [mine + skip for mine, skip in zip(own, skipped, strict=True)]  # of each level, full size first
        self.out_channels = self.channels[0]

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Decodes `maps`, the hourglass's input and the encoder's features, largest first: (B, out_channels, H, W)."""
        x = maps[-1]
        for level in self.levels(maps):
            x = level
        return x

    def levels(self, maps: list[Tensor]) -> Iterator[Tensor]:
        """Yields the features of each size, smallest first; the last are those that `forward` returns."""
        x = maps[-1]
        for block, skip in zip(self.up_blocks, maps[-2::-1], strict=True):
            x = torch.cat([block(x), skip], dim=1)
            yield x


class Hourglass(nn.Module):
    """A U-Net of `num_blocks` levels: (B, inputs, H, W) -> (B, block_expansion + inputs, H, W).

    H and W must be divisible by 2**num_blocks. Arguments as `Encoder`.
    """

    def __init__(
        self, inputs: int, block_expansion: int, max_features: int, num_blocks: int, norm: Norm = nn.BatchNorm2d
    ) -> None:
        super().__init__()
        self.encoder = Encoder(inputs, block_expansion, max_features, num_blocks, norm)
        self.decoder = Decoder(inputs, block_expansion, max_features, num_blocks, norm)
        self.out_channels = self.decoder.out_channels

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder([x, *self.encoder(x)])

    def levels(self, x: Tensor) -> list[Tensor]:
        """As `forward`, with the decoder's features of every size, smallest first."""
        return list(self.decoder.levels([x, *self.encoder(x)]))
