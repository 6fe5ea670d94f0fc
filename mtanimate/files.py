"""Files that appear whole or not at all, whatever happens while they are written; and what is in them, as a number."""

import errno
import hashlib
import os
import platform
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import platformdirs

from mtanimate.errors import InputError

_PARTIAL = ".*-" + 8 * "[0-9a-f]" + ".*"  # as `hidden_beside` names them
_SAFETENSORS_PARTIAL = ".tmp" + 6 * "[0-9A-Za-z]"  # as safetensors' save_file does, from 0.8 on


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
    _clear(os.path.abspath(path.parent))
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


@cache
def _clear(folder: str) -> None:
    """Once for each folder: what owners who live no more have left there goes, and what they set aside comes back."""
    with suppress(OSError):  # what cannot be cleared is in nobody's way
        for left in Path(folder).glob(".*-mtanimate-*"):
            owned = _OWNED.fullmatch(left.name)
            with suppress(OSError):  # another process clears, too
                if owned is None or owner_lives(left):
                    continue
                was = left.with_name(owned["name"])
                if owned["end"] == _ASIDE and not was.exists():
                    os.rename(left, was)
                elif left.is_dir() and not left.is_symlink():
                    shutil.rmtree(left, ignore_errors=True)
                else:
                    left.unlink()


def half_written(folder: Path) -> list[Path]:
    """What processes that were killed while they wrote have left in `folder`; or what others are writing there now."""
    return [file for pattern in (_PARTIAL, _SAFETENSORS_PARTIAL) for file in folder.glob(pattern)]


def sha256(*paths: Path) -> str:
    """The SHA-256 of these files' bytes, one after the other, in hexadecimal. Raises OSError for an unreadable one."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


@contextmanager
def replacing(path: Path, overwrite: bool = True) -> Iterator[Path]:
    """Yields a name from `hidden_beside` to write to; then that file, on disk to the last byte, becomes `path`.

    Where the block fails, `path` stays as it was and nothing is left behind. Raises OSError where it cannot, InputError
    unless `overwrite` where there is a file by then.
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


def give_name(partial: Path, path: Path, overwrite: bool) -> None:
    """A finished file becomes `path`: at once, and never in the place of another unless `overwrite`.

    Raises InputError where there is one, however short a time since, OSError where the file cannot be renamed.
    """
    if overwrite:
        os.replace(partial, path)
        return
    try:
        try:
            os.link(partial, path)  # unlike renaming, it replaces nothing
        except FileExistsError:
            raise
        except OSError:  # exFAT and many network drives have no second names: an empty file takes the place
            path.open("x").close()
            os.replace(partial, path)
    except FileExistsError as error:
        raise exists_already(path) from error
    partial.unlink(missing_ok=True)


def give_folder_name(partial: Path, path: Path) -> None:
    """A finished folder becomes `path`, where nothing is, or an empty folder.

    Raises InputError where there is more, however short a time since, OSError where it cannot be renamed.
    """
    try:
        with suppress(FileNotFoundError):
            path.rmdir()  # Windows puts a folder in the place of none, not even an empty one
        os.rename(partial, path)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise exists_already(path) from error
        raise


def exists_already(path: Path) -> InputError:
    return InputError(f"{path} exists already: choose another name or allow to overwrite it")


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
def replacing_folder(path: Path, overwrite: bool) -> Iterator[Path]:
    """Yields a new hidden folder to write into; then that, every file on disk to its last byte, becomes `path`.

    What stood there is removed. Where the block fails, it stays and nothing is left behind. Raises OSError where it
    cannot, InputError unless `overwrite` where there is a folder by then with anything in it.
    """
    partial, old = hidden_beside(path), aside(path)
    partial.mkdir()
    try:
        yield partial
        for file in (path for path in partial.rglob("*") if path.is_file()):
            with file.open("rb+") as opened:
                os.fsync(opened.fileno())
        if overwrite and path.exists():  # a folder cannot replace one that holds files
            os.replace(path, old)
        try:
            give_folder_name(partial, path)
        except BaseException:
            if old.exists():
                os.replace(old, path)
            raise
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)
