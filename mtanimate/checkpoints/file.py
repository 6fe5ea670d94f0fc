"""The checkpoint file: safetensors, with the configuration, the origin and a checksum in its metadata."""

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mtanimate.config import Config, from_checkpoint, to_mapping
from mtanimate.errors import InputError, MTAnimateError, OutOfMemory, is_of_memory
from mtanimate.files import hidden_beside, replacing
from mtanimate.models.animator import Animator, outline_network
from mtanimate.reading import parse_json

FORMAT = "mtanimate-1"
KEPT = "kept."  # prefix of tensors that our network computes, and only another tool's layout stores


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read.

    Attributes:
        animator: the network, in evaluation mode, without gradients.
        config: the configuration that it was trained with.
        about: its origin (steps, samples, data, licence, ...), as text by name.
    """

    animator: Animator
    config: Config
    about: dict[str, str]


def write_checkpoint(
    path: Path,
    animator: Animator,
    config: Config,
    about: dict[str, Any],
    half: bool = False,
    kept: dict[str, Tensor] | None = None,
    overwrite: bool = True,
) -> None:
    """Writes a checkpoint whole or not at all.

    Args:
        path: of the file.
        animator: the network.
        config: its configuration.
        about: its origin, by name.
        half: whether to store float16, for shipping.
        kept: tensors of another tool's layout that are needed to export it again.
        overwrite: whether an existing file may be replaced.

    Raises:
        InputError: the file exists, unless `overwrite`.
        MTAnimateError: a weight is not finite, or writing failed.
    """
    dtype = torch.float16 if half else torch.float32
    tensors = {
        name: tensor.detach().cpu().to(dtype if tensor.is_floating_point() else tensor.dtype).contiguous()
        for name, tensor in animator.state_dict().items()
    }
    unfit = not_finite(tensors.items())
    if unfit:
        raise MTAnimateError(f"not written: weights that are not finite{' in float16' * half}, {unfit[0]} first")
    tensors |= {KEPT + name: tensor for name, tensor in (kept or {}).items()}
    metadata = {"format": FORMAT, "config": json.dumps(to_mapping(config)), "weights_sha256": digest(tensors.items())}
    metadata |= {f"about.{key}": str(value) for key, value in about.items()}
    try:
        with replacing(path, overwrite) as partial:
            partial.touch()
            mode = partial.stat().st_mode
            with _hidden_folder(path) as folder:
                save_file(tensors, folder / path.name, metadata)
                os.replace(folder / path.name, partial)
            partial.chmod(mode)  # safetensors makes a file for its owner alone
    except OSError as error:
        raise MTAnimateError(f"cannot write the checkpoint '{path}': {error.strerror}") from error
    except SafetensorError as error:
        raise MTAnimateError(f"cannot write the checkpoint '{path}': {error}") from error


@contextmanager
def _hidden_folder(path: Path) -> Iterator[Path]:
    """A folder beside `path` for safetensors' own temporary file: if the process is killed, it is cleared with it."""
    folder = hidden_beside(path)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 over names, types, shapes and bytes of tensors, in the order of their names.

    Args:
        tensors: pairs of name and tensor, on the CPU.

    Returns:
        Hexadecimal digits.
    """
    sha256 = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda item: item[0]):
        sha256.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha256.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return sha256.hexdigest()


def not_finite(tensors: Iterable[tuple[str, Tensor]]) -> list[str]:
    """The names of tensors that hold nan or inf."""
    return [name for name, tensor in tensors if not bool(torch.isfinite(tensor).all())]


def read_metadata(path: Path) -> dict[str, str]:
    """Reads the metadata of a checkpoint, without its weights.

    Args:
        path: of the file.

    Returns:
        Texts by name.

    Raises:
        InputError: the file is missing, broken or no checkpoint of this package.
        OutOfMemory: it needs more memory than there is.
    """
    if not path.is_file():
        raise InputError(f"no checkpoint '{path}'")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, struct.error) as error:
        if is_of_memory(error):
            raise OutOfMemory(f"'{path}'") from error
        raise InputError(f"'{path}' is not a whole safetensors file ({error}){_import_it(path)}") from error
    if metadata.get("format") != FORMAT:
        raise InputError(
            f"'{path}' is no mtanimate checkpoint: its metadata has no format '{FORMAT}'; of other tools torch files "
            "(.pth, .pt, .pth.tar) can be imported, safetensors cannot"
        )
    return metadata


def _import_it(path: Path) -> str:
    """A hint to import the file, if its first bytes are those of a torch file."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError:
        return ""
    if start.startswith((b"PK\x03\x04", b"\x80\x02")):
        return f"; if it is another tool's checkpoint: mtanimate checkpoints import '{path}'"
    return ""


def read_config(path: Path) -> Config:
    """Reads the configuration that a checkpoint carries.

    Raises:
        InputError: it has none that can be used.
    """
    metadata = read_metadata(path)
    try:
        return from_checkpoint(parse_json(metadata["config"]))
    except (InputError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"'{path}' has no usable configuration in its metadata ({error})") from error


def read_checkpoint(path: Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Builds the network that a file describes, and loads it in float32.

    Args:
        path: of the file.
        device: to put the network on.

    Raises:
        InputError: the file is missing, broken, foreign, not finite, or does not match its own configuration.
    """
    metadata, config = read_metadata(path), read_config(path)
    try:
        animator = outline_network(config.model)  # weights come from the file
    except InputError as error:
        raise InputError(f"'{path}': {error}") from error
    tensors = {name: tensor for name, tensor in read_tensors(path).items() if not name.startswith(KEPT)}
    mismatched = mismatches(animator.state_dict(), tensors)
    if mismatched:
        raise InputError(f"'{path}' does not fit its own configuration: {mismatched}")
    if not_finite(tensors.items()):
        raise InputError(f"'{path}' holds weights that are not finite: it is damaged or its training diverged")
    full = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    animator.load_state_dict(full, assign=True)
    about = {key.removeprefix("about."): value for key, value in metadata.items() if key.startswith("about.")}
    return Checkpoint(animator.to(device).eval().requires_grad_(False), config, about)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file by name, including those under `KEPT`."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)


def verify_checkpoint(path: Path) -> str:
    """Compares a file with its own checksum, and loads it.

    Returns:
        "" where the file is as it was written, else what is wrong.

    Raises:
        InputError: the file cannot be read.
    """
    metadata = read_metadata(path)
    if "weights_sha256" not in metadata:
        return "it holds no checksum to compare with (written by an older version)"
    if digest(read_tensors(path).items()) != metadata["weights_sha256"]:
        return "its weights are not those that were written: the file was changed or damaged"
    read_checkpoint(path)
    return ""


def mismatches(wanted: dict[str, Tensor], found: dict[str, Tensor], most: int = 6) -> str:
    """Lists where two state dicts differ in names, shapes or kinds of numbers.

    Args:
        wanted: what there should be.
        found: what there is.
        most: differences to list.

    Returns:
        One line; empty where they agree.
    """
    lines = [f"{name} is missing" for name in wanted.keys() - found.keys()]
    lines += [f"{name} is not known" for name in found.keys() - wanted.keys()]
    for name in wanted.keys() & found.keys():
        if wanted[name].shape != found[name].shape:
            lines.append(f"{name} is {tuple(found[name].shape)}, not {tuple(wanted[name].shape)}")
        elif wanted[name].is_floating_point() != found[name].is_floating_point():
            lines.append(f"{name} is of {found[name].dtype}, not {wanted[name].dtype}")
    lines.sort()
    return "; ".join(lines[:most] + [f"and {len(lines) - most} more"] * (len(lines) > most))
