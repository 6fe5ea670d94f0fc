"""What the names and shapes of another tool's weights show of the network."""

import re
from dataclasses import replace
from math import isqrt
from typing import Any

from torch import Tensor

from mtanimate.checkpoints.layouts import POSITION, token_grid
from mtanimate.config import (
    BackgroundConfig,
    DenseMotionConfig,
    GeneratorConfig,
    HeatmapEstimatorConfig,
    HRNetConfig,
    ModelConfig,
    MotionTransformerConfig,
)
from mtanimate.errors import InputError

Weights = dict[str, Tensor]  # by `part.name`


def infer(weights: Weights, layout: str, told: ModelConfig) -> ModelConfig:
    """The network's configuration; from `told` only what shapes do not show.

    That is, for `fomm`: resolution, temperature, padding, the keypoints' variance; for `release`: heads, skips, the
    variance. Raises InputError, naming the entry, where one is missing that shows something.
    """
    masks = shape(weights, "generator.dense_motion_network.mask.weight")[0]
    config = replace(
        told,
        num_keypoints=masks - 1,
        dense_motion=_dense_motion(weights, told.dense_motion),
        generator=_generator(weights, told.generator),
        background=None,
    )
    if layout == "fomm":
        assert isinstance(told.estimator, HeatmapEstimatorConfig)
        return replace(config, estimator=_keypoint_detector(weights, told.estimator))
    assert isinstance(told.estimator, MotionTransformerConfig)
    estimator = _transformer(weights, told.estimator)
    return replace(
        config,
        resolution=_resolution(weights, estimator.patch_size, told.resolution),
        estimator=estimator,
        background=_background(weights, told.background),
    )


def shape(weights: Weights, name: str) -> tuple[int, ...]:
    """Of the entry `part.name`. Raises InputError where it is missing."""
    if name not in weights:
        raise InputError(f"the entry {name} is missing: damaged, or an unknown variant of this network")
    return tuple(weights[name].shape)


def _count(weights: Weights, prefix: str) -> int:
    """How many numbered modules there are below a prefix."""
    numbers = {match[1] for name in weights if (match := re.match(re.escape(prefix) + r"(\d+)\.", name))}
    return len(numbers)


def _scale(weights: Weights, name: str) -> float:
    """The reduction that a stored blur (3, 1, k, k) belongs to: k = 4 (1/scale - 1) + 1; 1 without one."""
    return 1 / ((shape(weights, name)[-1] - 1) // 4 + 1) if name in weights else 1.0


def _most(told: int, block_expansion: int, num_blocks: int, deepest: int) -> int:
    """max_features: what was told where it makes the deepest block what it is, else that block's channels."""
    return told if min(told, block_expansion * 2**num_blocks) == deepest else deepest


def _hourglass(weights: Weights, prefix: str, told: int) -> dict[str, Any]:
    blocks = _count(weights, f"{prefix}encoder.down_blocks.")
    if not blocks:
        raise InputError(f"no entry {prefix}encoder.down_blocks.0: damaged, or an unknown variant of this network")
    expansion = shape(weights, f"{prefix}decoder.up_blocks.{blocks - 1}.conv.weight")[0]
    deepest = shape(weights, f"{prefix}encoder.down_blocks.{blocks - 1}.conv.weight")[0]
    return {
        "block_expansion": expansion,
        "max_features": _most(told, expansion, blocks, deepest),
        "num_blocks": blocks,
    }


def _dense_motion(weights: Weights, told: DenseMotionConfig) -> DenseMotionConfig:
    prefix = "generator.dense_motion_network."
    return replace(
        told,
        **_hourglass(weights, f"{prefix}hourglass.", told.max_features),
        scale_factor=_scale(weights, f"{prefix}down.weight"),
        occlusion=f"{prefix}occlusion.weight" in weights,
    )


def _generator(weights: Weights, told: GeneratorConfig) -> GeneratorConfig:
    levels = _count(weights, "generator.down_blocks.")
    expansion = shape(weights, "generator.first.conv.weight")[0]
    last = f"generator.down_blocks.{levels - 1}.conv.weight" if levels else "generator.first.conv.weight"
    return replace(
        told,
        block_expansion=expansion,
        max_features=_most(told.max_features, expansion, levels, shape(weights, last)[0]),
        num_down_blocks=levels,
        num_bottleneck_blocks=_count(weights, "generator.bottleneck.r"),
    )


def _keypoint_detector(weights: Weights, told: HeatmapEstimatorConfig) -> HeatmapEstimatorConfig:
    keypoints = shape(weights, "kp_detector.kp.weight")[0]
    affine = weights.get("kp_detector.jacobian.weight")
    return replace(
        told,
        name="fomm" if affine is not None else "monkey-net",
        **_hourglass(weights, "kp_detector.predictor.", told.max_features),
        scale_factor=_scale(weights, "kp_detector.down.weight"),
        shared_affine=affine is not None and keypoints > 1 and affine.shape[0] == 4,
    )


def _transformer(weights: Weights, told: MotionTransformerConfig) -> MotionTransformerConfig:
    prefix = "kp_detector.transformer."
    dim, patch = shape(weights, f"{prefix}patch_to_embedding.weight")
    backbone = _backbone(weights)
    hidden = shape(weights, f"{prefix}transformer.layers.0.1.fn.fn.net.0.weight")[0]
    return replace(
        told,
        variant="release",
        backbone=backbone,
        patch_size=isqrt(patch // backbone.widths[0]),
        dim=dim,
        layers=_count(weights, f"{prefix}transformer.layers."),
        mlp_ratio=hidden // dim,
        attention="unified",
        position="every_layer",
        scale_factor=1.0,
    )


def _backbone(weights: Weights) -> HRNetConfig:
    prefix = "kp_detector.pre_feature."
    return HRNetConfig(
        widths=tuple(shape(weights, f"{prefix}stage3.0.branches.{branch}.0.conv1.weight")[0] for branch in range(3)),
        stem_width=shape(weights, f"{prefix}conv1.weight")[0],
        layer1_width=shape(weights, f"{prefix}layer1.0.conv1.weight")[0],
        layer1_blocks=_count(weights, f"{prefix}layer1."),
        stage2_modules=_count(weights, f"{prefix}stage2."),
        stage2_blocks=tuple(_count(weights, f"{prefix}stage2.0.branches.{branch}.") for branch in range(2)),
        stage3_modules=_count(weights, f"{prefix}stage3."),
        stage3_blocks=tuple(_count(weights, f"{prefix}stage3.0.branches.{branch}.") for branch in range(3)),
    )


def _resolution(weights: Weights, patch_size: int, told: int) -> int:
    """The picture's longer side: the stored position code tells rows from columns of 1/4-size patches."""
    tokens = shape(weights, POSITION)[1]
    grid = token_grid(weights[POSITION])
    if grid is not None:
        return max(grid) * 4 * patch_size
    if tokens != (told // (4 * patch_size)) ** 2:
        raise InputError(f"{POSITION} has {tokens} tokens, which are not those of {told} x {told} pixels")
    return told


def _background(weights: Weights, told: BackgroundConfig | None) -> BackgroundConfig | None:
    blocks = _count(weights, "bg_predictor.encoder.down_blocks.")
    if not blocks:
        return None
    most = told.max_features if told is not None else BackgroundConfig.max_features
    first, deepest = (
        shape(weights, f"bg_predictor.encoder.down_blocks.{block}.conv.weight")[0] for block in (0, blocks - 1)
    )
    return BackgroundConfig(first // 2, _most(most, first // 2, blocks, deepest), blocks)
