"""YAML that others wrote, read within limits: nothing in it may grow to more than it looks."""

import re
from typing import Any

import yaml

MOST_YAML = 1 << 20  # bytes of a file
_MOST_VALUES = 10_000
_DEEPEST = 50


def read_yaml(text: str) -> Any:
    """What the text says, of Python's own types.

    Raises ValueError, in one line, where it is no YAML, nested more than 50 times, or of more than 10,000 values, those
    that aliases repeat counted each time.
    """
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, AttributeError, ArithmeticError, TypeError, ValueError) as error:  # of !!int x, 2001-99-99
        raise ValueError(" ".join(str(error).split())) from error


class _Loader(yaml.SafeLoader):
    """YAML as people write it: 3e-4 is a number (YAML 1.1 wants 3.0e-4)."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._sizes: dict[yaml.Node, int] = {}  # of finished nodes, aliases written out

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ValueError(f"it is nested more than {_DEEPEST} times")
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is not None and node not in self._sizes:
            self._sizes[node] = self._size(node)
        return node

    def _size(self, node: yaml.Node) -> int:
        if isinstance(node, yaml.ScalarNode):
            return 1
        parts = node.value
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in parts for part in pair]
        if any(part not in self._sizes for part in parts):
            raise ValueError("an alias stands for what it is a part of")
        size = 1 + sum(self._sizes[part] for part in parts)
        if size > _MOST_VALUES:
            raise ValueError(f"it holds more than {_MOST_VALUES} values")
        return size


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)
