"""Names of checkpoints -> files: `checkpoints.yaml`."""

import difflib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from mtanimate.errors import InputError


@dataclass(frozen=True)
class Entry:
    """One named checkpoint. sha256: of the file's bytes."""

    name: str
    file: Path
    sha256: str
    description: str
    licence: str


def _package_folder() -> Path:
    return Path(str(resources.files("mtanimate")))


def _registry_file() -> Path:
    """In a checkout the file stands at the top, where people look; a wheel carries it inside the package."""
    inside = _package_folder() / "checkpoints.yaml"
    return inside if inside.is_file() else _package_folder().parent / "checkpoints.yaml"


def _registry() -> dict[str, Any]:
    return yaml.safe_load(_registry_file().read_text("utf-8"))


def entries() -> dict[str, Entry]:
    """All named checkpoints."""
    return {
        name: Entry(
            name,
            _package_folder() / values["file"],
            values["sha256"],
            values["description"],
            values["licence"],
        )
        for name, values in _registry()["checkpoints"].items()
    }


def resolve(name_or_file: str) -> Path:
    """The file of a named checkpoint (`default`: the one that ships), or the file itself.

    Raises InputError, naming the nearest name, where it is neither.
    """
    path = Path(name_or_file).expanduser()
    if path.is_file():
        return path
    known = entries()
    name = _registry()["default"] if name_or_file == "default" else name_or_file
    if name in known:
        return known[name].file
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(known)}"
    raise InputError(f"no checkpoint '{name_or_file}': neither a file nor a name; {hint}")
