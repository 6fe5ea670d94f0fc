"""What is known of checkpoints, and what of that is on this machine: `mtanimate checkpoints list`, `show`, `verify`."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mtanimate.checkpoints.registry import (
    Entry,
    by_hand,
    default_name,
    downloads_folder,
    entries,
    fault,
    imported,
    is_path,
    resolve,
    to_get,
    unknown,
)
from mtanimate.errors import InputError
from mtanimate.files import sha256
from mtanimate.reading import parse_json

# `mtanimate.checkpoints.file` brings PyTorch with it: functions import it, so that a list need not wait.


@dataclass(frozen=True)
class Listed:
    """A line of the list. state: ships, imported, broken, downloaded, to download or by hand; file: None for the last
    two. Texts are empty, and resolution is None, where a file does not say."""

    name: str
    animates: str
    resolution: int | None
    configuration: str
    licence: str
    state: str
    file: Path | None


@dataclass(frozen=True)
class Verdict:
    """ok: None where there is nothing to compare the file with. said: what was found, in words."""

    name: str
    file: Path
    ok: bool | None
    said: str


def listed() -> list[Listed]:
    """All of the registry, then what else was imported."""
    known = entries()
    lines = [_listed_entry(entry) for entry in known.values()]
    return lines + [_listed_file(name, file) for name, file in imported().items() if name not in known]


def _listed_entry(entry: Entry) -> Listed:
    state, file = _where(entry)
    return Listed(entry.name, entry.animates, entry.resolution, entry.configuration, entry.licence, state, file)


def _where(entry: Entry) -> tuple[str, Path | None]:
    """Its state, and its file."""
    download = downloads_folder() / entry.published
    if entry.file is not None:
        return "ships", entry.file
    file = imported().get(entry.name)
    if file is not None:
        return "broken" if _look(file)[1] else "imported", file
    if download.is_file():
        return "downloaded", download
    return ("to download" if entry.urls else "by hand"), None


def _listed_file(name: str, file: Path) -> Listed:
    about, wrong = _look(file)
    if wrong:
        return Listed(name, "", None, "", "", "broken", file)
    texts = {key: about.get(key, "") for key in ("animates", "configuration", "licence")}
    return Listed(name=name, resolution=about["resolution"], state="imported", file=file, **texts)


def _look(file: Path) -> tuple[dict[str, Any], str]:
    """What a checkpoint says of its origin, and its resolution; or why it cannot be read."""
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


def described(name_or_file: str) -> dict[str, Any]:
    """All that is known, by name: the registry's entry, its state, its file, and as `about` what the file itself says.

    Raises InputError where nothing is known of it, or its file is broken.
    """
    path = Path(name_or_file).expanduser()
    name = default_name() if name_or_file == "default" else name_or_file
    entry = entries().get(name)
    if entry is not None:
        state, file = _where(entry)
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
    about, wrong = _look(file)
    if wrong:
        raise InputError(wrong)
    return known | {"resolution": about.pop("resolution"), "about": about}


def verify(names_or_files: Iterable[str] = ()) -> list[Verdict]:
    """Whether files are what was published, or written; without names, all that are on this machine.

    Raises InputError for a name that is not known, or not on this machine.
    """
    here = _on_this_machine()
    wanted = list(names_or_files) or list(here)
    verdicts = []
    for wish in wanted:
        path = Path(wish).expanduser()
        name = default_name() if wish == "default" else wish
        if name in here:
            verdicts += [_verdict_on(name, file) for file in here[name]]
        elif is_path(wish) and path.is_file():
            verdicts.append(_verdict_on(path.name.removesuffix(".safetensors"), path))
        else:
            resolve(wish)  # says why
    return verdicts


def _on_this_machine() -> dict[str, list[Path]]:
    """Files by name: shipped, imported, downloaded."""
    here = {name: [file] for name, file in imported().items()}
    for name, entry in entries().items():
        if entry.file is not None:
            here[name] = [entry.file]
        elif (downloads_folder() / entry.published).is_file():
            here[name] = [*here.get(name, []), downloads_folder() / entry.published]
    return here


def _verdict_on(name: str, file: Path) -> Verdict:
    """By what is known of it: the bytes of a shipped or published file, or the weights of a checkpoint of ours."""
    for entry in entries().values():
        if file == entry.file or (file.name == entry.published and file.suffix != ".safetensors"):
            return _verdict_on_bytes(entry, file)
    return _verdict_on_weights(name, file)


def _verdict_on_bytes(entry: Entry, file: Path) -> Verdict:
    try:
        wrong = fault(entry, file)
        if wrong or entry.sha256:
            return Verdict(entry.name, file, not wrong, wrong or "as it was published")
        return Verdict(entry.name, file, None, f"no checksum is known; its SHA-256 is {sha256(file)}")
    except OSError as error:
        return Verdict(entry.name, file, False, f"cannot be read: {error.strerror}")


def _verdict_on_weights(name: str, file: Path) -> Verdict:
    from mtanimate.checkpoints.file import read_checkpoint, read_metadata, verify_checkpoint

    try:
        if "weights_sha256" not in read_metadata(file):
            read_checkpoint(file)
            return Verdict(name, file, None, "it loads, but holds no checksum (written by an older version)")
        wrong = verify_checkpoint(file)
    except InputError as error:
        return Verdict(name, file, False, str(error))
    return Verdict(name, file, not wrong, wrong or "as it was written")
