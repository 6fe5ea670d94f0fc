"""Configurations from mappings and back: unknown keys are refused with the nearest known name."""

import dataclasses
import difflib
import types
import typing
from importlib import resources
from typing import Any, TypeVar

import yaml

from mtanimate.config.model import BACKBONES, HRNetConfig
from mtanimate.config.training import Config
from mtanimate.errors import InputError

T = TypeVar("T")


def from_mapping(kind: type[T], values: Any, where: str = "") -> T:
    """Build the dataclass `kind` from nested mappings.

    Raises InputError naming the key, for one that is unknown or whose value has the wrong type.
    """
    if kind is HRNetConfig and isinstance(values, str):
        if values not in BACKBONES:
            raise InputError(f"{where}: no backbone '{values}'; there are {', '.join(BACKBONES)}")
        return typing.cast(T, BACKBONES[values])
    if not isinstance(values, dict):
        raise InputError(f"{where or 'the configuration'}: expected a mapping, not {values!r}")
    known = typing.get_type_hints(kind)
    converted = {}
    for key, value in values.items():
        path = f"{where}.{key}".lstrip(".")
        if key not in known:
            raise InputError(f"unknown setting '{path}'; {_nearest(key, known)}")
        converted[key] = _convert(known[key], value, path)
    return kind(**converted)


def _nearest(key: str, known: typing.Iterable[str]) -> str:
    close = difflib.get_close_matches(str(key), known, n=1)
    return f"did you mean '{close[0]}'?" if close else f"known here: {', '.join(known)}"


def _convert(kind: Any, value: Any, path: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        return _convert(next(a for a in arguments if a is not type(None)), value, path)
    if dataclasses.is_dataclass(kind):
        return from_mapping(typing.cast(type, kind), value, path)
    if origin is typing.Literal:
        if value not in arguments:
            raise InputError(f"{path}: {value!r} is not one of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise InputError(f"{path}: expected a list, not {value!r}")
        if arguments[-1] is not Ellipsis and len(value) != len(arguments):
            raise InputError(f"{path}: expected {len(arguments)} values, not {len(value)}")
        return tuple(_convert(arguments[0], item, path) for item in value)
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise InputError(f"{path}: expected {kind.__name__}, not {value!r}")
    return value


def to_mapping(config: Any) -> dict[str, Any]:
    """The dataclass as nested mappings and lists, ready for YAML and JSON."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value

    return plain(dataclasses.asdict(config))


def preset_names() -> list[str]:
    folder = resources.files("mtanimate.config")
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


def load_preset(name: str) -> Config:
    """The preset `name`: a YAML file in this package that says where it departs from the paper's defaults."""
    if name not in preset_names():
        raise InputError(f"no preset '{name}'; {_nearest(name, preset_names())}")
    text = resources.files("mtanimate.config").joinpath(f"{name}.yaml").read_text("utf-8")
    return from_mapping(Config, yaml.safe_load(text))


def override(config: Config, settings: list[str]) -> Config:
    """`config` with `key=value` settings applied, keys dotted (`training.steps=100`), values YAML.

    Raises InputError for a setting without '=', an unknown key or a wrong value.
    """
    mapping = to_mapping(config)
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise InputError(f"--set {setting}: expected key=value")
        *parents, last = key.strip().split(".")
        target = mapping
        for depth, parent in enumerate(parents):
            if parent in target and target[parent] is None:
                raise InputError(f"--set: '{parent}' is off; turn it on with {parent}={{}} in its place, then {key}")
            if not isinstance(target.get(parent), dict):
                raise InputError(
                    f"--set: unknown setting '{'.'.join(parents[: depth + 1])}'; {_nearest(parent, target)}"
                )
            target = target[parent]
        if last not in target:
            raise InputError(f"--set: unknown setting '{key}'; {_nearest(last, target)}")
        target[last] = _parse(text)
    return from_mapping(Config, mapping)


def _parse(text: str) -> Any:
    """YAML, with numbers like 3e-4 (which YAML 1.1 takes for text) read as numbers."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise InputError(
            f"--set: cannot read the value {text!r}: write it as in YAML, e.g. 3, true, [0.6, 0.9]"
        ) from None
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
