"""Reading what `torch.save` wrote, within limits: nothing grows beyond what the file holds."""

import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from mtanimate.errors import InputError, OutOfMemory, is_of_memory
from mtanimate.reading import check_regular

_TIMES_SHARED = 4  # tensors with shared storage, such as tied weights, may amount to so many times the file's numbers


def load(path: Path, remedy: str) -> Any:
    """Reads tensors and plain values from a torch file.

    Args:
        path: of the file.
        remedy: what a user should do where it is damaged.

    Raises:
        InputError: it is no regular file, or would unpack to more than it holds.
        Exception: of PyTorch, where the file is damaged or wants to run something.
    """
    check_regular(path)
    held = check_archive(path, remedy) if is_archive(path) else path.stat().st_size
    content = torch.load(path, map_location="cpu", weights_only=True)
    check_tensors(path, content, held)
    return content


def is_archive(path: Path) -> bool:
    """Whether a file has torch's present format, a zip archive, by its first bytes, as torch tells.

    (`zipfile.is_zipfile` looks at the end, and fails on some damage.)

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def check_archive(path: Path, remedy: str) -> int:
    """Checks a zip archive. torch does not compress: what unpacks to more than the file is no checkpoint.

    Args:
        path: of the file.
        remedy: what a user should do where it is damaged.

    Returns:
        Bytes of the tensors in it.

    Raises:
        InputError: it is damaged, no checkpoint, or unpacks to more than the file has.
    """
    try:
        with zipfile.ZipFile(path) as file:
            entries = file.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
        raise InputError(f"'{path}' is a damaged archive ({' '.join(str(error).split())[:200]}): {remedy}") from error
    if not any(entry.filename.endswith("data.pkl") for entry in entries):
        raise InputError(f"'{path}' is a zip archive, but no checkpoint: it has no data.pkl")
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > path.stat().st_size or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise InputError(f"'{path}' unpacks to {unpacked} bytes, more than the file has: refused")
    return sum(entry.file_size for entry in entries if "/data/" in entry.filename)


def check_tensors(path: Path, content: Any, held: int) -> None:
    """Compares the size of tensors with what their file holds.

    A tensor that repeats its numbers (a stride of 0), or many that share them, would grow when they are copied.

    Args:
        path: named in the error.
        content: containers of tensors, of any depth.
        held: bytes of numbers in the file.

    Raises:
        InputError: they claim more than the file holds, or are not plain tensors on the CPU.
    """
    claimed = 0
    for tensor in _tensors(content):
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise InputError(f"'{path}' holds a sparse, quantised or empty tensor, which no checkpoint here needs")
        size = tensor.numel() * tensor.element_size()
        claimed += size
        if size > tensor.untyped_storage().nbytes() or claimed > _TIMES_SHARED * held:
            raise InputError(f"'{path}' claims {max(size, claimed)} bytes of weights and holds {held}: refused")


def _tensors(content: Any) -> Iterator[Tensor]:
    """Yields the tensors in containers of any depth. A pickle's containers may contain themselves: each is visited
    once.
    """
    waiting, seen = [content], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (dict, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            waiting.extend(value.values() if isinstance(value, dict) else value)


def read_weights(file: Path, what: str, remedy: str) -> dict[str, Tensor]:
    """Reads a state dict.

    Args:
        file: a safetensors or torch file.
        what: named in errors.
        remedy: what a user should do where it cannot be read.

    Returns:
        Tensors by name.

    Raises:
        InputError: it is missing, damaged or no state dict.
        OutOfMemory: it needs more memory than there is.
    """
    if not file.is_file():
        raise InputError(f"no {what} at '{file}': {remedy}")
    try:
        safe = file.suffix == ".safetensors"
        state = load_file(file) if safe else load(file, remedy)
    except InputError:
        raise
    except Exception as error:  # a damaged file makes the two readers raise errors of any type
        if is_of_memory(error):
            raise OutOfMemory(f"'{file}'") from error
        raise InputError(f"cannot read {what} from '{file}' ({type(error).__name__}): {remedy}") from error
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise InputError(f"'{file}' holds no {what}: {remedy}")
    return state
