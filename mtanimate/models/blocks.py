"""The convolution blocks that the field's networks are made of (Monkey-Net, FOMM, MRAA and the paper)."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SameBlock(nn.Module):
    """conv 7x7, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 7, padding=3)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class DownBlock(nn.Module):
    """conv 3x3, batch norm, ReLU, average-pool: half the size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(F.relu(self.norm(self.conv(x))), 2)


class UpBlock(nn.Module):
    """nearest x2, conv 3x3, batch norm, ReLU: twice the size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))))


class ResidualBlock(nn.Module):
    """Pre-activation: batch norm, ReLU, conv 3x3, twice; plus the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.relu(self.norm1(x)))
        return self.conv2(F.relu(self.norm2(y))) + x


def level_channels(block_expansion: int, max_features: int, level: int) -> int:
    """Channels at `level` (0 = full size) of an encoder: doubled at each level, up to `max_features`."""
    return min(max_features, block_expansion * 2**level)


class Encoder(nn.Module):
    """`num_blocks` DownBlocks. Input (B, `inputs`, H, W); yields the maps at 1/2, 1/4, ... of that size."""

    def __init__(self, inputs: int, block_expansion: int, max_features: int, num_blocks: int) -> None:
        super().__init__()
        channels = [level_channels(block_expansion, max_features, level) for level in range(num_blocks + 1)]
        self.down_blocks = nn.ModuleList(
            DownBlock(inputs if i == 0 else channels[i], channels[i + 1]) for i in range(num_blocks)
        )
        self.out_channels = channels[-1]

    def forward(self, x: Tensor) -> Iterator[Tensor]:
        for block in self.down_blocks:
            x = block(x)
            yield x


class Decoder(nn.Module):
    """Back to full size; after each block the encoder's map of that size is appended."""

    def __init__(self, inputs: int, block_expansion: int, max_features: int, num_blocks: int) -> None:
        super().__init__()
        blocks = []
        for level in reversed(range(num_blocks)):
            below = level_channels(block_expansion, max_features, level + 1)
            appended = 1 if level == num_blocks - 1 else 2
            blocks.append(UpBlock(appended * below, level_channels(block_expansion, max_features, level)))
        self.up_blocks = nn.ModuleList(blocks)
        self.out_channels = block_expansion + inputs

    def forward(self, maps: list[Tensor]) -> Tensor:
        """`maps`: the hourglass input and the encoder's maps, largest first."""
        x = maps[-1]
        for block, skip in zip(self.up_blocks, maps[-2::-1], strict=True):
            x = torch.cat([block(x), skip], dim=1)
        return x


class Hourglass(nn.Module):
    """U-Net of `num_blocks` levels: (B, inputs, H, W) -> (B, block_expansion + inputs, H, W).

    H and W must be divisible by 2**num_blocks.
    """

    def __init__(self, inputs: int, block_expansion: int, max_features: int, num_blocks: int) -> None:
        super().__init__()
        self.encoder = Encoder(inputs, block_expansion, max_features, num_blocks)
        self.decoder = Decoder(inputs, block_expansion, max_features, num_blocks)
        self.out_channels = self.decoder.out_channels

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder([x, *self.encoder(x)])
