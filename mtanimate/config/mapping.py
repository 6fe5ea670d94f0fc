"""Configurations from mappings, presets, YAML files and `--set`, and back."""

import dataclasses
import difflib
import json
import textwrap
import types
import typing
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from reprlib import repr as shown  # shortens wrong values
from typing import Any, TypeVar

from mtanimate.config.consistency import check
from mtanimate.config.model import BACKBONES, HRNetConfig, ModelConfig
from mtanimate.config.training import Config
from mtanimate.errors import InputError
from mtanimate.reading import MOST_YAML, read_text, read_yaml

T = TypeVar("T")
_LONGEST_LIST = 100
NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def load_preset(name: str) -> Config:
    """Loads a preset: a YAML file in this package with what differs from the paper's defaults.

    Raises:
        InputError: there is no preset of this name.
    """
    return check(from_mapping(Config, _preset(name)))


def preset_names() -> list[str]:
    """The names of the presets, sorted."""
    folder = resources.files("mtanimate.config")
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


def load_file(path: Path) -> Config:
    """Loads a configuration file: `preset: NAME`, if it builds on one, and what it changes.

    Raises:
        InputError: the file is missing or no YAML, a key is unknown or a value wrong.
    """
    try:
        return check(from_mapping(Config, _on_its_preset(_yaml(read_text(path, MOST_YAML), f"'{path}'"))))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the configuration '{path}' ({error})") from error


def from_mapping(kind: type[T], values: Any, where: str = "") -> T:
    """Builds a dataclass from nested mappings.

    Args:
        kind: the dataclass.
        values: nested mappings.
        where: dotted prefix of the keys in errors.

    Raises:
        InputError: a key is unknown, or its value has the wrong type or range.
    """
    if kind is HRNetConfig and isinstance(values, str):
        if values not in BACKBONES:
            raise InputError(f"{where}: no backbone '{values}'; there are {', '.join(BACKBONES)}")
        return typing.cast(T, BACKBONES[values])
    if not isinstance(values, dict):
        raise InputError(f"{where or 'the configuration'}: expected a mapping, not {shown(values)}")
    known = typing.get_type_hints(kind, include_extras=True)
    converted = {}
    for key, value in values.items():
        path = f"{where}.{key}".lstrip(".")
        if key not in known:
            raise InputError(f"unknown setting '{path}'; {_nearest(key, known)}")
        converted[key] = _convert(known[key], value, path)
    return kind(**converted)


def from_checkpoint(values: dict[str, Any]) -> Config:
    """Builds the configuration that a checkpoint carries, perhaps of another version.

    Unknown settings of training are ignored, since they do not change the network; those of the network must be known.

    Raises:
        InputError: a setting of the network is unknown or wrong.
    """
    if not (isinstance(values, dict) and "model" in values):
        return from_mapping(Config, values)
    known = {name: _known(of, values[name]) for name, of in typing.get_type_hints(Config).items() if name in values}
    return check(from_mapping(Config, known | {"model": values["model"]}))


def to_mapping(config: Any) -> dict[str, Any]:
    """A dataclass as nested mappings and lists, for YAML and JSON."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value

    return plain(dataclasses.asdict(config))


def within_limits(model: ModelConfig, what: str) -> ModelConfig:
    """Checks ranges and consistency of a network's configuration.

    Args:
        model: to check.
        what: it belongs to, named in errors.

    Returns:
        The same configuration.

    Raises:
        InputError: a size is out of range, or settings do not fit together.
    """
    try:
        return check(from_mapping(Config, {"model": to_mapping(model)})).model
    except InputError as error:
        raise InputError(f"{what}: {error}") from error


def override(config: Config, settings: Sequence[str | tuple[str, Any]]) -> Config:
    """Applies settings to a configuration.

    Args:
        config: to change a copy of.
        settings: `key=value` with dotted keys (`training.steps=100`) and YAML values, or pairs (key, value).

    Raises:
        InputError: a setting without '=', an unknown key, a wrong value, or values that do not fit together.
    """
    mapping = to_mapping(config)
    for setting in settings:
        key, value = _parsed(setting) if isinstance(setting, str) else setting
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
        if last == "name" and value != target[last]:
            target.clear()  # another estimator, with other settings
        target[last] = value
        mapping = to_mapping(from_mapping(Config, mapping))  # adds defaults, which later settings may change
    return check(from_mapping(Config, mapping))


def differences(first: Config, second: Config) -> dict[str, tuple[Any, Any]]:
    """The dotted keys in which two configurations differ, with both values."""
    one, other = flat(first), flat(second)
    keys = [*one, *(key for key in other if key not in one)]
    return {key: (one.get(key), other.get(key)) for key in keys if one.get(key) != other.get(key)}


def flat(config: Config) -> dict[str, Any]:
    """Every setting by its dotted key."""

    def walk(values: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for key, value in values.items():
            if isinstance(value, dict):
                yield from walk(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", value

    return dict(walk(to_mapping(config), ""))


def describe(config: Config) -> str:
    """Every setting as text for people, one paragraph for each section."""
    sections: dict[str, list[str]] = {}
    for key, value in flat(config).items():
        section, _, name = key.partition(".")
        text = json.dumps(value, separators=(",", ":")) if not isinstance(value, str) else value or '""'
        sections.setdefault(section, []).append(f"{name}={text}")
    return "\n".join(
        textwrap.fill(f"{section}: {' '.join(words)}", 110, subsequent_indent="  ", break_long_words=False)
        for section, words in sections.items()
    )


def _known(kind: Any, values: Any) -> Any:
    if not (dataclasses.is_dataclass(kind) and isinstance(values, dict)):
        return values
    known = typing.get_type_hints(kind)
    return {key: _known(known[key], value) for key, value in values.items() if key in known}


def _nearest(key: str, known: typing.Iterable[str]) -> str:
    close = difflib.get_close_matches(str(key), known, n=1)
    return f"did you mean '{close[0]}'?" if close else f"known here: {', '.join(known)}"


def _convert(kind: Any, value: Any, path: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        number, limits = arguments
        value = _convert(number, value, path)
        if not limits.holds(value):
            raise InputError(f"{path}: {shown(value)} is out of range: it must be {limits}")
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        return _convert(_alternative([kind for kind in arguments if kind is not type(None)], value, path), value, path)
    if dataclasses.is_dataclass(kind):
        return from_mapping(typing.cast(type, kind), value, path)
    if origin is typing.Literal:
        if value not in arguments:
            raise InputError(f"{path}: {shown(value)} is not one of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise InputError(f"{path}: expected a list, not {shown(value)}")
        if len(value) > _LONGEST_LIST:
            raise InputError(f"{path}: {len(value)} values: a list has at most {_LONGEST_LIST}")
        if arguments[-1] is not Ellipsis and len(value) != len(arguments):
            raise InputError(f"{path}: expected {len(arguments)} values, not {len(value)}")
        kinds = arguments if arguments[-1] is not Ellipsis else arguments[:1] * len(value)
        return tuple(_convert(of, item, path) for of, item in zip(kinds, value, strict=True))
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as error:
            raise InputError(f"{path}: {shown(value)} is too large") from error
    if type(value) is not kind:
        raise InputError(f"{path}: expected {NAMES.get(kind, kind.__name__)}, not {shown(value)}")
    return value


def _alternative(kinds: list[Any], value: Any, path: str) -> Any:
    """Chooses among several dataclasses by the value's `name`; without one, the first."""
    if len(kinds) == 1 or not isinstance(value, dict) or "name" not in value:
        return kinds[0]
    names = {name: kind for kind in kinds for name in typing.get_args(typing.get_type_hints(kind)["name"])}
    if not isinstance(value["name"], str) or value["name"] not in names:
        raise InputError(f"{path}.name: {shown(value['name'])} is not one of {', '.join(names)}")
    return names[value["name"]]


def _preset(name: str) -> dict[str, Any]:
    if name not in preset_names():
        raise InputError(f"no preset '{name}'; {_nearest(name, preset_names())}")
    text = resources.files("mtanimate.config").joinpath(f"{name}.yaml").read_text("utf-8")
    return _on_its_preset(_yaml(text, name))


def _yaml(text: str, where: str) -> dict[str, Any]:
    try:
        values = read_yaml(text)
    except ValueError as error:
        raise InputError(f"{where} is no YAML: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{where}: expected settings as `key: value` lines, not {shown(values)}")
    return values


def _on_its_preset(values: dict[str, Any]) -> dict[str, Any]:
    name = values.pop("preset", None)
    return values if name is None else _merged(_preset(str(name)), values)


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Merges nested mappings: `changes` wins, at any depth. A mapping with a `name` replaces the other as a whole."""
    result = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict) and "name" not in value
        result[key] = _merged(base[key], value) if both else value
    return result


def _parsed(setting: str) -> tuple[str, Any]:
    key, equals, text = setting.partition("=")
    if not equals:
        raise InputError(f"--set {setting}: expected key=value")
    try:
        return key, read_yaml(text)
    except ValueError:
        raise InputError(
            f"--set: cannot read the value {text!r}: write it as in YAML, e.g. 3, true, [0.6, 0.9]"
        ) from None
