"""TPSMM's networks of the fixtures, whose weights are a formula of their names."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from golden import document, recipe_weights

from mtanimate.checkpoints.layouts import computed, from_layout, to_layout
from mtanimate.config import DenseMotionConfig, GeneratorConfig, ModelConfig, SplineEstimatorConfig
from mtanimate.models.animator import Animator, outline_network

MASKS = DenseMotionConfig(8, 32, 3, exact_sampling=True, black_outside=True)
SMALL = {
    "tpsmm_small": ModelConfig(
        resolution=64,
        num_keypoints=15,
        estimator=SplineEstimatorConfig(),
        dense_motion=replace(MASKS, multi_occlusion=True),
        generator=GeneratorConfig(8, 32, 3, 2, inpainting=True),
    ),
    "tpsmm_small_singlemask": ModelConfig(
        resolution=64,
        num_keypoints=10,
        estimator=SplineEstimatorConfig(),
        dense_motion=MASKS,
        generator=GeneratorConfig(8, 24, 2, 2, inpainting=True),
    ),
}


def recipe(config: ModelConfig, about: dict) -> dict[str, torch.Tensor]:
    """The weights, by `part.name` of TPSMM's layout."""
    theirs = {}
    for name, tensor in to_layout(outline_network(config).state_dict(), "tpsmm").items():
        part, _, rest = name.partition(".")
        seed = about.get("recipe_seed", about.get("seed"))
        shapes = {rest: tuple(tensor.shape)}
        theirs[name] = recipe_weights(shapes, part, seed, about["recipe_gain"], about["recipe_overrides"])[rest]
    return theirs


def recipe_network(config: ModelConfig, about: dict) -> Animator:
    animator = outline_network(config)
    animator.load_state_dict(from_layout(recipe(config, about), animator.state_dict(), "tpsmm"), assign=True)
    return animator.eval().requires_grad_(False)


@cache
def small_network(name: str) -> Animator:
    return recipe_network(SMALL[name], document(f"{name}/info.json"))


def write_small(folder: Path, name: str) -> Path:
    """The fixture's checkpoint, with a keypoint detector, which the fixture's own file does without."""
    config, parts = SMALL[name], {}
    for key, tensor in (recipe(config, document(f"{name}/info.json")) | computed(config, "tpsmm")).items():
        part, _, rest = key.partition(".")
        parts.setdefault(part, {})[rest] = tensor
    torch.save(parts | {"optimizer": {"state": {}}, "epoch": 99}, folder / "cpk.pth.tar")
    return folder / "cpk.pth.tar"
