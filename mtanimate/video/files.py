"""What every file that is read or written has in common."""

from pathlib import Path

from mtanimate.errors import InputError
from mtanimate.files import Overwrite, exists_already, hidden_beside, may_replace, taken


def check_readable(path: Path, kind: str) -> None:
    """Raises InputError, naming the `kind` of file, unless `path` is a file with something in it."""
    if path.is_dir():
        raise InputError(f"{path} is a folder: give one {kind}")
    if not path.exists():
        raise InputError(f"{path} does not exist: check the name of the {kind}")
    if not path.is_file():
        raise InputError(f"{path} is not a regular file: give a {kind}")
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise InputError(f"{path} cannot be opened ({error.strerror}): check its permissions") from error
    if empty:
        raise InputError(f"{path} is empty: copy or download the {kind} again")


def check_new_file(path: Path, overwrite: Overwrite) -> None:
    """Raises InputError unless a file can be written at `path`: no folder in its place, and nothing else that may not
    be replaced."""
    if path.is_dir():
        raise InputError(f"{path} is a folder: give a file name")
    if taken(path) and not may_replace(path, overwrite):
        raise exists_already(path)
    check_folder(path)


def check_folder(path: Path) -> None:
    """Raises InputError unless a file can be created beside `path`. Leaves nothing behind."""
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist: create it first")
    trial = hidden_beside(path)
    try:
        trial.touch(exist_ok=False)
        trial.unlink()
    except OSError as error:
        raise InputError(
            f"{path}: cannot write in the folder {path.parent} ({error.strerror}): choose another"
        ) from error
