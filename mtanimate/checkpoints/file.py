"""A checkpoint file: safetensors, with the configuration and its origin in the metadata."""

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from mtanimate.config import Config, from_checkpoint, to_mapping
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.files import replacing
from mtanimate.models.animator import Animator

FORMAT = "mtanimate-1"


@dataclass(frozen=True)
class Checkpoint:
    """A network in evaluation mode, its configuration, and what is known of its origin.

    about: steps, samples, data, licence... as text by name.
    """

    animator: Animator
    config: Config
    about: dict[str, str]


def write_checkpoint(path: Path, animator: Animator, config: Config, about: dict[str, Any], half: bool = False) -> None:
    """Write whole or not at all. half: float16, for shipping. Raises MTAnimateError where it cannot."""
    dtype = torch.float16 if half else torch.float32
    tensors = {
        name: tensor.detach().cpu().to(dtype if tensor.is_floating_point() else tensor.dtype).contiguous()
        for name, tensor in animator.state_dict().items()
    }
    unfit = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if unfit:
        raise MTAnimateError(f"not written: weights that are not finite{' in float16' * half}, {unfit[0]} first")
    metadata = {"format": FORMAT, "config": json.dumps(to_mapping(config))}
    metadata |= {f"about.{key}": str(value) for key, value in about.items()}
    try:
        with replacing(path) as partial:
            partial.write_bytes(save(tensors, metadata))
    except OSError as error:
        raise MTAnimateError(f"cannot write the checkpoint '{path}': {error.strerror}") from error


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a checkpoint, without its weights. Raises InputError where `path` is none of ours."""
    if not path.is_file():
        raise InputError(f"no checkpoint '{path}'")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, struct.error) as error:
        raise InputError(f"'{path}' is not a whole safetensors file ({error})") from error
    if metadata.get("format") != FORMAT:
        raise InputError(f"'{path}' is no mtanimate checkpoint: its metadata has no format '{FORMAT}'")
    return metadata


def read_checkpoint(path: Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Build the network that the file describes and load it, in float32, on `device`.

    Raises InputError where the file is missing, broken, foreign, or does not fit its own configuration.
    """
    metadata = read_metadata(path)
    try:
        config = from_checkpoint(json.loads(metadata["config"]))
        animator = Animator(config.model)
    except (InputError, KeyError, TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise InputError(f"'{path}' has no usable configuration in its metadata ({error})") from error
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
    mismatched = mismatches(animator.state_dict(), tensors)
    if mismatched:
        raise InputError(f"'{path}' does not fit its own configuration: {mismatched}")
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise InputError(f"'{path}' holds weights that are not finite: it is damaged or its training diverged")
    animator.load_state_dict(tensors)
    about = {key.removeprefix("about."): value for key, value in metadata.items() if key.startswith("about.")}
    return Checkpoint(animator.to(device).eval().requires_grad_(False), config, about)


def mismatches(wanted: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> str:
    """Where two state dicts differ in names and shapes, in one line: all, or the first six; empty: nowhere."""
    lines = [f"{name} is missing" for name in wanted.keys() - found.keys()]
    lines += [f"{name} is not known" for name in found.keys() - wanted.keys()]
    for name in wanted.keys() & found.keys():
        if wanted[name].shape != found[name].shape:
            lines.append(f"{name} is {tuple(found[name].shape)}, not {tuple(wanted[name].shape)}")
    lines.sort()
    return "; ".join(lines[:6] + [f"and {len(lines) - 6} more"] * (len(lines) > 6))
