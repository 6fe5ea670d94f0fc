"""Reading other people's torch files: tensors and plain values, and nothing that runs."""

import pickle
import re
import tarfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mtanimate.checkpoints.file import read_metadata
from mtanimate.errors import InputError, OutOfMemory, is_of_memory
from mtanimate.tensors import check_archive, check_tensors, is_archive

_REMEDY = "download it again, and do not unpack it"


def read_pickle(path: Path) -> dict[str, Any]:
    """Reads the dictionary in a file of `torch.save`, of any version.

    Tensors of a zip archive stay on disk until they are used.

    Args:
        path: of the file.

    Returns:
        Its content.

    Raises:
        InputError: the file is missing, no torch file, damaged, claims more than it holds, or wants to run something.
        OutOfMemory: it needs more memory than there is.
    """
    if path.is_dir():
        raise InputError(f"'{path}' is a folder: give the checkpoint file itself, which is not to be unpacked")
    if not path.is_file():
        raise InputError(f"no file '{path}'")
    with path.open("rb") as file:
        start = file.read(16)
    archive = is_archive(path)
    if archive:
        held = check_archive(path, _REMEDY)
    else:
        _check_no_archive(path, start)
        held = path.stat().st_size
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles that torch would write otherwise; they are read or refused
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except pickle.UnpicklingError as error:
        raise InputError(f"'{path}' {_refused(str(error))}") from error
    except Exception as error:  # whatever a damaged file makes the reader stumble over
        if is_of_memory(error):
            raise OutOfMemory(f"'{path}'") from error
        raise InputError(f"'{path}' is damaged or no checkpoint ({_first_line(error)}): {_REMEDY}") from error
    if not isinstance(content, dict):
        raise InputError(f"'{path}' holds no checkpoint but a {type(content).__name__}")
    check_tensors(path, content, held)
    return content


# A number of NumPy's (an epoch, a best loss) is pickled as a call of two of its functions. These stand in for them:
# nothing but a number can come of these.


class _DType:
    """Stands in for `numpy.dtype`."""

    def __init__(self, code: str, *flags: object) -> None:
        if not re.fullmatch(r"[biufc]\d{1,2}", code):
            raise pickle.UnpicklingError(f"type numpy.{code}")
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = str(state[1])


def _scalar(kind: _DType, content: bytes) -> Any:
    """Stands in for `numpy.core.multiarray.scalar`: makes a Python number."""
    return np.frombuffer(content, np.dtype(kind.order + kind.code), count=1)[0].item()


def _scalar_of_numpy_2(kind: _DType, content: bytes) -> Any:
    return _scalar(kind, content)


for _stand_in, _module, _name in (
    (_DType, "numpy", "dtype"),
    (_scalar, "numpy.core.multiarray", "scalar"),
    (_scalar_of_numpy_2, "numpy._core.multiarray", "scalar"),
):
    _stand_in.__module__, _stand_in.__name__, _stand_in.__qualname__ = _module, _name, _name
torch.serialization.add_safe_globals([_DType, _scalar, _scalar_of_numpy_2])


def _check_no_archive(path: Path, start: bytes) -> None:
    if not start:
        raise InputError(f"'{path}' is empty: {_REMEDY}")
    if start.lstrip().startswith(b"<"):
        raise InputError(f"'{path}' is a web page, not a checkpoint: open its address in a browser and get the file")
    if start[8:9] == b"{":
        read_metadata(path)  # raises where it is not ours
        raise InputError(f"'{path}' is an mtanimate checkpoint already, which needs no import: --checkpoint takes it")
    if tarfile.is_tarfile(path):
        raise InputError(
            f"'{path}' is a tar archive, such as comes of unpacking a .pth.tar and packing it again; in spite of its "
            f"name a checkpoint is none: {_REMEDY}"
        )


def _refused(message: str) -> str:
    """Explains, for people, what an unpickler that only allows tensors says of a file."""
    wanted = re.search(r"(?:GLOBAL|class|function|type)\s+`?([A-Za-z_][\w.]+)", message)
    if wanted is None:
        return f"is damaged, or no checkpoint: {_REMEDY}"
    return f"was refused: it wants to run {wanted[1]} when it is read, which weights need not; nothing was run"


def _first_line(error: object) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
