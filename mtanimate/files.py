"""Files and folders that are written whole or not at all, and files that grow by one JSON line at a time.

Every output gets its name here, and replaces nothing unasked. A symbolic link counts as a file of its own: it is
refused, wherever it points, or, where the user allowed to overwrite, replaced; its target stays as it is.
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
from functools import cache, lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import platformdirs

from mtanimate.errors import InputError, MTAnimateError
from mtanimate.reading import MOST_TEXT, open_regular, parse_json, read_bytes

# Whether an existing file or folder may be replaced by an output: True, because the user allowed it; False, never; or
# a function that tells by its content whether this program made it.
Overwrite = bool | Callable[[Path], bool]


# The cache of a user without a home folder: nothing exists in it, and nothing can be created.
_NOWHERE = Path(os.devnull, "no home: set MTANIMATE_CACHE")


def cache_folder() -> Path:
    """This user's cache: MTANIMATE_CACHE, else the system's usual place.

    A user without a home folder (no HOME, no entry in passwd, as in containers) gets a folder that cannot be created.
    """
    try:
        return Path(os.environ.get("MTANIMATE_CACHE") or platformdirs.user_cache_dir("mtanimate")).expanduser()
    except RuntimeError:
        return _NOWHERE


# Hidden names hold their owner: the machine, the process, and the time it started, since process numbers are reused.
_OWNED = re.compile(
    r"\.(?P<name>.*)-mtanimate-(?P<machine>[0-9a-f]{8})-(?P<process>\d{1,9})-(?P<started>\d+)-[0-9a-f]{8}(?P<end>\..*)?",
    re.DOTALL,
)
_ASIDE = ".old"
_LOST = 86400.0  # seconds without a change, after which a file from another machine counts as left behind


def hidden_beside(path: Path) -> Path:
    """A new hidden name in the folder of `path`, with the same extension. A finished file there only has to be renamed.

    What killed processes have left in that folder is cleared first.
    """
    clear_leftovers(path.parent)
    return path.with_name(f".{path.stem[:40]}-{_owner()}{path.suffix}")


def aside(path: Path) -> Path:
    """A new hidden name for what is at `path`, until its replacement is in place. Where this process is killed before
    that, the next one that writes in the folder puts it back."""
    return path.with_name(f".{path.name}-{_owner()}{_ASIDE}")


def owner_lives(hidden: Path) -> bool:
    """Whether the process that owns this hidden file still runs, as far as can be told; False for a name without an
    owner. Raises OSError where there is no such file."""
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
    """An identifier of this machine or container, within which process numbers are unique."""
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
    """When a process started, in Linux's clock ticks; "" for a zombie, "0" where it is unknown."""
    try:
        state, *numbers = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "0"
    return "" if state in "ZX" else numbers[18]


def half_written(folder: Path) -> list[Path]:
    """Hidden files and folders in `folder` that killed processes have left, or that others are writing now."""
    return [file for file in folder.glob(".*-mtanimate-*") if _OWNED.fullmatch(file.name)]


def clear_leftovers(folder: Path) -> None:
    """Remove what dead processes have left in a folder and put back what they set aside, once per folder."""
    _clear(os.path.abspath(folder))


@lru_cache(maxsize=4096)
def _clear(folder: str) -> None:
    with suppress(OSError):  # leftovers that cannot be removed do no harm
        for left in half_written(Path(folder)):
            with suppress(OSError):  # another process may be clearing, too
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
    """The hexadecimal SHA-256 of the files' concatenated content. Raises as `open_regular`."""
    digest = hashlib.sha256()
    for path in paths:
        with open_regular(path) as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


class CameMeanwhile(MTAnimateError):
    """Something else appeared at an output's name while the output was made. It stays; the output is given up."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} was not written, because something else has appeared there: choose another name or allow to "
            "overwrite it"
        )


def exists_already(path: Path | str) -> InputError:
    """path: Or a URL, as it may be shown."""
    return InputError(f"{path} exists already: choose another name or allow to overwrite it")


def taken(path: Path) -> bool:
    """Whether anything is there, even a link without a target."""
    return os.path.lexists(path)


def may_replace(path: Path, overwrite: Overwrite) -> bool:
    """Whether what is at `path` may be replaced."""
    return overwrite(path) if callable(overwrite) else overwrite


@contextmanager
def replacing(path: Path, overwrite: Overwrite = True) -> Iterator[Path]:
    """Write a file whole or not at all. Yields a hidden name to write to; that file then becomes `path`.

    The content is on disk before the file is renamed. Where the block fails, `path` stays as it was and nothing is left
    behind. Raises as `give_name`.
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
    if os.name == "posix":  # so that the new name, too, survives a power cut; Windows cannot open a folder
        _sync_folder(path.parent)


def give_name(partial: Path, path: Path, overwrite: Overwrite) -> None:
    """Rename a finished file to `path`, atomically.

    Raises CameMeanwhile where something is at `path` that may not be replaced, even if it appeared only just now;
    OSError where the file cannot be renamed.
    """
    if overwrite is True or (overwrite is not False and taken(path) and overwrite(path)):
        os.replace(partial, path)
        return
    try:
        _give_new_name(partial, path)
    except FileExistsError as error:
        raise CameMeanwhile(path) from error


def _give_new_name(partial: Path, path: Path) -> None:
    """Rename without replacing anything. Raises FileExistsError where there is anything of that name."""
    if os.name == "nt":
        os.rename(partial, path)  # replaces nothing on Windows
        return
    try:
        os.link(partial, path)  # unlike renaming, it replaces nothing
    except FileExistsError:
        raise
    except OSError:  # exFAT and many network drives have no hard links: an empty file reserves the name
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
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP):  # of network drives
            raise
    finally:
        os.close(folder)


@contextmanager
def replacing_folder(path: Path, overwrite: Overwrite) -> Iterator[Path]:
    """Write a folder whole or not at all. Yields a new hidden folder to write into; it then becomes `path`.

    All content is on disk before the folder is renamed. Where the block fails, what was at `path` stays and nothing is
    left behind. Raises as `give_folder_name`.
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
    """Rename a finished folder to `path`, in the place of nothing, of an empty folder, or of what may be replaced.

    Raises CameMeanwhile where something else is at `path`, even if it appeared only just now; OSError where the folder
    cannot be renamed.
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
            path.rmdir()  # Windows does not let a folder replace even an empty one
        os.rename(partial, path)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise CameMeanwhile(path) from error
        raise


def _moved_away(path: Path, overwrite: Overwrite) -> Path:
    """Move what is at `path` to a hidden name, since a folder cannot replace a full one, and return that name.

    Whether it may be replaced is checked there, where nobody adds to it.
    """
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
    """Undo `_moved_away`. Raises MTAnimateError where something else is at `path`: `old` then keeps its hidden name."""
    try:
        if old.is_dir() and not old.is_symlink():
            os.rename(old, path)
        else:
            _give_new_name(old, path)
    except OSError as error:
        raise MTAnimateError(f"{path}: what was there could not be put back, and is now {old}") from error


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
        """All entries of an existing file, in the order they were written. As `entries`."""
        return list(self.entries(parse))

    def entries(self, parse: Callable[[Any], Entry]) -> Iterator[Entry]:
        """The entries of an existing file as they are read, in the order they were written.

        Args:
            parse: Turns the value of a line into an entry. It raises KeyError, TypeError or ValueError for a value
                that this program did not write.

        Raises:
            InputError: This program did not write the file, or it is not a regular file, or a line is too long.
            OSError: The file cannot be read, or its unfinished line cannot be removed.
        """
        whole = 0  # bytes
        with open_regular(self.file) as file:
            while line := file.readline(MOST_TEXT + 1):
                if len(line) > MOST_TEXT:
                    raise InputError(f"'{self.file}' has a line of more than {MOST_TEXT} bytes: move it away")
                if not line.endswith(b"\n") and whole:
                    os.truncate(self.file, whole)
                    return
                try:
                    if not line.endswith(b"\n"):  # nothing shows that this program began the line
                        raise ValueError("it has no whole line")
                    entry = parse(parse_json(line))
                except (KeyError, TypeError, ValueError) as error:
                    raise InputError(
                        f"{self.file} was not written by '{self._writer}' ({error}): move it away"
                    ) from error
                whole += len(line)
                yield entry

    def keep(self, wanted: Callable[[Any], bool]) -> None:
        """Rewrite an existing file with only the lines whose values are wanted; lines that are not JSON are dropped."""
        kept = [line for line in read_bytes(self.file).split(b"\n") if _holds(line, wanted)]
        with replacing(self.file) as partial:
            partial.write_bytes(b"".join(line + b"\n" for line in kept))


def _holds(line: bytes, wanted: Callable[[Any], bool]) -> bool:
    with suppress(ValueError):
        return wanted(parse_json(line))
    return False
