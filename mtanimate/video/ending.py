"""Whether a file is shorter than it says itself. Decoders are silent where the cut lies between two frames."""

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

# What MP4 and MOV are made of, outside. Anything else at the end was appended by a camera or a program.
_BOXES = b"ftyp styp moov moof mdat mfra free skip wide uuid meta sidx ssix pdin prft emsg pnot udta".split()
_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675  # of Matroska


def ends_early(path: Path, container: str) -> bool:
    """container: libavformat's name, "mov,mp4,m4a". True only where the file itself says that more should come."""
    walks: dict[str, Callable[[BinaryIO, int], bool]] = {
        "mov": _within_a_box,
        "matroska": _within_an_element,
        "avi": _within_a_chunk,
        "gif": _without_a_trailer,
    }
    walk = walks.get(container.split(",")[0])
    if walk is None:
        return False
    with path.open("rb") as file:
        return walk(file, path.stat().st_size)


def _within_a_box(file: BinaryIO, length: int) -> bool:
    start = 0
    while start + 8 <= length:
        file.seek(start)
        head = file.read(16)
        size = int.from_bytes(head[:4], "big")
        if size == 1:
            size = int.from_bytes(head[8:], "big")
        if size < 8 or head[4:8] not in _BOXES:  # 0: the box goes on to the end of the file
            return False
        start += size
    return start > length


def _within_a_chunk(file: BinaryIO, length: int) -> bool:
    """AVI: one RIFF chunk, and more of them past a gigabyte."""
    start = 0
    while start + 8 <= length:
        file.seek(start)
        head = file.read(8)
        size = int.from_bytes(head[4:], "little")
        if head[:4] != b"RIFF" or not size:
            return False
        start += 8 + size + size % 2
    return start > length + 1  # the last may lack its padding


def _within_an_element(file: BinaryIO, length: int) -> bool:
    """Matroska and WebM. A live recording gives its segment no size: then its clusters count."""
    start, inside = 0, False
    while start < length:
        file.seek(start)
        name, name_size = _number(file, keep_marker=True)
        size, size_size = _number(file, keep_marker=False)
        start += name_size + size_size
        unknown = size == (1 << 7 * size_size) - 1
        if name == _SEGMENT and not inside and unknown:
            inside = True
        elif unknown or not name_size or not size_size:
            return False
        elif name == _SEGMENT or (inside and name == _CLUSTER and start + size > length):
            return start + size > length
        else:
            start += size
    return False


def _number(file: BinaryIO, *, keep_marker: bool) -> tuple[int, int]:
    """EBML's number of one to eight bytes, and how many bytes it takes; (0, 0) where there is none."""
    first = file.read(1)
    if not first or not first[0]:
        return 0, 0
    count = 9 - first[0].bit_length()
    value = int.from_bytes(first + file.read(count - 1), "big")
    return value if keep_marker else value & ((1 << 7 * count) - 1), count


def _without_a_trailer(file: BinaryIO, length: int) -> bool:
    """GIF: blocks, each in parts with their lengths before them, then a semicolon."""
    _skip_colours(file, file.read(13)[10:11])
    while block := file.read(1):
        if block == b"!":
            file.seek(1, 1)
        elif block == b",":
            _skip_colours(file, file.read(9)[8:])
            file.seek(1, 1)
        else:  # the semicolon; of what is no block the decoder says what is wrong
            return False
        while (part := file.read(1)) and part != b"\0":
            file.seek(part[0], 1)
    return True


def _skip_colours(file: BinaryIO, flags: bytes) -> None:
    """Where the flags say that a table of colours follows."""
    if flags and flags[0] & 0x80:
        file.seek(3 << (flags[0] & 7) + 1, 1)
