"""Checks of outputs before work begins, and claims that keep two runs from writing the same file."""

import hashlib
import os
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from itertools import islice
from pathlib import Path

from filelock import FileLock, Timeout

from mtanimate.errors import InputError, MTAnimateError
from mtanimate.files import Overwrite, cache_folder, exists_already, hidden_beside, may_replace, taken


def check_new_file(path: Path, overwrite: Overwrite) -> None:
    """Raises InputError unless a file can be written at `path`: no folder is there, nor a file that may not be
    replaced, and the folder it is in can be written."""
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


_ENTRIES = 20  # of a folder, which are enough to learn how it treats names


def place(path: Path) -> str:
    """A text that is the same for all names of one file: for `a/../b.mp4` and `b.mp4`, for links to folders, and for
    upper and lower case where the file system does not tell them apart.

    A link at the end of the path counts as a file of its own: an output would replace the link, not its target.
    """
    return Places()(path)


class Places:
    """`place` for many paths: what was found out about the latest folders is kept."""

    def __init__(self) -> None:
        self._of_folder = lru_cache(maxsize=1024)(_real_folder)

    def __call__(self, path: Path) -> str:
        parent, name = os.path.split(path)
        if name in ("", ".", ".."):
            parent, name = os.path.realpath(path), ""
        folder, ignoring = self._of_folder(parent)
        real = os.path.join(folder, name) if name else folder
        return _folded(real) if ignoring else real


def _real_folder(folder: str) -> tuple[str, bool]:
    real = os.path.realpath(folder)
    return real, ignores_case(Path(real))


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


def ignores_case(folder: Path) -> bool:
    """Whether the file system ignores case in names, as far as existing files show it."""
    known = [*islice(folder.iterdir(), _ENTRIES)] if os.access(folder, os.R_OK) and folder.is_dir() else []
    for path in (*known, folder, *folder.parents):
        other = path.with_name(path.name.swapcase()) if path.name else path
        if other.name != path.name and path.exists():
            return other.exists() and other.samefile(path)
    return os.name == "nt"


def check_not_input(option: str, out: Path, inputs: Iterable[Path | None]) -> None:
    """Raises InputError where `out` is an input by any name (a link, another case), holds one, or lies in one.

    Args:
        option: The option that names the output, for the message.
        out: The output.
        inputs: Files and folders that are read; None is ignored.
    """
    if not out.exists():
        return
    for given in inputs:
        if given is None or not given.exists():
            continue
        real, other = out.resolve(), given.resolve()
        if out.samefile(given) or other.is_relative_to(real) or real.is_relative_to(other):
            raise also_input(option, out)


def also_input(option: str, out: Path | str) -> InputError:
    return InputError(f"{option} {out} is also an input, or holds one, or lies in one: choose another name")


@contextmanager
def claim(*paths: Path | None) -> Iterator[None]:
    """While the block runs, no other run of this user on this machine can claim these files or folders.

    Claims are lock files in the cache folder, so that nothing is left beside the outputs. The system releases them
    however a run ends. Where the cache folder cannot be written there are no claims: then, as between users and
    machines, the later of two runs notices only at its end.

    Raises:
        MTAnimateError: Another run has claimed a path, which the message names.
    """
    with ExitStack() as stack:
        for path in sorted(filter(None, paths), key=place):
            stack.enter_context(_claim(path))
        yield


@contextmanager
def _claim(path: Path) -> Iterator[None]:
    folder = cache_folder() / "claims"
    file = folder / f"{hashlib.sha256(place(path).encode('utf-8', 'surrogateescape')).hexdigest()[:32]}.lock"
    lock = FileLock(file)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise MTAnimateError(
            f"{path} is being written by another run: wait for its end, or choose another name"
        ) from error
    except OSError:  # no home, a full or a read-only disk: there are no claims, see `claim`
        pass
    try:
        yield
    finally:
        if lock.is_locked:
            with suppress(OSError):  # Windows does not remove open files
                file.unlink()
            lock.release()


def refuse_foreign(option: str, paths: Iterable[Path], ours: Overwrite = False) -> None:
    """Raises InputError, naming the path, where one of these exists and this program did not make it."""
    for path in paths:
        if taken(path) and not may_replace(path, ours):
            raise InputError(f"{option}: {path} was not made here, and would be replaced: choose another folder")
