"""Processes, as Linux's /proc tells of them."""

from pathlib import Path


def children(process: int) -> list[int]:
    """The processes that its main thread started, without those that it has waited for."""
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def gone(process: int) -> bool:
    """Whether it has ended; of one whose parent is gone, nobody may have taken notice yet."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
