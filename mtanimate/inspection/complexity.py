"""Parameters and multiply-adds of each network (the paper's Tables 1 and 5), for `mtanimate models`."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mtanimate.config import (
    BACKBONES,
    EstimatorConfig,
    HeatmapEstimatorConfig,
    ModelConfig,
    MotionTransformerConfig,
    SplineEstimatorConfig,
    load_preset,
)
from mtanimate.config.consistency import check_sizes
from mtanimate.models.animator import Animator
from mtanimate.models.motion import Motion

# Backbone, variant, estimator, and its numbers in Tables 1 and 5.
ESTIMATORS: list[tuple[str, str, EstimatorConfig, tuple[float | None, float | None]]] = [
    ("stem", "paper", MotionTransformerConfig(backbone=BACKBONES["stem"]), (5.56, None)),
    ("hrnet_w32", "paper", MotionTransformerConfig(), (12.23, 7.54)),
    ("hrnet_w48", "paper", MotionTransformerConfig(backbone=BACKBONES["hrnet_w48"]), (21.30, None)),
    ("hrnet_w32", "release", MotionTransformerConfig(variant="release"), (None, None)),
    ("", "full size", HeatmapEstimatorConfig(name="fomm"), (14.21, 1.28)),
    ("", "full size", HeatmapEstimatorConfig(name="mraa"), (14.20, 1.26)),
    ("", "full size", HeatmapEstimatorConfig(name="monkey-net"), (None, None)),
    ("", "full size", SplineEstimatorConfig(), (None, None)),
]
_POINTS = 50  # of ten splines


@dataclass(frozen=True)
class Complexity:
    """The size and work of one network.

    Attributes:
        name: of the estimator, or `image-generator`.
        backbone: of the estimator.
        variant: of the network.
        part: `motion_estimator` or `image_generator`.
        parameters: their number.
        multiply_adds: for one picture, of convolutions, linear layers and attention products, without sampling, norms
            and softmax.
        paper_parameters: what the paper prints, in millions.
        paper_multiply_adds: what the paper prints, in billions.
    """

    name: str
    backbone: str
    variant: str
    part: str
    parameters: int
    multiply_adds: float
    paper_parameters: float | None = None
    paper_multiply_adds: float | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def model_complexities(resolution: int = 256) -> list[Complexity]:
    """Counts each estimator, the image generator, and the parts of the presets `small` and `face`.

    Args:
        resolution: side of the square pictures, in pixels.

    Raises:
        InputError: a network does not suit this resolution.
    """
    full = ModelConfig(resolution=resolution)
    rows = []
    for backbone, variant, estimator, (parameters, work) in ESTIMATORS:
        points = _POINTS if isinstance(estimator, SplineEstimatorConfig) else full.num_keypoints
        row = _measure_estimator(replace(full, estimator=estimator, num_keypoints=points), backbone, variant)
        rows.append(replace(row, paper_parameters=parameters, paper_multiply_adds=work))
    generator = _measure_generator(full, "full size")
    rows.append(replace(generator, paper_parameters=45.57, paper_multiply_adds=53.64))
    for preset, variant in (("small", "paper"), ("face", "tied")):
        config = replace(load_preset(preset).model, resolution=resolution)
        rows.append(_measure_estimator(config, "hrnet_small", variant))
        rows.append(_measure_generator(config, f"preset {preset}"))
    return rows


def _measure_estimator(config: ModelConfig, backbone: str, variant: str) -> Complexity:
    animator = _counted(config)
    picture = torch.empty(1, 3, config.resolution, config.resolution, device="meta")
    work = _multiply_adds(lambda: animator.estimate_motion(picture))
    parameters = _parameters(animator.motion_estimator)
    return Complexity(config.estimator.name, backbone, variant, "motion_estimator", parameters, work)


def _measure_generator(config: ModelConfig, variant: str) -> Complexity:
    """Dense motion network and encoder-decoder together, as the paper counts them."""
    animator = _counted(config)
    picture = torch.empty(1, 3, config.resolution, config.resolution, device="meta")
    points = config.num_keypoints
    motion = Motion(torch.empty(1, points, 2, device="meta"), torch.empty(1, points, 2, 2, device="meta"))
    work = _multiply_adds(lambda: animator.drive(animator.encode_source(picture, motion), motion))
    parameters = _parameters(animator.dense_motion) + _parameters(animator.generator)
    return Complexity("image-generator", "", variant, "image_generator", parameters, work)


def _counted(config: ModelConfig) -> Animator:
    """The network on the meta device, which computes nothing. Raises InputError for an unsuitable resolution."""
    check_sizes(config)
    with torch.device("meta"):
        return Animator(config).eval().requires_grad_(False).to("meta")  # cached constants too


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _multiply_adds(run: Callable[[], Any]) -> float:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 2
