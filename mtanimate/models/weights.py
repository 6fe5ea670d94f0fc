"""Other people's weights: plain state dicts, from safetensors or from a pickle that may hold tensors only."""

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from mtanimate.errors import InputError, OutOfMemory, is_of_memory
from mtanimate.tensors import load


def read_weights(file: Path, what: str, remedy: str) -> dict[str, Tensor]:
    """The tensors of a state dict by name. Raises InputError, with what to do, where it cannot be read."""
    if not file.is_file():
        raise InputError(f"no {what} at '{file}': {remedy}")
    try:
        safe = file.suffix == ".safetensors"
        state = load_file(file) if safe else load(file, remedy)
    except InputError:
        raise
    except Exception as error:  # whatever a damaged file makes the two readers stumble over
        if is_of_memory(error):
            raise OutOfMemory(f"'{file}'") from error
        raise InputError(f"cannot read {what} from '{file}' ({type(error).__name__}): {remedy}") from error
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise InputError(f"'{file}' holds no {what}: {remedy}")
    return state
