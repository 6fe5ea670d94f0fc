"""Prepares a network for inference: folded batch norms, faster convolutions, half precision where it pays."""

import copy
import itertools
import json
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mtanimate.devices import DTYPES, has_bf16
from mtanimate.errors import InputError
from mtanimate.files import cache_folder, replacing
from mtanimate.inference.fast_convolutions import FewOutputsConv, UpsampledConv, WinogradConv
from mtanimate.models.animator import Animator
from mtanimate.models.blocks import ResidualBlock, UpBlock
from mtanimate.models.inpainting import InpaintingNetwork
from mtanimate.reading import read_json


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """Fold each batch norm into the convolution before it, in place. The network is in evaluation mode; returns it."""
    for module in network.modules():
        for conv_name, norm_name in _pairs(module):
            conv, norm = module.get_submodule(conv_name), module.get_submodule(norm_name)
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, conv_name, fuse_conv_bn_eval(conv, norm).requires_grad_(False))
                setattr(module, norm_name, nn.Identity())
    return network


def _pairs(module: nn.Module) -> Iterator[tuple[str, str]]:
    """The names of a module's convolutions, each with the norm that follows it."""
    names = [name for name, _ in module.named_children()]
    if isinstance(module, nn.Sequential):
        yield from itertools.pairwise(names)
    elif isinstance(module, ResidualBlock):
        yield "conv1", "norm2"  # pre-activation: nothing comes before norm1
    else:
        for name in names:
            norm = re.sub(r"^conv(\d*)$", lambda match: f"bn{match[1]}" if match[1] else "norm", name)
            if norm != name and norm in names:
                yield name, norm


# Input channels of an upsampled convolution. A deeper map is small and dominated by its weights: reading the kernels of
# four phases would cost more than the arithmetic they save.
_WIDEST = 512
_FEW = 4  # outputs; four times as many fill a vector register
# Layers that read coordinates: half precision would be off by pixels.
_OF_COORDINATES = ("dense_motion.expression", "motion_estimator.disentanglement")
LEAST_PSNR = 36.0  # of half precision against float32, in dB
_PAIRS = 5  # timings of both precisions, in turn, so that other work on the machine affects both alike
_KEPT_FOR = 30 * 24 * 3600  # seconds; machines change, and one may have been busy


class PreparedNetwork:
    """An animator that is prepared for inference once in each precision that is asked for.

    The animator is taken over: preparing may change it in place. Threads may share the result.
    """

    def __init__(self, animator: Animator) -> None:
        self.config = animator.config
        self._animator = animator
        self._ready: dict[str, Animator] = {}
        self._lock = Lock()

    def in_precision(self, precision: str) -> Animator:
        with self._lock:
            if precision not in self._ready:
                self._ready[precision] = prepare(self._animator, precision)
            return self._ready[precision]


@torch.no_grad()
def prepare(animator: Animator, precision: str) -> Animator:
    """A network for inference in `precision`: with fp32 the network itself, changed in place; otherwise a copy.

    Batch norms are folded. On a CPU, convolutions are replaced by those of `fast_convolutions`. The weights that half
    precision computes with are stored in it; coordinates, masks and norms stay in float32, as under autocast. With bf16
    the estimator stays in float32, since eight bits make keypoints tremble by a sixth of a pixel.
    """
    if precision != "fp32":
        animator = _shared_copy(animator)
    fold_batch_norms(animator)
    if animator.device.type == "cpu":
        _replace(animator, winograd=precision == "fp32")
        if isinstance(animator.generator, InpaintingNetwork):
            animator.generator.one_by_one = True
    if precision != "fp32":
        for name, module in animator.named_modules():
            exact = name.startswith(_OF_COORDINATES) or (precision == "bf16" and name.startswith("motion_estimator."))
            if isinstance(module, (nn.Conv2d, nn.Linear, UpsampledConv, FewOutputsConv)) and not exact:
                module.to(DTYPES[precision])
    return animator.channels_last()


def _shared_copy(animator: Animator) -> Animator:
    """A copy on the same memory: what replaces its weights leaves the original's alone."""
    own = {id(weight): nn.Parameter(weight.data, weight.requires_grad) for weight in animator.parameters()}
    return copy.deepcopy(animator, {**own, **{id(buffer): buffer for buffer in animator.buffers()}})


def autocast(device: torch.device, precision: str, *, estimator: bool = False) -> torch.autocast:
    """The autocast under which a prepared network computes. estimator: For its estimator, which has its own."""
    half = precision == "fp16" if estimator else precision != "fp32"
    # No cache of converted weights: it is freed at the end, while a CUDA graph would go on reading from it.
    return torch.autocast(device.type, DTYPES[precision], enabled=half, cache_enabled=False)


def _replace(network: nn.Module, winograd: bool) -> None:
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, UpBlock) and child.conv.in_channels <= _WIDEST:
                norms = [] if isinstance(child.norm, nn.Identity) else [child.norm]  # an instance norm is not folded
                setattr(module, name, nn.Sequential(UpsampledConv(child.conv), *norms, nn.ReLU(inplace=True)))
            elif isinstance(child, nn.Conv2d) and child.kernel_size == (7, 7) and child.padding == (3, 3):
                if child.out_channels <= _FEW:
                    setattr(module, name, FewOutputsConv(child))
            elif isinstance(module, ResidualBlock) and winograd and isinstance(child, nn.Conv2d):
                setattr(module, name, WinogradConv(child))


def fastest_precision(animator: Animator, weights: str, log: Callable[[str], None]) -> str:
    """What `--precision auto` means on this machine for this network.

    fp16 on CUDA. On a CPU that computes in bf16, bf16 where it is measured to be faster and its pictures are close to
    those of float32. Otherwise fp32. The measurement is kept in the user's cache for a month.

    Args:
        weights: Their SHA-256.
        log: Gets a line when a measurement is taken.
    """
    device = animator.device
    if device.type == "cuda":
        return "fp16"
    if device.type != "cpu" or not has_bf16(device):
        return "fp32"
    kept = cache_folder() / "precision.json"
    key = f"{platform.node()} {torch.get_num_threads()} threads, torch {torch.__version__}: {weights}"
    known = _read(kept)
    if key not in known:
        known[key] = {"precision": _measure(animator, log), "measured": time.time()}
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            with replacing(kept) as partial:
                partial.write_text(json.dumps(known, indent=1), "utf-8")
        except OSError as error:
            log(f"the measurement could not be kept in '{kept}': {error.strerror}")
    return known[key]["precision"]


def _read(kept: Path) -> dict[str, dict[str, Any]]:
    """The measurements of the last month; none where the file is damaged or of an older version."""
    try:
        known = read_json(kept)
        young = {key: found for key, found in known.items() if 0 <= time.time() - found["measured"] < _KEPT_FOR}
    except (OSError, InputError, ValueError, AttributeError, KeyError, TypeError):
        return {}
    return {key: found for key, found in young.items() if found.get("precision") in DTYPES}


def _measure(animator: Animator, log: Callable[[str], None]) -> str:
    """Time two frames in both precisions, in turn. The network itself is not changed."""
    exact, half = prepare(copy.deepcopy(animator), "fp32"), prepare(animator, "bf16")
    wanted, _ = _drive(exact, "fp32")  # the first call of each takes longer
    found, _ = _drive(half, "bf16")
    psnr = float(-10 * torch.log10((found - wanted).square().mean().clamp_min(1e-12)))
    ratio = statistics.median(_drive(half, "bf16")[1] / _drive(exact, "fp32")[1] for _ in range(_PAIRS))
    chosen = "bf16" if ratio < 0.9 and psnr >= LEAST_PSNR else "fp32"
    log(
        f"measured on this machine: bf16 takes {ratio:.2f} of fp32's time, its pictures are {psnr:.0f} dB from "
        f"fp32's: --precision auto is {chosen}"
    )
    return chosen


@torch.inference_mode()
def _drive(animator: Animator, precision: str) -> tuple[Tensor, float]:
    """Drive a smooth picture by two others. Returns the result, and the seconds it took."""
    side = animator.config.resolution
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, side)] * 2, indexing="ij")
    shifts = [0.0, 0.1, -0.1]
    pictures = torch.stack([torch.stack([torch.sin(5 * (x + s)), torch.cos(4 * y), x * y]) for s in shifts]) / 2 + 0.5
    device = animator.device
    with autocast(device, precision, estimator=True):
        source_motion = animator.estimate_motion(pictures[:1]).to(torch.float32)
    with autocast(device, precision):
        source = animator.encode_source(pictures[:1], source_motion)
    start = time.perf_counter()
    with autocast(device, precision, estimator=True):
        motion = animator.estimate_motion(pictures[1:]).to(torch.float32)
    with autocast(device, precision):
        driven = animator.drive(source, motion)
    return driven.float(), time.perf_counter() - start
