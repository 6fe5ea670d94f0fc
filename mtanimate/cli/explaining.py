"""Every error as one line for users, and the exit code that goes with it."""

import errno
from collections.abc import Iterator

import typer

from mtanimate.errors import MTAnimateError, is_of_memory

_USAGE = typer.BadParameter.__bases__  # typer has no public name for all errors of options

# What the system says of a path that the user gave, and what to do. Whatever else it says is a failure.
_OF_PATHS = {
    errno.ENOENT: "check the name",
    errno.EACCES: "allow it to be read and written (chmod), or choose another place",
    errno.EPERM: "allow it to be read and written (chmod), or choose another place",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOTDIR: "a part of the path is a file: check the name",
    errno.EISDIR: "name a file in it",
    errno.ELOOP: "a link leads to itself: mend it",
    errno.EROFS: "choose another place",
}
_OF_FAILURES = {
    errno.ENOSPC: "free some space or choose another place",
    errno.EDQUOT: "free some space or choose another place",
    errno.EMFILE: "allow more open files (ulimit -n)",
    errno.ENOMEM: "close other programs, or take smaller pictures",
}


def explained(error: Exception) -> tuple[str, int]:
    """What to say and the exit code: 2 where the input or an option is wrong, 1 where something failed."""
    if isinstance(error, MTAnimateError):
        return str(error), error.exit_code
    if isinstance(error, _USAGE):
        return error.format_message(), 2  # type: ignore[attr-defined]
    causes = list(_causes(error))  # libraries wrap what the system said
    if any(map(is_of_memory, causes)):
        return "memory is short: close other programs, or take smaller pictures and a smaller --batch-size", 1
    for cause in causes:
        if isinstance(cause, OSError) and cause.strerror:
            return _of_the_system(cause)
        if isinstance(cause, RuntimeError) and "home directory" in str(cause):
            return "~ leads to no folder, there is no such user or no HOME: write the path in full", 2
        if isinstance(cause, RecursionError):
            return "something is nested too deeply to be read: --debug shows where", 1
    return f"unexpected {type(error).__name__} ({error}): please report it, with what --debug shows", 1


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _of_the_system(error: OSError) -> tuple[str, int]:
    where = f"'{error.filename}': " if error.filename else ""
    what_to_do = _OF_PATHS.get(error.errno or 0) or _OF_FAILURES.get(error.errno or 0, "--debug shows where")
    return f"{where}{error.strerror}: {what_to_do}", 2 if where and error.errno in _OF_PATHS else 1
