"""Numbers that other tools computed (fixtures/README.md). Two networks' are too large and stand beside the checkout:
their tests skip on a machine without them, saying so."""

import json
import lzma
import re
import tempfile
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

FIXTURES = Path(__file__).parent / "fixtures"
SHARED = Path(__file__).resolve().parents[2] / "shared"
LARGER = ("mtia_small_noskip/", "fomm_full_recipe.", "tpsmm_full_recipe.")
_unpacked = tempfile.TemporaryDirectory(prefix="mtanimate-fixtures-", ignore_cleanup_errors=True)


def fixture(name: str) -> Path:
    """A file of fixtures/, or one of the larger ones beside the checkout."""
    if not name.startswith(LARGER):
        return FIXTURES / name
    path = SHARED / "golden" / name
    if not path.is_file():
        pytest.skip(f"no {path}: it is too large to be in {FIXTURES}")
    return path


def tensors(name: str) -> dict[str, torch.Tensor]:
    """The arrays of an .npz, as tensors."""
    with np.load(fixture(name)) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files if file[key].dtype.kind in "fiub"}


def document(name: str) -> Any:
    return json.loads(fixture(name).read_text("utf-8"))


@cache
def checkpoint_file(name: str) -> Path:
    """A small network's checkpoint as its own tool wrote it."""
    if f"{name}/".startswith((*LARGER, "tpsmm_small")):
        path = SHARED / "golden" / name / "cpk.pth.tar"
        if not path.is_file():
            pytest.skip(f"no {path}: its weights are a formula, by which {FIXTURES} does without it")
        return path
    path = Path(_unpacked.name) / name / "cpk.pth.tar"
    path.parent.mkdir()
    path.write_bytes(lzma.decompress(fixture(f"{name}/cpk.pth.tar.xz").read_bytes()))
    return path


@cache
def release_checkpoint(name: str) -> dict[str, Any]:
    return torch.load(checkpoint_file(name), weights_only=True)


def close(actual: torch.Tensor, expected: torch.Tensor, atol: float = 1e-5, rtol: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, atol=atol, rtol=rtol)


def recipe_weights(
    shapes: dict[str, tuple[int, ...]],
    prefix: str,
    seed: int,
    gain: float = 1.0,
    overrides: dict[str, list[Any]] | None = None,
) -> dict[str, torch.Tensor]:
    """Weights of a model too big to store: numbers drawn from the CRC of each entry's full name."""
    return {
        name: _recipe_entry(f"{prefix}.{name}", tuple(shape), seed, gain, overrides or {})
        for name, shape in shapes.items()
    }


def _recipe_entry(
    name: str, shape: tuple[int, ...], seed: int, gain: float, overrides: dict[str, list[float]]
) -> torch.Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.tensor(1)
    normal = np.random.RandomState(zlib.crc32(name.encode()) ^ seed).standard_normal(shape)
    if name.endswith(("running_mean", "bias")):
        value = 0.1 * normal
    elif name.endswith("running_var"):
        value = np.exp(0.3 * normal)
    elif len(shape) == 1:
        value = 1 + 0.2 * normal
    else:
        value = gain * np.sqrt(2 / np.prod(shape[1:])) * normal
    for key, (factor, offset) in overrides.items():
        if key == name or (key.startswith("re:") and re.search(key.removeprefix("re:"), name)):
            offsets = np.resize(offset, shape[0]).reshape(-1, *[1] * (len(shape) - 1))  # a list is repeated
            value = factor * value + offsets
    return torch.from_numpy(value.astype(np.float32))
