"""ResNet-18 (He et al., CVPR 2016), with torchvision's names: from a picture to a few numbers."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_STAGES = 4
_BLOCKS = 2  # of each stage


class BasicBlock(nn.Module):
    """Two convolutions 3x3 with batch norms, and a shortcut around them.

    Args:
        inputs: channels.
        outputs: channels.
        stride: of the first convolution, and of the shortcut.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inputs != outputs:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet18(nn.Module):
    """The network without ImageNet's mean and deviation; the picture may have any size.

    Args:
        inputs: channels of the picture.
        outputs: numbers that the last layer gives.
        width: channels of the first stage, 64 in the original; each other stage has twice those of the one before.
    """

    def __init__(self, inputs: int, outputs: int, width: int = 64) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        before = width
        for stage in range(_STAGES):
            channels = width * 2**stage
            blocks = [BasicBlock(before, channels, 1 if stage == 0 else 2)]
            blocks += [BasicBlock(channels, channels, 1) for _ in range(_BLOCKS - 1)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            before = channels
        self.fc = nn.Linear(before, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) in [0, 1] -> (B, outputs), in float32 at least."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, padding=1)
        for stage in range(_STAGES):
            x = self.get_submodule(f"layer{stage + 1}")(x)
        numbers = self.fc(x.mean(dim=(2, 3)))
        return numbers.to(torch.promote_types(numbers.dtype, torch.float32))
