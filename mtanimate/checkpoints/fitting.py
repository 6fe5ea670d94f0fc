"""Which networks another tool's layout can hold."""

from dataclasses import replace

from mtanimate.checkpoints.configuration import SPLINE_BLOCKS
from mtanimate.config import HeatmapEstimatorConfig, HRNetConfig, ModelConfig, SplineEstimatorConfig

_STEM = ("stem_width", "layer1_width", "layer1_blocks")  # not in the release's configuration


def unfit(model: ModelConfig, layout: str) -> str:
    """Why a layout cannot hold a network; "" where it can.

    Args:
        model: the network's configuration.
        layout: `fomm`, `release` or `tpsmm`.
    """
    if layout == "tpsmm":
        return _unfit_splines(model)
    reason = _unfit_parts(model, layout)
    if not reason and model.dense_motion.exact_sampling:
        return "it samples exactly (model.dense_motion.exact_sampling), other tools half a pixel off"
    if not reason and model.dense_motion.multi_occlusion:
        return "it has several maps of occlusion (model.dense_motion.multi_occlusion), that tool one"
    if not reason and (model.generator.inpainting or (model.background is not None and model.background.resnet)):
        return "its generator or its background predictor is TPSMM's"
    return reason


def _unfit_parts(model: ModelConfig, layout: str) -> str:
    estimator = model.estimator
    if isinstance(estimator, SplineEstimatorConfig):
        return "its estimator is tpsmm"
    if isinstance(estimator, HeatmapEstimatorConfig):
        if layout != "fomm" or estimator.name == "mraa":
            return f"its estimator is {estimator.name}"
        if model.generator.skips:
            return "its generator has skips, FOMM's has none (train with --preset fomm)"
        return "it has a background predictor, FOMM has none" if model.background is not None else ""
    if layout != "release":
        return "its estimator is a Motion Transformer"
    if estimator.variant != "release":
        return "it is the variant `paper`; the release's tool knows its own alone (train with --preset vox-release)"
    if (estimator.attention, estimator.position, estimator.scale_factor) != ("unified", "every_layer", 1.0):
        return "the release has unified attention, the position before every layer, and pictures of full size alone"
    if not estimator.backbone.widths:
        return "its backbone is a stem alone, the release's is an HRNet"
    stem = replace(HRNetConfig(), **{name: getattr(estimator.backbone, name) for name in _STEM})
    return "" if stem == HRNetConfig() else "its backbone's stem and first layer have not the release's fixed widths"


def _unfit_splines(model: ModelConfig) -> str:
    """Why TPSMM's layout cannot hold a network."""
    estimator, masks, background = model.estimator, model.dense_motion, model.background
    if not isinstance(estimator, SplineEstimatorConfig):
        return f"its estimator is {estimator.name}"
    if not model.generator.inpainting or model.generator.num_bottleneck_blocks != SPLINE_BLOCKS:
        return "its generator is not TPSMM's (train with --preset tpsmm)"
    if (estimator.width, estimator.scale_factor) != (64, 1.0):
        return "TPSMM's estimator is a ResNet-18 of full width, for pictures of full size"
    if background is not None and (not background.resnet or background.block_expansion != 64):
        return "its background predictor is not TPSMM's, a ResNet-18 of full width"
    sampled = masks.exact_sampling and masks.black_outside
    return "" if sampled else "TPSMM samples exactly, with black outside (exact_sampling, black_outside)"
