"""The network's hyperparameters. The defaults are the paper's, at full size."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class HRNetConfig:
    """HRNet's first three stages; without `widths` only the stem and layer1."""

    widths: tuple[int, ...] = (32, 64, 128)
    stem_width: int = 64
    layer1_width: int = 64
    layer1_blocks: int = 4
    stage2_modules: int = 1
    stage2_blocks: tuple[int, ...] = (4, 4)
    stage3_modules: int = 4
    stage3_blocks: tuple[int, ...] = (4, 4, 4)


# The backbones of the paper's Table 5, and the small preset's.
BACKBONES = {
    "hrnet_w32": HRNetConfig(),
    "hrnet_w48": HRNetConfig(widths=(48, 96, 192)),
    "stem": HRNetConfig(widths=()),
    "hrnet_small": HRNetConfig(
        stem_width=32,
        layer1_width=32,
        layer1_blocks=2,
        stage2_blocks=(2, 2),
        stage3_modules=1,
        stage3_blocks=(2, 2, 2),
    ),
}


@dataclass(frozen=True)
class EstimatorConfig:
    """The Motion Transformer.

    variant: `paper` (one token a part, one linear head, logits / sqrt(dim)) or `release` (the published
        checkpoints: two tokens a part, two normed heads, logits / sqrt(dim / heads)).
    attention: `unified` (Eq. 7-8) or `separate` (Eq. 5-6).
    position: the sine code is added to the image tokens before every layer (`unified`), once, or never (Table 4).
    squash: keep keypoints inside the picture by 2 sigmoid(x) - 1 (the release always does).
    scale_factor: the picture is reduced by it, anti-aliased, before the backbone.
    """

    variant: Literal["paper", "release"] = "paper"
    backbone: HRNetConfig = BACKBONES["hrnet_w32"]
    patch_size: int = 4
    dim: int = 192
    layers: int = 12
    heads: int = 8
    mlp_ratio: int = 3
    attention: Literal["unified", "separate"] = "unified"
    position: Literal["every_layer", "once", "none"] = "every_layer"
    squash: bool = False
    scale_factor: float = 1.0


@dataclass(frozen=True)
class DenseMotionConfig:
    block_expansion: int = 64
    max_features: int = 1024
    num_blocks: int = 5
    scale_factor: float = 0.25
    keypoint_variance: float = 0.01
    occlusion: bool = True


@dataclass(frozen=True)
class GeneratorConfig:
    """skips: occlusion-gated skip connections; they have no parameters, so only this setting tells."""

    block_expansion: int = 64
    max_features: int = 512
    num_down_blocks: int = 2
    num_bottleneck_blocks: int = 6
    skips: bool = True


@dataclass(frozen=True)
class BackgroundConfig:
    block_expansion: int = 32
    max_features: int = 1024
    num_blocks: int = 5


@dataclass(frozen=True)
class ModelConfig:
    """The whole network. `resolution`: the side of the square pictures that it was trained on."""

    resolution: int = 256
    num_keypoints: int = 10
    estimator: EstimatorConfig = field(default_factory=EstimatorConfig)
    dense_motion: DenseMotionConfig = field(default_factory=DenseMotionConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    background: BackgroundConfig | None = None
