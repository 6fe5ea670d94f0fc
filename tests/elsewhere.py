"""What a GPU would be waited for, told on the `meta` device: one without values, where asking for one fails."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_BRINGING = (torch.tensor, torch.as_tensor, torch.from_numpy)
_INDEXING = (torch.Tensor.__getitem__, torch.Tensor.__setitem__)


@contextmanager
def elsewhere() -> Iterator[list[str]]:
    """Yields a list that gets operators which take or give a tensor that is not on the `meta` device, and calls that
    bring numbers to a device: tensors made of them, and lists as indices."""
    found: list[str] = []
    with _Calls(found), _Operators(found):
        yield found


class _Operators(TorchDispatchMode):
    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = function(*args, **(kwargs or {}))
        tensors = [value for value in tree_leaves((args, kwargs, given)) if isinstance(value, torch.Tensor)]
        if any(tensor.device.type != "meta" for tensor in tensors):
            self.found.append(str(function))
        return given


class _Calls(TorchFunctionMode):
    """Inside of these no operator is seen: PyTorch copies the numbers behind the back of dispatch modes."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in _BRINGING or (function in _INDEXING and _has_list(args[1])):
            self.found.append(function.__name__)
        return function(*args, **(kwargs or {}))


def _has_list(index: object) -> bool:
    return isinstance(index, list) or (isinstance(index, tuple) and any(map(_has_list, index)))
