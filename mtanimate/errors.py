"""What can go wrong, said to the user.

Every message is one line: what is wrong, which file or option, what to do about it.
The command line prints it and exits with `exit_code`.
"""


class MTAnimateError(Exception):
    """Something failed although the input was right (a full disk, a broken encoder). Exit code 1."""

    exit_code = 1


class InputError(MTAnimateError):
    """A file or an option that the user gave is wrong. Exit code 2."""

    exit_code = 2


class Interrupted(MTAnimateError):
    """Ctrl-C or SIGTERM; what was done is saved. Exit code 128 + the signal's number, as shells have it."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal
