"""The registry: names of checkpoints to files, from `checkpoints.yaml` and from what was imported on this machine."""

import difflib
import os
import re
from collections.abc import Iterable
from dataclasses import MISSING, asdict, dataclass, fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from mtanimate.errors import InputError, MTAnimateError
from mtanimate.files import cache_folder, sha256
from mtanimate.reading import parse_json

WINDOWS_RESERVES = {"con", "prn", "aux", "nul"} | {f"{port}{n}" for port in ("com", "lpt") for n in range(10)}


@dataclass(frozen=True)
class Entry:
    """A named checkpoint, as `checkpoints.yaml` describes it; the head of that file explains the fields.

    Attributes:
        file: None where it does not ship.
        layout: "" where it is ours.
        published: name of the file to download; `urls`, `pages`, `size` and `sha256` belong to it.
        size: in bytes, of the published file or of the one that ships; None where it is not known.
        sha256: as `size`; "" where it is not known.
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


def default_name() -> str:
    """The name that `default` stands for."""
    return _registry()["default"]


def entries() -> dict[str, Entry]:
    """All named checkpoints. Raises MTAnimateError where the registry has a mistake."""
    return {name: _entry(name, values) for name, values in _registry()["checkpoints"].items()}


def checkpoints_folder() -> Path:
    """The folder of imported checkpoints, NAME.safetensors."""
    return cache_folder() / "checkpoints"


def downloads_folder() -> Path:
    """The folder of published files, as they were downloaded."""
    return cache_folder() / "downloads"


def check_name(name: str) -> str:
    """Checks a name for a checkpoint.

    Returns:
        The name itself.

    Raises:
        InputError: a checkpoint cannot have this name.
    """
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
    """The file that a checkpoint of this name is imported to. Raises InputError as `check_name`."""
    return checkpoints_folder() / f"{check_name(name)}.safetensors"


def imported() -> dict[str, Path]:
    """The files of imported checkpoints, by name."""
    return {file.stem: file for file in sorted(checkpoints_folder().glob("[!.]*.safetensors"))}


def is_path(name_or_file: str) -> bool:
    """Whether `--checkpoint` means a file or folder, not a name: it has a separator, or an extension and no checkpoint
    has this name. What lies in the current folder never takes the place of a name.
    """
    if {"/", os.sep} & set(name_or_file) or name_or_file in (".", ".."):
        return True
    return Path(name_or_file).suffix != "" and name_or_file not in entries().keys() | imported().keys()


def file_given(name_or_file: str) -> Path | None:
    """The file or folder that `--checkpoint` means; None where there is none (opening it tells why)."""
    path = Path(name_or_file).expanduser()
    if is_path(name_or_file):
        return path if path.exists() else None
    entry = entries().get(default_name() if name_or_file == "default" else name_or_file)
    return entry.file if entry is not None and entry.file is not None else imported().get(name_or_file)


def published_name(name_or_file: str) -> str:
    """The name of the published checkpoint that `--checkpoint` means; empty for all others, whose names are the
    user's own."""
    name = default_name() if name_or_file == "default" else name_or_file
    return name if name in entries() else ""


def resolve(name_or_file: str) -> Path:
    """Finds the file of a checkpoint.

    Args:
        name_or_file: a name (`default`: the one that ships) or a path, as `is_path` decides.

    Raises:
        InputError: it is neither, and the nearest name is suggested; or it is not on this machine, and the message says
            how to get it.
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
    """The error for an unknown name, with the nearest known one."""
    names = [*entries(), *(imported().keys() - entries().keys())]
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(names)}"
    if not is_path(name) and Path(name).exists():
        hint = f"for what is called so in the current folder: .{os.sep}{name}"
    return InputError(f"no checkpoint '{name}': neither a file nor a name; {hint}")


def to_get(entry: Entry) -> str:
    """What to do to get a checkpoint that is not on this machine."""
    if entry.urls:
        return f"mtanimate checkpoints download {entry.name}"
    return f"mtanimate checkpoints show {entry.name} says where it can be had, then: mtanimate checkpoints import FILE"


def by_hand(entry: Entry) -> str:
    """How to get its published file without `download`."""
    where = f"get {entry.published} by hand" + f" from {' or '.join(entry.pages)}" * bool(entry.pages)
    return f"{where}, then: mtanimate checkpoints import FILE"


def fault(entry: Entry, path: Path) -> str:
    """Compares a file with the registry's size and SHA-256.

    Args:
        entry: that describes the file.
        path: of the file.

    Returns:
        How it differs; "" where it does not, as far as that is known.

    Raises:
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    if entry.size not in (None, size):
        return f"it has {size} bytes instead of {entry.size}"
    found = sha256(path) if entry.sha256 else ""
    return f"its SHA-256 is {found} instead of {entry.sha256}" if found != entry.sha256 else ""


# `mtanimate.checkpoints.file` brings PyTorch with it: functions import it, so that a list need not wait.


@dataclass(frozen=True)
class CheckpointInfo:
    """A checkpoint in the list. Texts are empty, and resolution is None, where a file does not say.

    state: `ships`, `imported`, `broken`, `downloaded`, `to download` or `by hand`. file: None for the last two.
    """

    name: str
    animates: str
    resolution: int | None
    configuration: str
    licence: str
    state: str
    file: Path | None


@dataclass(frozen=True)
class Verification:
    """The result of a verification. ok: None without a checksum to compare with. said: what was found, for people."""

    name: str
    file: Path
    ok: bool | None
    said: str


def list_checkpoints() -> list[CheckpointInfo]:
    """All checkpoints of the registry, then others that were imported."""
    known = entries()
    lines = [_entry_info(entry) for entry in known.values()]
    return lines + [_file_info(name, file) for name, file in imported().items() if name not in known]


def describe_checkpoint(name_or_file: str) -> dict[str, Any]:
    """All that is known of a checkpoint: the registry's entry, its state, its file, and as `about` what the file says.

    Args:
        name_or_file: a name or a path.

    Raises:
        InputError: nothing is known of it, or its file is broken.
    """
    path = Path(name_or_file).expanduser()
    name = default_name() if name_or_file == "default" else name_or_file
    entry = entries().get(name)
    if entry is not None:
        state, file = _state_and_file(entry)
        to_do = {
            "to download": to_get(entry),
            "by hand": by_hand(entry),
            "downloaded": f"mtanimate checkpoints import '{file}'",
        }
        known: dict[str, Any] = {"name": name, "state": state, "file": file, "to_do": to_do.get(state, "")}
        known |= {key: value for key, value in asdict(entry).items() if key not in known}
    elif name in imported() or (is_path(name) and path.is_file()):
        file = imported().get(name, path)
        state = "imported" if name in imported() else "a file"
        known = {"name": file.stem, "state": state, "file": file, "size": file.stat().st_size}
    else:
        raise unknown(name)
    if file is None or known["state"] == "downloaded":
        return known | {"about": {}}
    about, wrong = _origin(file)
    if wrong:
        raise InputError(wrong)
    return known | {"resolution": about.pop("resolution"), "about": about}


def verify(names_or_files: Iterable[str] = ()) -> list[Verification]:
    """Verifies files against the registry or their own checksums.

    Args:
        names_or_files: to verify; empty: all on this machine.

    Raises:
        InputError: a name is unknown, or not on this machine.
    """
    here = _on_this_machine()
    wanted = list(names_or_files) or list(here)
    results = []
    for wish in wanted:
        path = Path(wish).expanduser()
        name = default_name() if wish == "default" else wish
        if name in here:
            results += [_verify_file(name, file) for file in here[name]]
        elif is_path(wish) and path.is_file():
            results.append(_verify_file(path.name.removesuffix(".safetensors"), path))
        else:
            resolve(wish)  # says why
    return results


def _package_folder() -> Path:
    return Path(str(resources.files("mtanimate")))


def _registry_file() -> Path:
    """The registry: at the top of a checkout, where people look, or inside an installed package."""
    inside = _package_folder() / "checkpoints.yaml"
    return inside if inside.is_file() else _package_folder().parent / "checkpoints.yaml"


def _registry() -> dict[str, Any]:
    return _read_registry(_registry_file())


@cache
def _read_registry(file: Path) -> dict[str, Any]:
    return yaml.safe_load(file.read_text("utf-8"))


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


def _entry_info(entry: Entry) -> CheckpointInfo:
    state, file = _state_and_file(entry)
    return CheckpointInfo(entry.name, entry.animates, entry.resolution, entry.configuration, entry.licence, state, file)


def _state_and_file(entry: Entry) -> tuple[str, Path | None]:
    """The state of an entry, and its file."""
    download = downloads_folder() / entry.published
    if entry.file is not None:
        return "ships", entry.file
    file = imported().get(entry.name)
    if file is not None:
        return "broken" if _origin(file)[1] else "imported", file
    if download.is_file():
        return "downloaded", download
    return ("to download" if entry.urls else "by hand"), None


def _file_info(name: str, file: Path) -> CheckpointInfo:
    about, wrong = _origin(file)
    if wrong:
        return CheckpointInfo(name, "", None, "", "", "broken", file)
    texts = {key: about.get(key, "") for key in ("animates", "configuration", "licence")}
    return CheckpointInfo(name=name, resolution=about["resolution"], state="imported", file=file, **texts)


def _origin(file: Path) -> tuple[dict[str, Any], str]:
    """What a checkpoint says of its origin, with its resolution; or why it cannot be read."""
    from mtanimate.checkpoints.file import read_metadata

    try:
        metadata = read_metadata(file)
        resolution = int(parse_json(metadata["config"])["model"]["resolution"])
    except InputError as error:
        return {}, str(error)
    except (KeyError, TypeError, ValueError) as error:
        return {}, f"'{file}' has no usable configuration in its metadata ({error})"
    about = {key.removeprefix("about."): value for key, value in metadata.items() if key.startswith("about.")}
    return about | {"resolution": resolution}, ""


def _on_this_machine() -> dict[str, list[Path]]:
    """Files by name: shipped, imported and downloaded ones."""
    here = {name: [file] for name, file in imported().items()}
    for name, entry in entries().items():
        if entry.file is not None:
            here[name] = [entry.file]
        elif (downloads_folder() / entry.published).is_file():
            here[name] = [*here.get(name, []), downloads_folder() / entry.published]
    return here


def _verify_file(name: str, file: Path) -> Verification:
    """Verifies the bytes of a shipped or published file, or the weights of a checkpoint of ours."""
    for entry in entries().values():
        if file == entry.file or (file.name == entry.published and file.suffix != ".safetensors"):
            return _verify_bytes(entry, file)
    return _verify_weights(name, file)


def _verify_bytes(entry: Entry, file: Path) -> Verification:
    try:
        wrong = fault(entry, file)
        if wrong or entry.sha256:
            return Verification(entry.name, file, not wrong, wrong or "as it was published")
        return Verification(entry.name, file, None, f"no checksum is known; its SHA-256 is {sha256(file)}")
    except OSError as error:
        return Verification(entry.name, file, False, f"cannot be read: {error.strerror}")


def _verify_weights(name: str, file: Path) -> Verification:
    from mtanimate.checkpoints.file import read_checkpoint, read_metadata, verify_checkpoint

    try:
        if "weights_sha256" not in read_metadata(file):
            read_checkpoint(file)
            return Verification(name, file, None, "it loads, but holds no checksum (written by an older version)")
        wrong = verify_checkpoint(file)
    except InputError as error:
        return Verification(name, file, False, str(error))
    return Verification(name, file, not wrong, wrong or "as it was written")
