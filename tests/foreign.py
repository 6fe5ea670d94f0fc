"""Checkpoints as other tools write them, made here: tiny ones, and any that is described by names and shapes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import MODEL

from mtanimate.checkpoints.configuration import write_configuration
from mtanimate.checkpoints.conversion import import_checkpoint
from mtanimate.checkpoints.layouts import PARTS, computed, to_layout
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
from mtanimate.errors import InputError
from mtanimate.models.animator import Animator

FOMM = replace(
    MODEL,
    estimator=HeatmapEstimatorConfig(block_expansion=8, max_features=16, num_blocks=2),
    generator=replace(MODEL.generator, skips=False),
)
RELEASE = replace(
    MODEL,
    estimator=MotionTransformerConfig(
        variant="release",
        backbone=HRNetConfig((4, 8, 16), stage2_blocks=(1, 1), stage3_modules=2, stage3_blocks=(1, 1, 1)),
        dim=16,
        layers=2,
        heads=4,
    ),
    background=BackgroundConfig(4, 16, 2),
)
TPSMM = ModelConfig(
    resolution=64,
    num_keypoints=10,
    estimator=SplineEstimatorConfig(width=4, identity_width=4, pose_width=6),
    dense_motion=DenseMotionConfig(8, 16, 2, exact_sampling=True, black_outside=True, multi_occlusion=True),
    generator=GeneratorConfig(8, 16, 3, 2, inpainting=True),
    background=BackgroundConfig(4, resnet=True),
)
MODELS = {"fomm": FOMM, "release": RELEASE, "tpsmm": TPSMM}


def checkpoint(model: ModelConfig, layout: str, seed: int = 0) -> dict[str, Any]:
    """What the tool of this layout saves of a network with random weights: a discriminator and optimisers, too."""
    torch.manual_seed(seed)
    animator = Animator(model)
    for name, tensor in animator.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            tensor.uniform_(0.5, 1.5)
    parts: dict[str, Any] = {}
    for name, tensor in (to_layout(animator.state_dict(), layout) | computed(model, layout)).items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = tensor.clone()
    parts["discriminator"] = {"discs.1.conv.weight": torch.randn(1, 4, 4, 4)}
    parts["optimizer_generator"] = {
        "state": {0: {"step": 3, "exp_avg": torch.randn(5)}},
        "param_groups": [{"lr": 1e-4}],
    }
    return parts | {"epoch": 7}


def write(
    folder: Path, layout: str, model: ModelConfig | None = None, name: str = "theirs.pth.tar"
) -> tuple[Path, Path]:
    """A checkpoint file, and its configuration file."""
    model = model or MODELS[layout]
    torch.save(checkpoint(model, layout), folder / name)
    (folder / "config.yaml").write_text(write_configuration(model, layout), "utf-8")
    return folder / name, folder / "config.yaml"


def described(entries: dict[str, tuple[str, list[int]]], seed: int) -> dict[str, torch.Tensor]:
    """Random weights in a layout: name -> type and shape. Variances are positive, as they are."""
    random = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, (dtype, shape) in entries.items():
        if dtype == "int64":
            tensors[name] = torch.tensor(5)
        else:
            tensors[name] = torch.empty(shape).normal_(std=0.02, generator=random)
            if name.endswith("running_var"):
                tensors[name] += 1
    return tensors


def refused(path: Path, **options: Any) -> str:
    """The one line with which a file is refused."""
    with pytest.raises(InputError) as caught:
        import_checkpoint(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def weights(path: Path) -> dict[str, torch.Tensor]:
    """The networks' tensors in a file of another tool."""
    content = torch.load(path, weights_only=True)
    return {f"{part}.{name}": tensor for part in PARTS if part in content for name, tensor in content[part].items()}
