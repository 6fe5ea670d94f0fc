"""The small networks of the release's fixtures, built here and filled with their weights."""

from functools import cache

from golden import release_checkpoint

from mtanimate.checkpoints.layouts import PARTS, from_layout
from mtanimate.config import (
    BackgroundConfig,
    DenseMotionConfig,
    GeneratorConfig,
    HRNetConfig,
    ModelConfig,
    MotionTransformerConfig,
)
from mtanimate.models.animator import Animator

CONFIGS = {
    "mtia_small": ModelConfig(
        resolution=64,
        num_keypoints=5,
        estimator=MotionTransformerConfig(
            variant="release",
            backbone=HRNetConfig(widths=(8, 16, 32), stage2_blocks=(2, 1), stage3_modules=2, stage3_blocks=(1, 2, 1)),
            dim=48,
            layers=3,
            heads=4,
        ),
        dense_motion=DenseMotionConfig(block_expansion=8, max_features=32, num_blocks=3),
        generator=GeneratorConfig(block_expansion=8, max_features=32, num_bottleneck_blocks=2),
        background=BackgroundConfig(block_expansion=4, max_features=16, num_blocks=3),
    ),
    # Not square (64 high, 96 wide), without skips and background.
    "mtia_small_noskip": ModelConfig(
        resolution=64,
        num_keypoints=6,
        estimator=MotionTransformerConfig(
            variant="release",
            backbone=HRNetConfig(widths=(8, 16, 32), stage2_blocks=(1, 1), stage3_modules=3, stage3_blocks=(1, 1, 1)),
            dim=32,
            layers=2,
            heads=4,
            mlp_ratio=2,
        ),
        dense_motion=DenseMotionConfig(block_expansion=8, max_features=32, num_blocks=2),
        generator=GeneratorConfig(block_expansion=8, max_features=24, num_bottleneck_blocks=1, skips=False),
    ),
}


@cache
def release_animator(name: str) -> Animator:
    animator = Animator(CONFIGS[name])
    checkpoint = release_checkpoint(name)
    theirs = {f"{part}.{key}": tensor for part in PARTS for key, tensor in (checkpoint.get(part) or {}).items()}
    animator.load_state_dict(from_layout(theirs, animator.state_dict(), "release"))
    return animator.eval().requires_grad_(False)
