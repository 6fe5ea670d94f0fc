"""Networks that have every part between them, as small as they go: exporting takes seconds an operator."""

from dataclasses import replace

import torch

from mtanimate.config import (
    BackgroundConfig,
    DenseMotionConfig,
    GeneratorConfig,
    HeatmapEstimatorConfig,
    HRNetConfig,
    ModelConfig,
    MotionTransformerConfig,
    SplineEstimatorConfig,
)
from mtanimate.config.model import FACE_POINTS
from mtanimate.models.animator import Animator

STEM = HRNetConfig(widths=(), stem_width=8, layer1_width=8, layer1_blocks=1)
HRNET = HRNetConfig((4, 8, 16), 8, 8, 1, stage2_blocks=(1, 1), stage3_modules=1, stage3_blocks=(1, 1, 1))
PAPER = ModelConfig(
    resolution=64,
    num_keypoints=3,
    estimator=MotionTransformerConfig(backbone=STEM, dim=16, layers=1, heads=2),
    dense_motion=DenseMotionConfig(block_expansion=8, max_features=16, num_blocks=1),
    generator=GeneratorConfig(block_expansion=8, max_features=16, num_down_blocks=1, num_bottleneck_blocks=1),
)


def _heatmap(name: str, **settings: object) -> HeatmapEstimatorConfig:
    return HeatmapEstimatorConfig(name=name, block_expansion=8, max_features=16, num_blocks=1, **settings)


NETWORKS = {
    "paper": PAPER,
    "release, HRNet, separate attention, reduced": replace(
        PAPER,
        estimator=replace(
            PAPER.estimator, variant="release", backbone=HRNET, attention="separate", position="once", scale_factor=0.5
        ),
    ),
    "fomm": replace(PAPER, estimator=_heatmap("fomm")),
    "monkey-net": replace(PAPER, estimator=_heatmap("monkey-net", scale_factor=1.0, padding=3)),
    "face": replace(
        PAPER,
        num_keypoints=FACE_POINTS,
        estimator=replace(PAPER.estimator, tied="face", refinement_width=4),
        dense_motion=replace(PAPER.dense_motion, prior=True, exact_sampling=True),
    ),
    "mraa, background, no skips, no occlusion, masks at full size": replace(
        PAPER,
        estimator=_heatmap("mraa"),
        dense_motion=replace(PAPER.dense_motion, scale_factor=1.0, occlusion=False),
        generator=replace(PAPER.generator, skips=False),
        background=BackgroundConfig(4, 8, 1),
    ),
    "tpsmm": ModelConfig(
        resolution=64,
        num_keypoints=10,
        estimator=SplineEstimatorConfig(width=4, identity_width=4, pose_width=4),
        dense_motion=DenseMotionConfig(8, 16, 2, exact_sampling=True, black_outside=True, multi_occlusion=True),
        generator=GeneratorConfig(4, 16, 3, 1, inpainting=True),  # a size a map, as its checkpoints have
        background=BackgroundConfig(4, resnet=True),
    ),
}


def network(config: ModelConfig, seed: int = 0) -> Animator:
    """Random weights; statistics of norms and motion unlike those of a fresh network."""
    torch.manual_seed(seed)
    animator = Animator(config).eval().requires_grad_(False)
    for name, tensor in animator.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            tensor.uniform_(0.5, 1.5)
        if "head" in name or name.endswith("fc.weight"):
            tensor.add_(0.1 * torch.randn_like(tensor))
    return animator


def pictures(count: int, side: int = 64, seed: int = 0) -> torch.Tensor:
    """Smooth, each unlike the others: (count, 3, side, side) in [0, 1]."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 6, 6, generator=random)
    return torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)
