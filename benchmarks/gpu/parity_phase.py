"""The same clip on the CPU in float32 and on the GPU in every precision: how far pictures and keypoints are apart."""

import copy
from functools import partial
from typing import Any

import torch
from animate_speed import drive_all
from engine import fields_way
from torch import Tensor

from gpu.phase import Phase, portrait_clip
from mtanimate.devices import has_bf16
from mtanimate.inference.predictor import Predictor
from mtanimate.models.animator import Animator

# Name -> precision, and whether float32 may be rounded to TF32 in products.
WAYS = {"fp32": ("fp32", False), "fp32 with TF32": ("fp32", True), "bf16": ("bf16", False), "fp16": ("fp16", False)}
BATCH = 4  # so that the third of four is played back as a CUDA graph


def run(phase: Phase) -> None:
    for name, network in phase.networks().items():
        pictures = portrait_clip(4 * BATCH, network.config.resolution)
        exact = fields_way(network, pictures)()
        with torch.no_grad():
            keypoints = network.estimate_motion(pictures / 255).keypoints
        for way, (precision, tf32) in WAYS.items():
            if phase.rehearsing and (tf32 or precision == "fp16" or not has_bf16(phase.device)):
                phase.cannot("not on a CPU", name, way)
                continue
            set_tf32(tf32)
            phase.attempt(partial(compare, phase, network, precision, pictures, exact, keypoints), name, way)
        set_tf32(False)


def set_tf32(allowed: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def compare(
    phase: Phase, network: Animator, precision: str, pictures: Tensor, exact: Tensor, keypoints: Tensor
) -> dict[str, Any]:
    """Raises RuntimeError where `precision` gave nonsense, and float32 took over."""
    predictor = Predictor(copy.deepcopy(network).to(phase.device), precision, print)
    difference = (drive_all(predictor, pictures, BATCH)().cpu() - exact).abs()
    trembling = (predictor.estimate(pictures).keypoints.cpu() - keypoints) * network.config.resolution / 2
    if predictor.precision != precision:
        raise RuntimeError(f"{precision} gave values that are not finite, or black frames")
    return {
        "psnr_db": round(-10 * difference.square().mean().clamp_min(1e-20).log10().item(), 1),
        "largest_difference": difference.max().item(),
        "keypoints_std_pixels": trembling.std().item(),
        "keypoints_largest_pixels": trembling.abs().max().item(),
    }
