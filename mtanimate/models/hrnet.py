"""The CNN encoder of the motion estimator: HRNet's first three stages (Sun et al., 2019).

Features have 1/4 of the picture's size. As in pose networks, the last module fuses into the highest resolution only.
Parameters are named as in timm's `hrnet_w32`, so that ImageNet weights load. Without `widths` only stem and layer1 are
built: the paper's `stem` encoder (Table 5).
"""

from torch import Tensor, nn
from torch.nn import functional as F

from mtanimate.config import HRNetConfig
from mtanimate.errors import InputError


class HRNet(nn.Module):
    """The CNN encoder.

    Args:
        config: widths and depths of its stages.
    """

    def __init__(self, config: HRNetConfig) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, config.stem_width, 3, 2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(config.stem_width)
        self.conv2 = nn.Conv2d(config.stem_width, 64, 3, 2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        width = config.layer1_width
        self.layer1 = nn.Sequential(
            *(Bottleneck(64 if i == 0 else 4 * width, width) for i in range(config.layer1_blocks))
        )
        self.out_channels = 4 * width
        self.has_stages = bool(config.widths)
        if self.has_stages:
            self._build_stages(config, 4 * width)
            self.out_channels = config.widths[0]

    def _build_stages(self, config: HRNetConfig, channels: int) -> None:
        c0, c1, c2 = config.widths
        self.transition1 = nn.ModuleList(
            [_conv_bn(channels, c0, 3), nn.Sequential(_conv_bn(channels, c1, 3, stride=2))]
        )
        self.stage2 = nn.ModuleList(
            HighResolutionModule((c0, c1), config.stage2_blocks, outputs=2) for _ in range(config.stage2_modules)
        )
        new_branch = nn.Sequential(_conv_bn(c1, c2, 3, stride=2))
        self.transition2 = nn.ModuleList([nn.Identity(), nn.Identity(), new_branch])
        last = config.stage3_modules - 1
        self.stage3 = nn.ModuleList(
            HighResolutionModule((c0, c1, c2), config.stage3_blocks, outputs=1 if i == last else 3)
            for i in range(config.stage3_modules)
        )

    def forward(self, image: Tensor) -> Tensor:
        """Computes features of a picture.

        Args:
            image: (B, 3, H, W) in [0, 1], H and W divisible by 16 (by 4 for `stem`). As in the published checkpoints,
                it is not normalised by ImageNet's mean.

        Returns:
            (B, C, H/4, W/4), C = `out_channels`.
        """
        x = F.relu(self.bn1(self.conv1(image)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = self.layer1(x)
        if not self.has_stages:
            return x
        branches = [transition(x) for transition in self.transition1]
        for module in self.stage2:
            branches = module(branches)
        branches = [*branches, self.transition2[2](branches[-1])]
        for module in self.stage3:
            branches = module(branches)
        return branches[0]


def load_imagenet_weights(backbone: HRNet, state: dict[str, Tensor]) -> None:
    """Loads timm's or the HRNet authors' ImageNet weights into `backbone`; entries beyond stage 3 are ignored.

    Args:
        backbone: to load into.
        state: the weights by name.

    Raises:
        InputError: an entry is missing or has another shape.
    """
    wanted = backbone.state_dict()
    misfits = [name for name, tensor in wanted.items() if name not in state or state[name].shape != tensor.shape]
    if misfits:
        raise InputError(f"these weights are not this HRNet's: {misfits[0]} is missing or has another shape")
    backbone.load_state_dict({name: state[name] for name in wanted})


class BasicBlock(nn.Module):
    """HRNet's residual block of two convolutions 3x3, of a constant number of channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + x)


class Bottleneck(nn.Module):
    """HRNet's residual block of convolutions 1x1, 3x3, 1x1; `width` is the middle one's, the output has 4 * `width`."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = None
        if channels != 4 * width:
            self.downsample = nn.Sequential(nn.Conv2d(channels, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(self.bn3(self.conv3(y)) + shortcut)


class HighResolutionModule(nn.Module):
    """Parallel branches, each of half the size of the one before; then each output sums all branches.

    Args:
        widths: channels of each branch.
        blocks: residual blocks of each branch.
        outputs: the number of outputs, from the largest on.
    """

    def __init__(self, widths: tuple[int, ...], blocks: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(width) for _ in range(count)))
            for width, count in zip(widths, blocks, strict=True)
        )
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(_fuse(widths, i, j) for j in range(len(widths))) for i in range(outputs)
        )

    def forward(self, inputs: list[Tensor]) -> list[Tensor]:
        branches = [branch(x) for branch, x in zip(self.branches, inputs, strict=True)]
        fused = []
        for row in self.fuse_layers:
            assert isinstance(row, nn.ModuleList)
            total = row[0](branches[0])
            for layer, branch in zip(list(row)[1:], branches[1:], strict=True):
                total = total + layer(branch)
            fused.append(F.relu(total))
        return fused


def _conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1, relu: bool = True) -> nn.Sequential:
    layers = [
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, nn.ReLU()) if relu else nn.Sequential(*layers)


def _fuse(widths: tuple[int, ...], i: int, j: int) -> nn.Module:
    """The path from branch j to output i: identity, convolution 1x1 and upsampling, or strided convolutions 3x3."""
    if j == i:
        return nn.Identity()
    if j > i:
        upsample = nn.Upsample(scale_factor=2 ** (j - i), mode="nearest")
        return nn.Sequential(*_conv_bn(widths[j], widths[i], 1, relu=False), upsample)
    steps = [_conv_bn(widths[j], widths[j], 3, stride=2) for _ in range(i - j - 1)]
    return nn.Sequential(*steps, _conv_bn(widths[j], widths[i], 3, stride=2, relu=False))
