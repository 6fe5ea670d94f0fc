"""One training at a time in a run's folder: a second one would write over its state and remove what it half wrote."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from mtanimate.errors import InputError, MTAnimateError
from mtanimate.places import refuse_foreign
from mtanimate.training.state import is_state

# Seconds. Decoding processes, which notice after some that theirs was killed, hold on to its claim as long.
_PATIENCE = 10


def unwritable(folder: Path, error: OSError) -> InputError:
    return InputError(f"--out: cannot write in '{folder}' ({error.strerror}): make room, or choose another folder")


# The first line of a run's config.yaml, by which the folder is known for a run's before it holds a state.
MARK = "# Written by mtanimate train: the settings of this run.\n"
_WRITTEN = ("config.yaml", "log.jsonl", "pictures", "state", "checkpoints", "tensorboard")


def _refuse_foreign(folder: Path) -> None:
    """Raises InputError where this is no run's folder, and has something in it that a run would write over."""
    config = folder / "config.yaml"
    known = config.is_file() and config.read_bytes().startswith(MARK.encode())
    if not known and not is_state(folder / "state" / "last.pt"):
        refuse_foreign("--out", [folder / name for name in _WRITTEN])


@contextmanager
def claim(folder: Path) -> Iterator[None]:
    """The folder, made if need be, is this process's. However that ends, the system takes the claim back.

    Raises MTAnimateError where another process has it, InputError where the folder cannot be written in or holds files
    of others by names of ours.
    """
    lock = FileLock(folder / "lock")
    _refuse_foreign(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=_PATIENCE)
    except Timeout as error:
        raise MTAnimateError(
            f"--out: another training is at work in '{folder}': wait for its end, or choose another folder"
        ) from error
    except OSError as error:
        raise unwritable(folder, error) from error
    try:
        yield
    finally:
        lock.release()
