"""Consistency: settings that are valid one by one and do not fit together, reported before a network is built."""

import math

from mtanimate.config.model import (
    FACE_POINTS,
    SPLINE_POINTS,
    EstimatorConfig,
    HeatmapEstimatorConfig,
    ModelConfig,
    MotionTransformerConfig,
    SplineEstimatorConfig,
)
from mtanimate.config.training import Config
from mtanimate.errors import InputError

# Far above any useful size; a map of so many values takes 1 GiB.
_LARGEST_MAP = 1 << 28
_MOST_TOKENS = 4096
_MOST_BLOCKS = 1000


def check(config: Config) -> Config:
    """Checks that settings fit together.

    Returns:
        The same configuration.

    Raises:
        InputError: no network can be made of it; the message names the settings.
    """
    estimator = config.model.estimator
    if isinstance(estimator, MotionTransformerConfig):
        _check_transformer(estimator)
    else:
        _check_other_estimators(estimator, config)
    _check_face(config)
    _check_occlusion(config.model)
    _check_room(config.model)
    check_sizes(config.model)
    _check_loss(config)
    low, high = config.data.augmentation.window
    if low > high:
        raise InputError(f"data.augmentation.window: [{low:g}, {high:g}] begins above its end")
    return config


def _check_transformer(config: MotionTransformerConfig) -> None:
    if config.dim % config.heads:
        raise InputError(f"model.estimator.dim: {config.dim} cannot be shared by {config.heads} heads")
    if config.dim % 4:
        raise InputError(f"model.estimator.dim: {config.dim} is not divisible by 4, as the sine code needs")
    backbone = config.backbone
    if not backbone.widths:
        return
    for name, found, wanted in (
        ("widths", backbone.widths, 3),
        ("stage2_blocks", backbone.stage2_blocks, 2),
        ("stage3_blocks", backbone.stage3_blocks, 3),
    ):
        if len(found) != wanted:
            raise InputError(
                f"model.estimator.backbone.{name}: {len(found)} numbers, not one for each of {wanted} branches"
            )


def _check_room(config: ModelConfig) -> None:
    """Settings in range can still ask, together, for more memory than any machine has."""
    estimator, side = config.estimator, config.resolution
    small = side * config.dense_motion.scale_factor
    maps = {
        "generator.block_expansion": (config.generator.block_expansion, side),
        "dense_motion.block_expansion": (config.dense_motion.block_expansion, small),
        "num_keypoints": (4 * (config.num_keypoints + 1), small),
    }
    if config.background is not None:
        maps["background.block_expansion"] = (config.background.block_expansion, side)
    if isinstance(estimator, HeatmapEstimatorConfig):
        maps["estimator.block_expansion"] = (estimator.block_expansion, side * estimator.scale_factor)
    elif isinstance(estimator, SplineEstimatorConfig):
        maps["estimator.width"] = (estimator.width, side * estimator.scale_factor / 2)
    else:
        backbone, quarter = estimator.backbone, side * estimator.scale_factor / 4
        widest = max(*backbone.widths, backbone.stem_width, 4 * backbone.layer1_width)
        maps["estimator.backbone"] = (widest, quarter)
        tokens = (quarter / estimator.patch_size) ** 2
        if tokens > _MOST_TOKENS:
            raise InputError(f"model.estimator.patch_size: {tokens:.0f} tokens, more than {_MOST_TOKENS}")
        blocks = backbone.layer1_blocks + sum(
            modules * sum(each)
            for modules, each in (
                (backbone.stage2_modules, backbone.stage2_blocks),
                (backbone.stage3_modules, backbone.stage3_blocks),
            )
        )
        if blocks > _MOST_BLOCKS:
            raise InputError(f"model.estimator.backbone: {blocks} blocks, more than {_MOST_BLOCKS}")
    for name, (channels, pixels) in maps.items():
        if channels * pixels**2 > _LARGEST_MAP:
            raise InputError(
                f"model.{name}: {channels} channels at {pixels:g} x {pixels:g} pixels are more than {_LARGEST_MAP} "
                "values a picture"
            )


def _check_face(config: Config) -> None:
    """What is made for the points of a face needs tied tokens."""
    estimator = config.model.estimator
    tied = isinstance(estimator, MotionTransformerConfig) and estimator.tied == "face"
    if tied and config.model.num_keypoints < FACE_POINTS:
        raise InputError(f"model.num_keypoints: a face has {FACE_POINTS} points (model.estimator.tied): give as many")
    if tied and (config.loss.equivariance_affine or config.loss.anchor):
        raise InputError(
            "loss.equivariance_affine and loss.anchor are for free tokens, not model.estimator.tied: set them to 0"
        )
    needing = {
        "model.estimator.refinement_width": isinstance(estimator, MotionTransformerConfig)
        and estimator.refinement_width,
        "model.dense_motion.prior": config.model.dense_motion.prior,
        "loss.token_landmarks": config.loss.token_landmarks,
    }
    for name, asked in needing.items():
        if asked and not tied:
            raise InputError(f"{name} needs motion tokens that are tied to a face: set model.estimator.tied to face")
    if config.model.dense_motion.prior and config.model.background is not None:
        raise InputError("model.background: with model.dense_motion.prior the background stands still: leave one out")
    if config.model.dense_motion.residual and not config.model.dense_motion.prior:
        raise InputError("model.dense_motion.residual is added to a face's flow: set model.dense_motion.prior to true")
    if config.model.generator.openings and not config.model.dense_motion.prior:
        raise InputError("model.generator.openings are read off a face's points: set model.dense_motion.prior to true")
    if config.model.dense_motion.prior and config.model.num_keypoints != FACE_POINTS:
        raise InputError(f"model.num_keypoints: model.dense_motion.prior is for a face's {FACE_POINTS} points alone")


def _check_occlusion(config: ModelConfig) -> None:
    """What maps of occlusion need, and what needs them."""
    masks, generator = config.dense_motion, config.generator
    if masks.black_outside and (masks.prior or not masks.exact_sampling):
        raise InputError("model.dense_motion.black_outside goes with exact_sampling, and without prior")
    if masks.multi_occlusion:
        if masks.prior or not masks.occlusion:
            raise InputError("model.dense_motion.multi_occlusion goes with occlusion, and without prior")
        if masks.scale_factor not in (0.5, 0.25, 0.125):
            raise InputError("model.dense_motion.multi_occlusion needs a scale_factor of 0.5, 0.25 or 0.125")
        if generator.num_down_blocks != 3:
            raise InputError("model.dense_motion.multi_occlusion needs model.generator.num_down_blocks=3, a size a map")
        coarser = 4 + round(math.log2(masks.scale_factor))
        if masks.num_blocks < coarser:
            raise InputError(f"model.dense_motion.multi_occlusion needs num_blocks of {coarser} or more")
    whole = masks.occlusion and generator.skips and generator.num_down_blocks and not masks.prior
    if generator.inpainting and not whole:
        raise InputError(
            "model.generator.inpainting goes with skips, with num_down_blocks of 1 or more, with "
            "model.dense_motion.occlusion, and without model.dense_motion.prior"
        )


def _check_loss(config: Config) -> None:
    loss, window = config.loss, config.loss.window
    unit = 2**config.model.generator.num_down_blocks
    if window % unit or window > config.model.resolution:
        raise InputError(f"loss.window: {window} must be a multiple of {unit}, up to {config.model.resolution}")
    if window and (loss.close_up or config.model.background is not None):
        raise InputError("loss.window goes with neither loss.close_up, which it replaces, nor a background predictor")
    if loss.painting and not (window and config.model.generator.skips):
        raise InputError("loss.painting needs loss.window, and a generator whose skips a painted picture stands behind")
    if loss.warped and not window:
        raise InputError("loss.warped is for the pictures around the windows: set loss.window, or warped to 0")
    full, side = config.data.full_resolution, config.model.resolution
    if bool(loss.detail) != bool(full):
        raise InputError("loss.detail and data.full_resolution need each other: set both above 0, or both to 0")
    if full and full <= side:
        raise InputError(f"data.full_resolution: {full} must be above model.resolution, which is {side}")
    if loss.detail and (window or not config.model.generator.skips or not (loss.pixel or loss.perceptual)):
        raise InputError(
            "loss.detail needs whole pictures (loss.window=0), model.generator.skips, and loss.pixel or loss.perceptual"
        )
    if loss.still and config.data.augmentation.own_window:
        raise InputError(
            "loss.still: no background stands still with data.augmentation.own_window: set one of them to 0"
        )


def _check_other_estimators(estimator: HeatmapEstimatorConfig | SplineEstimatorConfig, config: Config) -> None:
    name = estimator.name
    if isinstance(estimator, SplineEstimatorConfig):
        if config.model.num_keypoints % SPLINE_POINTS:
            raise InputError(f"model.num_keypoints: splines have {SPLINE_POINTS} points each: give a multiple of that")
        if bool(estimator.identity_width) != bool(estimator.pose_width):
            raise InputError("model.estimator.identity_width and pose_width belong together: give both, or 0 for both")
    elif name != "fomm" and estimator.shared_affine:
        raise InputError(f"model.estimator.shared_affine: {name} regresses no matrices: set it to false")
    if name != "fomm" and config.loss.equivariance_affine:
        raise InputError(
            f"loss.equivariance_affine: {name} regresses no matrices that it could train: set it to 0 "
            f"(--estimator {name} does so by itself)"
        )
    if config.training.backbone_file or "backbone" in config.training.freeze:
        raise InputError(f"{name} has no backbone to load weights into or to freeze; motion-transformer has")


def check_sizes(config: ModelConfig) -> None:
    """Checks that every part of the network can halve its picture as often as it does.

    Raises:
        InputError: the resolution is not divisible.
    """
    parts = {
        "estimator": (config.estimator.scale_factor, _estimator_unit(config.estimator)),
        "dense_motion": (config.dense_motion.scale_factor, 2**config.dense_motion.num_blocks),
        "generator": (1.0, 2**config.generator.num_down_blocks),
    }
    if config.background is not None and not config.background.resnet:
        parts["background"] = (1.0, 2**config.background.num_blocks)
    for name, (scale, unit) in parts.items():
        side = config.resolution * scale
        if side % unit:
            raise InputError(
                f"model.resolution: {config.resolution} does not suit model.{name}, which works on {side:g} pixels "
                f"and needs a multiple of {unit}"
            )


def _estimator_unit(config: EstimatorConfig) -> int:
    if isinstance(config, SplineEstimatorConfig):
        return 1
    if isinstance(config, HeatmapEstimatorConfig):
        return 2**config.num_blocks
    return math.lcm(16 if config.backbone.widths else 4, 4 * config.patch_size)
