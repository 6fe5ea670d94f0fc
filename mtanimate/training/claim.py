"""One training at a time in a run's folder: a second one would write over its state and remove what it half wrote."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from mtanimate.errors import InputError

# Seconds. Decoding processes, which notice after some that theirs was killed, hold on to its claim as long.
_PATIENCE = 10


def unwritable(folder: Path, error: OSError) -> InputError:
    return InputError(f"--out: cannot write in '{folder}' ({error.strerror}): make room, or choose another folder")


@contextmanager
def claim(folder: Path) -> Iterator[None]:
    """The folder, made if need be, is this process's. However that ends, the system takes the claim back.

    Raises InputError where another process has it, or where the folder cannot be written in.
    """
    lock = FileLock(folder / "lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=_PATIENCE)
    except Timeout as error:
        raise InputError(
            f"--out: another training is at work in '{folder}': wait for its end, or choose another folder"
        ) from error
    except OSError as error:
        raise unwritable(folder, error) from error
    try:
        yield
    finally:
        lock.release()
