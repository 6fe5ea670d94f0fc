"""Other tools' layouts of the same weights: names, stored constants, and the configuration that shapes reveal.

Numbers are not changed: a weight that goes into a layout comes back bit by bit.
"""

import re
from collections.abc import Iterable
from dataclasses import replace
from math import isqrt
from typing import Any

import torch
from torch import Tensor

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
from mtanimate.config.model import SPLINE_POINTS
from mtanimate.errors import InputError
from mtanimate.geometry import antialias_kernel
from mtanimate.models.motion_transformer import sine_position

# Parts of a checkpoint that hold the network; all else belongs to training.
PARTS = ("generator", "inpainting_network", "dense_motion_network", "kp_detector", "bg_predictor", "avd_network")
# Entries that only this layout has together.
SIGNATURES = {
    "release": ("kp_detector.transformer.keypoint_token", "generator.first.conv.weight"),
    "fomm": ("kp_detector.kp.weight", "generator.first.conv.weight"),
    "tpsmm": ("kp_detector.fg_encoder.conv1.weight", "inpainting_network.first.conv.weight"),
}
_GENERATOR = [(r"^dense_motion\.", "generator.dense_motion_network.")]
# (our names, theirs), applied in order; names inside of blocks, heads and backbone are the same.
RENAMES = {
    "fomm": [
        (r"^motion_estimator\.hourglass\.", "kp_detector.predictor."),
        (r"^motion_estimator\.heatmap_head\.", "kp_detector.kp."),
        (r"^motion_estimator\.affine_head\.", "kp_detector.jacobian."),
        *_GENERATOR,
    ],
    "release": [
        (r"^motion_estimator\.backbone\.", "kp_detector.pre_feature."),
        (r"^motion_estimator\.motion_tokens$", "kp_detector.transformer.keypoint_token"),
        (r"^motion_estimator\.patch_embedding\.", "kp_detector.transformer.patch_to_embedding."),
        (r"^motion_estimator\.keypoint_head\.", "kp_detector.transformer.mlp_head."),
        (r"^motion_estimator\.affine_head\.", "kp_detector.transformer.mlp_head_jacobian."),
        (r"^motion_estimator\.layers\.", "kp_detector.transformer.transformer.layers."),
        (r"\.attention_norm\.", ".0.fn.norm."),
        (r"\.attention\.(query|key|value)\.", ".0.fn.fn.to_qkv."),
        (r"\.attention\.out\.", ".0.fn.fn.to_out.0."),
        (r"\.mlp_norm\.", ".1.fn.norm."),
        (r"(layers\.\d+)\.mlp\.0\.", r"\1.1.fn.fn.net.0."),
        (r"(layers\.\d+)\.mlp\.2\.", r"\1.1.fn.fn.net.3."),
        (r"^background_predictor\.", "bg_predictor."),
        *_GENERATOR,
    ],
    "tpsmm": [
        (r"^motion_estimator\.resnet\.", "kp_detector.fg_encoder."),
        (r"^motion_estimator\.disentanglement\.identity\.", "avd_network.id_encoder."),
        (r"^motion_estimator\.disentanglement\.pose\.", "avd_network.pose_encoder."),
        (r"^motion_estimator\.disentanglement\.", "avd_network."),
        (r"^background_predictor\.resnet\.", "bg_predictor.bg_encoder."),
        (r"^generator\.residual_blocks\.", "inpainting_network.resblock."),
        (r"^generator\.", "inpainting_network."),
        (r"^dense_motion\.mask\.", "dense_motion_network.maps."),
        (r"^dense_motion\.occlusion\.maps\.", "dense_motion_network.occlusion."),
        (r"^dense_motion\.occlusion\.up\.", "dense_motion_network.up."),
        (r"^dense_motion\.occlusion\.(weight|bias)$", r"dense_motion_network.occlusion.0.\1"),
        (r"^dense_motion\.", "dense_motion_network."),
    ],
}
# What these names begin with: of the dense motion network, and of the generator.
_MASKS = {"fomm": "generator.dense_motion_network.", "tpsmm": "dense_motion_network."}
_MASKS["release"] = _MASKS["fomm"]
_PAINTER = {"fomm": "generator.", "release": "generator.", "tpsmm": "inpainting_network."}
POSITION = "kp_detector.transformer.pos_embedding"
_THIRDS = ("query", "key", "value")
Weights = dict[str, Tensor]  # by `part.name`


def their_name(name: str, layout: str) -> str:
    """The layout's name, `part.name`, for one of ours."""
    for pattern, replacement in RENAMES[layout]:
        name = re.sub(pattern, replacement, name)
    return name


def to_layout(state: dict[str, Tensor], layout: str) -> dict[str, Tensor]:
    """Renames our weights for a layout, in which queries, keys and values share one entry and tokens have a batch of 1.

    Args:
        state: our state dict.
        layout: `fomm`, `release` or `tpsmm`.

    Returns:
        Weights by `part.name`.
    """
    thirds: dict[str, list[Tensor]] = {}
    theirs = {}
    for name, tensor in state.items():
        target = their_name(name, layout)
        if target.endswith(".to_qkv.weight"):
            thirds.setdefault(target, []).append(tensor)
            theirs[target] = torch.cat(thirds[target])
        else:
            theirs[target] = tensor[None] if name.endswith(".motion_tokens") else tensor
    return theirs


def from_layout(theirs: dict[str, Tensor], names: Iterable[str], layout: str) -> dict[str, Tensor]:
    """Renames a layout's weights to ours.

    Args:
        theirs: weights by `part.name`, which must have all that are asked for.
        names: ours.
        layout: `fomm`, `release` or `tpsmm`.

    Returns:
        Our state dict.
    """
    ours = {}
    for name in names:
        tensor = theirs[their_name(name, layout)]
        third = name.split(".")[-2]
        if third in _THIRDS:
            tensor = tensor.chunk(3)[_THIRDS.index(third)]
        ours[name] = tensor[0] if name.endswith(".motion_tokens") else tensor
    return ours


def computed(config: ModelConfig, layout: str) -> dict[str, Tensor]:
    """What a layout stores beside weights: the blurs before reductions, and the position code.

    Args:
        config: of the network.
        layout: `fomm`, `release` or `tpsmm`.

    Returns:
        Tensors by `part.name`.
    """
    kernels = {f"{_MASKS[layout]}down.weight": config.dense_motion.scale_factor}
    estimator = config.estimator
    if isinstance(estimator, HeatmapEstimatorConfig):
        kernels["kp_detector.down.weight"] = estimator.scale_factor
    theirs = {name: antialias_kernel(scale).repeat(3, 1, 1, 1) for name, scale in kernels.items() if scale != 1}
    if layout == "release":
        assert isinstance(estimator, MotionTransformerConfig)
        side = config.resolution // (4 * estimator.patch_size)
        theirs[POSITION] = sine_position(side, side, estimator.dim)[None]
    return theirs


def token_grid(position: Tensor) -> tuple[int, int] | None:
    """Recognises a sine code.

    Args:
        position: (1, N, d).

    Returns:
        Rows and columns of the image tokens; None where it is no sine code.
    """
    count, dim = position.shape[1:]
    if dim % 4:
        return None
    for rows in range(1, count + 1):
        if count % rows == 0:
            code = sine_position(rows, count // rows, dim)
            if torch.allclose(code, position[0].float(), atol=1e-5):
                return rows, count // rows
    return None


def infer(weights: Weights, layout: str, told: ModelConfig) -> ModelConfig:
    """Infers a network's configuration from the shapes of its weights.

    Shapes do not reveal, for `fomm`: resolution, temperature, padding and the keypoints' variance; for `release`:
    heads, skips and the variance; for `tpsmm`: resolution and the variance.

    Args:
        weights: by `part.name`.
        layout: `fomm`, `release` or `tpsmm`.
        told: the configuration that provides these settings.

    Raises:
        InputError: an entry is missing that reveals a setting.
    """
    config = replace(
        told,
        dense_motion=_dense_motion(weights, _MASKS[layout], told.dense_motion),
        generator=_generator(weights, _PAINTER[layout], told.generator),
        background=None,
    )
    if layout == "tpsmm":
        return _splines(weights, config)
    masks = shape(weights, "generator.dense_motion_network.mask.weight")[0]
    config = replace(config, num_keypoints=masks - 1)
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
    """The shape of the entry `part.name`.

    Raises:
        InputError: it is missing.
    """
    if name not in weights:
        raise InputError(f"the entry {name} is missing: damaged, or an unknown variant of this network")
    return tuple(weights[name].shape)


def _count(weights: Weights, prefix: str) -> int:
    """The number of numbered modules below a prefix."""
    numbers = {match[1] for name in weights if (match := re.match(re.escape(prefix) + r"(\d+)\.", name))}
    return len(numbers)


def _scale(weights: Weights, name: str) -> float:
    """The scale of the reduction that a stored blur (3, 1, k, k) belongs to, k = 4 (1/scale - 1) + 1; 1 without one."""
    return 1 / ((shape(weights, name)[-1] - 1) // 4 + 1) if name in weights else 1.0


def _most(told: int, block_expansion: int, num_blocks: int, deepest: int) -> int:
    """max_features: `told` where it gives the deepest block its channels, else these channels."""
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


def _dense_motion(weights: Weights, prefix: str, told: DenseMotionConfig) -> DenseMotionConfig:
    several = _count(weights, f"{prefix}occlusion.")
    return replace(
        told,
        **_hourglass(weights, f"{prefix}hourglass.", told.max_features),
        scale_factor=_scale(weights, f"{prefix}down.weight"),
        occlusion=bool(several) or f"{prefix}occlusion.weight" in weights,
        multi_occlusion=several > 1,
    )


def _generator(weights: Weights, prefix: str, told: GeneratorConfig) -> GeneratorConfig:
    levels = _count(weights, f"{prefix}down_blocks.")
    expansion = shape(weights, f"{prefix}first.conv.weight")[0]
    last = f"{prefix}down_blocks.{levels - 1}.conv.weight" if levels else f"{prefix}first.conv.weight"
    blocks = _count(weights, f"{prefix}bottleneck.r") or _count(weights, f"{prefix}resblock.") // max(levels, 1)
    return replace(
        told,
        block_expansion=expansion,
        max_features=_most(told.max_features, expansion, levels, shape(weights, last)[0]),
        num_down_blocks=levels,
        num_bottleneck_blocks=blocks,
    )


def _splines(weights: Weights, config: ModelConfig) -> ModelConfig:
    """TPSMM's parts that the other layouts do not have."""
    numbers = shape(weights, "kp_detector.fg_encoder.fc.weight")[0]
    splines = shape(weights, "dense_motion_network.maps.weight")[0] - 1
    if numbers != 2 * SPLINE_POINTS * splines:
        raise InputError(
            f"kp_detector.fg_encoder.fc.weight gives {numbers} numbers, and dense_motion_network.maps.weight is of "
            f"{splines} splines, which need {2 * SPLINE_POINTS * splines}: damaged, or an unknown variant"
        )
    identity = pose = 0
    if any(name.startswith("avd_network.") for name in weights):
        identity, pose = (shape(weights, f"avd_network.{code}_encoder.9.bias")[0] for code in ("id", "pose"))
    background = None
    if any(name.startswith("bg_predictor.") for name in weights):
        width = shape(weights, "bg_predictor.bg_encoder.conv1.weight")[0]
        background = BackgroundConfig(block_expansion=width, resnet=True)
    width = shape(weights, "kp_detector.fg_encoder.conv1.weight")[0]
    return replace(
        config,
        num_keypoints=SPLINE_POINTS * splines,
        estimator=SplineEstimatorConfig(width=width, identity_width=identity, pose_width=pose),
        background=background,
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
    """The picture's longer side: the stored position code shows the grid of patches of the 1/4-size features."""
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
