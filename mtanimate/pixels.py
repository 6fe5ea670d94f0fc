"""How many pixels a picture, or a video's frame, may have: said before it is decoded."""

from pathlib import Path

from mtanimate.errors import InputError

MAX_PIXELS = 200_000_000  # what the largest phones' cameras take; 600 MB as RGB


def check_pixels(path: Path | str, width: int, height: int, most: int) -> None:
    """Raises InputError, naming the file and its size, for more than `most` pixels."""
    if width * height > most:
        raise too_large(path, f"{width} x {height} pixels", most)


def too_large(path: Path | str, size: str, most: int) -> InputError:
    return InputError(
        f"{path} has {size}, and {most} is the limit: make it smaller first, or raise the limit with --max-pixels, "
        "which animate, inspect and attention have"
    )
