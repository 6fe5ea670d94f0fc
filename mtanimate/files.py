"""Files that appear whole or not at all, and never in the place of another unasked; and what is in them, as a number.

Every output gets its name here. A link is what stands at its name: it is refused, wherever it points, or, where the
user said to overwrite, replaced itself; what it points to stays.
"""

import errno
import hashlib
import json
import math
import os
import platform
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import platformdirs

from mtanimate.errors import InputError, MTAnimateError
from mtanimate.reading import open_regular, parse_json, read_bytes

# What may be done to what stands at an output's name: True, the user said to replace it; False, nothing; a function,
# replace it where this says that we made it, by what is in it.
Overwrite = bool | Callable[[Path], bool]


# Where nobody has a home: a folder in which nothing is, and nothing can be made.
_NOWHERE = Path(os.devnull, "no home: set MTANIMATE_CACHE")


def cache_folder() -> Path:
    """Where what can be had again is kept for this user: MTANIMATE_CACHE, else the system's usual place; a folder that
    cannot be made for a user without a home (no HOME, no entry in passwd, as in containers)."""
    try:
        return Path(os.environ.get("MTANIMATE_CACHE") or platformdirs.user_cache_dir("mtanimate")).expanduser()
    except RuntimeError:
        return _NOWHERE


# Hidden names say whose they are: the machine, the process, and when that started, since numbers come again.
_OWNED = re.compile(
    r"\.(?P<name>.*)-mtanimate-(?P<machine>[0-9a-f]{8})-(?P<process>\d{1,9})-(?P<started>\d+)-[0-9a-f]{8}(?P<end>\..*)?",
    re.DOTALL,
)
_ASIDE = ".old"
_LOST = 86400.0  # seconds without a change after which nobody on another machine writes any more


def hidden_beside(path: Path) -> Path:
    """A new hidden name in the folder of `path` with its extension: a finished file is renamed at once.

    What processes that were killed have left in that folder is cleared before.
    """
    clear_leftovers(path.parent)
    return path.with_name(f".{path.stem[:40]}-{_owner()}{path.suffix}")


def aside(path: Path) -> Path:
    """A new hidden name for what stands at `path`, until something else stands there. Where this process is killed
    before, the next that writes in the folder puts it back."""
    return path.with_name(f".{path.name}-{_owner()}{_ASIDE}")


def owner_lives(hidden: Path) -> bool:
    """Whether the process that made up this hidden name still runs, as far as can be told from here; False for names
    that say no owner. Raises OSError where there is no such file."""
    owned = _OWNED.fullmatch(hidden.name)
    if owned is None:
        return False
    if owned["machine"] == _machine() and os.name == "posix":
        return _runs(int(owned["process"]), owned["started"])
    return time.time() - hidden.lstat().st_mtime < _LOST


def _owner() -> str:
    return f"mtanimate-{_machine()}-{os.getpid()}-{_started(os.getpid())}-{uuid.uuid4().hex[:8]}"


@cache
def _machine() -> str:
    """This machine's, or this container's: within it, numbers of processes mean something."""
    with suppress(OSError):
        return hashlib.sha256(f"{platform.node()} {os.readlink('/proc/self/ns/pid')}".encode()).hexdigest()[:8]
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _runs(process: int, started: str) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return _started(process) in (started, "0")


def _started(process: int) -> str:
    """Of a process, as Linux counts, "" for a dead one that nobody has waited for; "0" where it cannot be told."""
    try:
        state, *numbers = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "0"
    return "" if state in "ZX" else numbers[18]


def half_written(folder: Path) -> list[Path]:
    """What processes that were killed while they wrote have left in `folder`; or what others are writing there now."""
    return [file for file in folder.glob(".*-mtanimate-*") if _OWNED.fullmatch(file.name)]


def clear_leftovers(folder: Path) -> None:
    """Once for each folder: what owners who live no more have left there goes, and what they set aside comes back."""
    _clear(os.path.abspath(folder))


@cache
def _clear(folder: str) -> None:
    with suppress(OSError):  # what cannot be cleared is in nobody's way
        for left in half_written(Path(folder)):
            with suppress(OSError):  # another process clears, too
                if owner_lives(left):
                    continue
                owned = _OWNED.fullmatch(left.name)
                assert owned is not None
                was = left.with_name(owned["name"])
                if owned["end"] == _ASIDE and not taken(was):
                    os.rename(left, was)
                elif left.is_dir() and not left.is_symlink():
                    shutil.rmtree(left, ignore_errors=True)
                else:
                    left.unlink()


def sha256(*paths: Path) -> str:
    """The SHA-256 of these files' bytes, one after the other, in hexadecimal. Raises OSError for an unreadable one,
    InputError for a pipe or a device."""
    digest = hashlib.sha256()
    for path in paths:
        with open_regular(path) as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


class CameMeanwhile(MTAnimateError):
    """Something came to stand at an output's name while it was made. It stays; the output is given up."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} was not written: something else has come to be there since: choose another name or allow to "
            "overwrite it"
        )


def exists_already(path: Path) -> InputError:
    return InputError(f"{path} exists already: choose another name or allow to overwrite it")


def taken(path: Path) -> bool:
    """Whether anything stands there, be it a link to nothing."""
    return os.path.lexists(path)


def may_replace(path: Path, overwrite: Overwrite) -> bool:
    """Whether what stands at `path` may be replaced."""
    return overwrite(path) if callable(overwrite) else overwrite


@contextmanager
def replacing(path: Path, overwrite: Overwrite = True) -> Iterator[Path]:
    """Yields a name from `hidden_beside` to write to; then that file, on disk to the last byte, becomes `path`.

    Where the block fails, `path` stays as it was and nothing is left behind. Raises OSError where it cannot,
    CameMeanwhile where something stands there by then that may not be replaced.
    """
    partial = hidden_beside(path)
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        give_name(partial, path, overwrite)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # the new name, too, survives a power cut; Windows cannot open a folder
        _sync_folder(path.parent)


def give_name(partial: Path, path: Path, overwrite: Overwrite) -> None:
    """A finished file becomes `path`: at once, and only in the place of what may be replaced.

    Raises CameMeanwhile where something else is there, however short a time since, OSError where the file cannot be
    renamed.
    """
    if overwrite is True or (overwrite is not False and taken(path) and overwrite(path)):
        os.replace(partial, path)
        return
    try:
        _give_new_name(partial, path)
    except FileExistsError as error:
        raise CameMeanwhile(path) from error


def _give_new_name(partial: Path, path: Path) -> None:
    """Raises FileExistsError where there is anything of that name."""
    if os.name == "nt":
        os.rename(partial, path)  # replaces nothing there
        return
    try:
        os.link(partial, path)  # unlike renaming, it replaces nothing
    except FileExistsError:
        raise
    except OSError:  # exFAT and many network drives have no second names: an empty file takes the place
        path.open("x").close()
        try:
            os.replace(partial, path)
        except OSError:
            path.unlink()
            raise
    partial.unlink(missing_ok=True)


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP):  # what network drives say who cannot
            raise
    finally:
        os.close(folder)


@contextmanager
def replacing_folder(path: Path, overwrite: Overwrite) -> Iterator[Path]:
    """Yields a new hidden folder to write into; then that, every file on disk to its last byte, becomes `path`.

    Where the block fails, what stood there stays and nothing is left behind. Raises as `give_folder_name`.
    """
    partial = hidden_beside(path)
    partial.mkdir()
    try:
        yield partial
        for file in (path for path in partial.rglob("*") if path.is_file()):
            with file.open("rb+") as opened:
                os.fsync(opened.fileno())
        give_folder_name(partial, path, overwrite)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def give_folder_name(partial: Path, path: Path, overwrite: Overwrite) -> None:
    """A finished folder becomes `path`, where nothing is, an empty folder, or what may be replaced, which is removed.

    Raises CameMeanwhile where something else is there, however short a time since, OSError where it cannot be renamed.
    """
    old = _moved_away(path, overwrite) if overwrite is not False and taken(path) else None
    try:
        _give_new_folder_name(partial, path)
    except BaseException:
        if old is not None:
            _put_back(old, path)
        raise
    if old is not None and old.is_dir() and not old.is_symlink():
        shutil.rmtree(old, ignore_errors=True)
    elif old is not None:
        old.unlink()


def _give_new_folder_name(partial: Path, path: Path) -> None:
    try:
        with suppress(FileNotFoundError):
            path.rmdir()  # Windows puts a folder in the place of none, not even an empty one
        os.rename(partial, path)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise CameMeanwhile(path) from error
        raise


def _moved_away(path: Path, overwrite: Overwrite) -> Path:
    """Where it is now, as a folder cannot replace a full one. It is looked at there, where nobody adds to it."""
    old = aside(path)
    os.rename(path, old)
    try:
        if not may_replace(old, overwrite):
            raise CameMeanwhile(path)
    except BaseException:
        _put_back(old, path)
        raise
    return old


def _put_back(old: Path, path: Path) -> None:
    """Raises MTAnimateError where yet another came to be there: then `old` keeps its hidden name."""
    try:
        if old.is_dir() and not old.is_symlink():
            os.rename(old, path)
        else:
            _give_new_name(old, path)
    except OSError as error:
        raise MTAnimateError(f"{path}: what stood there is now {old}, for it could not be put back") from error


def to_json(value: Any, indent: int | None = None) -> str:
    """The JSON text of a value. Numbers that are not finite become null, since JSON has no others."""
    return json.dumps(_with_nulls(value), ensure_ascii=False, allow_nan=False, indent=indent)


def _with_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_nulls(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_nulls(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# How names of files that are not valid text are encoded: as \udce9, which JSON reads back.
NOT_TEXT = "backslashreplace"
Entry = TypeVar("Entry")


class JsonLines:
    """A file with one JSON value per line, which grows a line at a time. Any thread may append.

    A process that is killed while it writes leaves the last line unfinished; `read` and `keep` remove that line.

    Args:
        file: Where the lines are. It need not exist yet.
        writer: The command that writes such files, for error messages.
    """

    def __init__(self, file: Path, writer: str) -> None:
        self.file = file
        self._writer = writer
        self._lock = Lock()

    def append(self, value: Any) -> None:
        """Add a line. Raises OSError where it cannot be written; the file is then as it was before."""
        line = f"{to_json(value)}\n".encode("utf-8", NOT_TEXT)
        with self._lock:
            size = self.file.stat().st_size if self.file.exists() else 0
            try:
                with self.file.open("ab") as opened:
                    opened.write(line)
            except OSError:
                if self.file.exists():
                    os.truncate(self.file, size)
                raise

    def read(self, parse: Callable[[Any], Entry]) -> list[Entry]:
        """All entries of an existing file, in the order they were written.

        Args:
            parse: Turns the value of a line into an entry. It raises KeyError, TypeError or ValueError for a value
                that this program did not write.

        Raises:
            InputError: The file is not a regular file, is too large, or was not written by this program.
            OSError: The file cannot be read, or its unfinished line cannot be removed.
        """
        content = read_bytes(self.file)
        whole, _, unfinished = content.rpartition(b"\n")
        try:
            if unfinished and not whole:  # nothing shows that this program began the line
                raise ValueError("it has no whole line")
            entries = [parse(parse_json(line)) for line in whole.splitlines()]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{self.file} was not written by '{self._writer}' ({error}): move it away") from error
        if unfinished:
            os.truncate(self.file, len(content) - len(unfinished))
        return entries

    def keep(self, wanted: Callable[[Any], bool]) -> None:
        """Rewrite an existing file with only the lines whose values are wanted. Lines that are not JSON are dropped.

        Raises:
            InputError: The file is not a regular file, or is too large.
            OSError: The file cannot be read or replaced.
        """
        kept = [line for line in read_bytes(self.file).split(b"\n") if _holds(line, wanted)]
        with replacing(self.file) as partial:
            partial.write_bytes(b"".join(line + b"\n" for line in kept))


def _holds(line: bytes, wanted: Callable[[Any], bool]) -> bool:
    try:
        value = parse_json(line)
    except ValueError:
        return False
    return wanted(value)
