"""Names of checkpoints -> files: `checkpoints.yaml`, and what was imported on this machine."""

import difflib
import os
import re
from dataclasses import MISSING, dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from mtanimate.errors import InputError, MTAnimateError
from mtanimate.files import cache_folder, sha256

WINDOWS_RESERVES = {"con", "prn", "aux", "nul"} | {f"{port}{n}" for port in ("com", "lpt") for n in range(10)}


@dataclass(frozen=True)
class Entry:
    """One named checkpoint, as `checkpoints.yaml` has it; its head explains the fields.

    file: None where it does not ship. layout: empty where it is ours. published, urls, pages, size, sha256: of the file
    to download; size and sha256 of the one that ships. Empty, or None, where there is none or it is not known.
    """

    name: str
    animates: str
    description: str
    configuration: str
    resolution: int
    licence: str
    citation: str
    file: Path | None = None
    layout: str = ""
    published: str = ""
    urls: tuple[str, ...] = ()
    pages: tuple[str, ...] = ()
    size: int | None = None
    sha256: str = ""
    unchecked: str = ""


def _package_folder() -> Path:
    return Path(str(resources.files("mtanimate")))


def _registry_file() -> Path:
    """In a checkout the file stands at the top, where people look; a wheel carries it inside the package."""
    inside = _package_folder() / "checkpoints.yaml"
    return inside if inside.is_file() else _package_folder().parent / "checkpoints.yaml"


def _registry() -> dict[str, Any]:
    return yaml.safe_load(_registry_file().read_text("utf-8"))


def default_name() -> str:
    """The name that `default` stands for."""
    return _registry()["default"]


def entries() -> dict[str, Entry]:
    """All named checkpoints. Raises MTAnimateError where one of them is not described as it should be."""
    return {name: _entry(name, values) for name, values in _registry()["checkpoints"].items()}


def _entry(name: str, values: dict[str, Any]) -> Entry:
    known = {field.name for field in fields(Entry)} - {"name"}
    required = {field.name for field in fields(Entry) if field.default is MISSING} - {"name"}
    wrong = [f"it has no '{key}'" for key in sorted(required - values.keys())]
    wrong += [f"'{key}' is not known" for key in sorted(values.keys() - known)]
    if wrong:
        raise MTAnimateError(f"{_registry_file()}: checkpoint '{name}': {'; '.join(wrong)}")
    values = values | {key: tuple(values.get(key, ())) for key in ("urls", "pages")}
    if "file" in values:
        file = _package_folder() / values["file"]
        values |= {"file": file, "size": file.stat().st_size if file.is_file() else None}
    return Entry(name, **values)


def checkpoints_folder() -> Path:
    """Where imported checkpoints lie, as NAME.safetensors."""
    return cache_folder() / "checkpoints"


def downloads_folder() -> Path:
    """Where published files lie as they were fetched."""
    return cache_folder() / "downloads"


def check_name(name: str) -> str:
    """The name itself. Raises InputError where a checkpoint cannot be called so."""
    if name.casefold() == "default":
        raise InputError("a checkpoint cannot be called 'default': that is the one that ships; choose another name")
    if name.casefold().split(".")[0] in WINDOWS_RESERVES:
        raise InputError(f"a checkpoint cannot be called '{name}': Windows keeps that name; choose another")
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", name):
        raise InputError(
            f"a checkpoint cannot be called '{name}': up to 100 letters (a to z), digits, '-', '_' and '.', "
            "the first of them a letter, a digit or '_'"
        )
    return name


def named_file(name: str) -> Path:
    """Where a checkpoint is imported to under this name. Raises InputError as `check_name`."""
    return checkpoints_folder() / f"{check_name(name)}.safetensors"


def imported() -> dict[str, Path]:
    """The files in `checkpoints_folder()` by their names."""
    return {file.stem: file for file in sorted(checkpoints_folder().glob("[!.]*.safetensors"))}


def is_path(name_or_file: str) -> bool:
    """Whether this is a file or folder, and no checkpoint's name: it has a separator, or an ending and no checkpoint is
    called so. What lies in the current folder never takes the place of a name."""
    if {"/", os.sep} & set(name_or_file) or name_or_file in (".", ".."):
        return True
    return Path(name_or_file).suffix != "" and name_or_file not in entries().keys() | imported().keys()


def file_given(name_or_file: str) -> Path | None:
    """The file or folder that `--checkpoint` means, None where there is none (whoever opens it says why)."""
    path = Path(name_or_file).expanduser()
    if is_path(name_or_file):
        return path if path.exists() else None
    entry = entries().get(default_name() if name_or_file == "default" else name_or_file)
    return entry.file if entry is not None and entry.file is not None else imported().get(name_or_file)


def resolve(name_or_file: str) -> Path:
    """The file of a named checkpoint (`default`: the one that ships), or the file itself, as `is_path` tells them.

    Raises InputError where it is neither, naming the nearest name, or is not on this machine, saying how to get it.
    """
    path = Path(name_or_file).expanduser()
    if is_path(name_or_file) and path.is_file():
        return path
    name = default_name() if name_or_file == "default" else name_or_file
    entry = entries().get(name)
    if entry is not None and entry.file is not None:
        return entry.file
    here = imported()
    if name in here:
        return here[name]
    if is_path(name_or_file) and path.is_dir():
        raise InputError(
            f"'{name_or_file}' is a folder: give a checkpoint's name or file; a folder that 'mtanimate export' wrote, "
            "with its manifest.json, serves 'mtanimate animate' alone"
        )
    raise unknown(name) if entry is None else InputError(f"checkpoint '{name}' is not on this machine: {to_get(entry)}")


def unknown(name: str) -> InputError:
    """The error for a name that nobody knows, with the nearest one."""
    names = [*entries(), *(imported().keys() - entries().keys())]
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(names)}"
    if not is_path(name) and Path(name).exists():
        hint = f"for what is called so in the current folder: .{os.sep}{name}"
    return InputError(f"no checkpoint '{name}': neither a file nor a name; {hint}")


def to_get(entry: Entry) -> str:
    """What to do for a checkpoint that is not on this machine."""
    if entry.urls:
        return f"mtanimate checkpoints download {entry.name}"
    return f"mtanimate checkpoints show {entry.name} says where it can be had, then: mtanimate checkpoints import FILE"


def by_hand(entry: Entry) -> str:
    """How to get its published file without `download`."""
    where = f"get {entry.published} by hand" + f" from {' or '.join(entry.pages)}" * bool(entry.pages)
    return f"{where}, then: mtanimate checkpoints import FILE"


def fault(entry: Entry, path: Path) -> str:
    """How `path` differs from the file that the entry describes; empty where it does not, as far as that is known.

    Raises OSError where it cannot be read.
    """
    size = path.stat().st_size
    if entry.size not in (None, size):
        return f"it has {size} bytes instead of {entry.size}"
    found = sha256(path) if entry.sha256 else ""
    return f"its SHA-256 is {found} instead of {entry.sha256}" if found != entry.sha256 else ""
