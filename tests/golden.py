"""Access to the numerical fixtures beside the checkout; a machine without them skips, saying so."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

SHARED = Path(__file__).resolve().parents[2] / "shared"
GOLDEN = SHARED / "golden"

needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"no numerical fixtures at {GOLDEN}")


def tensors(name: str) -> dict[str, torch.Tensor]:
    """The arrays of an .npz, as tensors."""
    with np.load(GOLDEN / name) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files if file[key].dtype.kind in "fiub"}


def document(name: str) -> Any:
    return json.loads((GOLDEN / name).read_text())


@cache
def release_checkpoint(name: str) -> dict[str, Any]:
    return torch.load(GOLDEN / name / "cpk.pth.tar", weights_only=True)
