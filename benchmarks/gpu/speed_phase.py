"""Frames a second of the network alone and from file to file; the field's way beside it."""

import copy
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from animate_speed import file_to_file, network_alone, seconds_of
from engine import compiled, fields_way, in_turns, latency, launched, share_of_peak
from torch import Tensor

from gpu.phase import PORTRAIT, Phase, make_clip, portrait_clip
from mtanimate.checkpoints.file import write_checkpoint
from mtanimate.config import Config
from mtanimate.models.animator import Animator

# From a network, a precision and pictures to what drives them all.
Way = Callable[..., Callable[[], Tensor]]
BATCHES = (1, 4, 16, 32)
SIZES = {"256 x 256": "256x256", "1080p": "1920x1080"}


def run(phase: Phase) -> None:
    half = "fp32" if phase.rehearsing else "fp16"
    networks = {name: network.to(phase.device) for name, network in phase.networks().items()}
    for name, network in networks.items():
        measure_network(phase, name, network, half)
    for name, network in networks.items():
        measure_files(phase, name, network)
    for name, network in networks.items():
        if phase.rehearsing:
            phase.cannot("torch.compile is left to a GPU: it takes minutes on a CPU", name, "compiled")
            continue
        pictures = portrait_clip(128, network.config.resolution)
        compiling = partial(measured, network, half, pictures, partial(compiled, batch=16))
        phase.attempt(compiling, name, f"{half} compiled, batches of 16", seconds=45)


def measure_network(phase: Phase, name: str, network: Animator, half: str) -> None:
    pictures = portrait_clip(8 if phase.rehearsing else 128, network.config.resolution)
    few = pictures[: len(pictures) // 4]
    field = partial(measured, network, "fp32", few, lambda network, precision, pictures: fields_way(network, pictures))
    phase.attempt(field, name, "the field's way")
    batches = [batch for batch in BATCHES if batch <= len(few)]
    for batch in batches:
        ours = partial(measured, network, half, pictures, partial(network_alone, batch=batch))
        phase.attempt(ours, name, f"{half}, batches of {batch}")
    timing = partial(in_milliseconds, network, half, few)
    phase.attempt(timing, name, f"{half}, latency of one frame")
    for batch in batches:
        key = f"{half} without CUDA graphs, batches of {batch}"
        if phase.rehearsing:
            phase.cannot("CUDA graphs are a GPU's", name, key)
        else:
            phase.attempt(partial(measured, network, half, pictures, partial(launched, batch=batch)), name, key)
    for precision in () if phase.rehearsing else ("bf16", "fp32"):
        other = partial(measured, network, precision, pictures, partial(network_alone, batch=16))
        phase.attempt(other, name, f"{precision}, batches of 16")


def measured(network: Animator, precision: str, pictures: Tensor, way: Way) -> dict[str, float]:
    if network.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    run = way(copy.deepcopy(network), precision, pictures)
    first = seconds_of(lambda: run()[0, 0, 0, 0].item())  # with what is compiled, recorded or chosen at the first call
    seconds = statistics.median(in_turns([run], 3)[0]) / len(pictures)
    found = {"frames_per_second": round(1 / seconds, 1), "first_turn_seconds": round(first, 2)}
    if network.device.type == "cuda":
        found["memory_mib"] = torch.cuda.max_memory_reserved() >> 20
    return found | {"share_of_peak": round(share_of_peak(network, precision, seconds), 3)}


def in_milliseconds(network: Animator, precision: str, pictures: Tensor) -> dict[str, float]:
    median, slow = latency(network, precision, pictures)
    return {"median_ms": round(1000 * median, 2), "percentile_99_ms": round(1000 * slow, 2)}


def measure_files(phase: Phase, name: str, network: Animator) -> None:
    checkpoint = phase.temp / f"{name}.safetensors"
    write_checkpoint(checkpoint, network, Config(model=network.config), {})
    for title, size in SIZES.items():
        driving = phase.temp / f"{size}.mp4"
        phase.attempt(partial(from_file, phase, checkpoint, driving, size), name, f"file to file, {title}")


def from_file(phase: Phase, checkpoint: Path, driving: Path, size: str) -> dict[str, Any]:
    if not driving.exists():
        make_clip(driving, size, 0.4 if phase.rehearsing else 20, "-preset", "veryfast")
    result = file_to_file(PORTRAIT, driving, phase.temp / "out.mp4", str(checkpoint), phase.device.type)
    warnings = {"warnings": result.warnings} if result.warnings else {}
    return {"frames_per_second": round(result.frames_per_second, 1), "frames": result.frames} | warnings
