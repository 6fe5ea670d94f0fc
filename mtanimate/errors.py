"""Errors that are shown to users.

Every message is one line: what is wrong, which file or option, and what to do. The command line prints it and exits
with `exit_code`.
"""


class MTAnimateError(Exception):
    """Something failed although the input was right (a full disk, a broken encoder). Exit code 1."""

    exit_code = 1


class InputError(MTAnimateError):
    """A file or an option that the user gave is wrong. Exit code 2."""

    exit_code = 2


class OutOfMemory(InputError):
    """A file needs more memory than there is; whether it is damaged is not known. Exit code 1."""

    exit_code = 1

    def __init__(self, file: object) -> None:
        super().__init__(
            f"{file} needs more memory than there is: close other programs; a damaged file may ask for that much, too"
        )


def is_of_memory(error: BaseException) -> bool:
    """Whether an exception, of any library, means that memory ran out."""
    texts = ("allocate memory", "out of memory error")  # of the system and PyTorch; of Pillow
    return isinstance(error, MemoryError) or any(text in str(error) for text in texts)


class Interrupted(MTAnimateError):
    """Ctrl-C, SIGTERM or SIGHUP; what was done is saved. Exit code 128 + the signal's number, as in shells."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal
