"""Good files made bad: bytes, the boxes of MP4 and the chunks of PNG, trees of JSON and YAML, lines of text.

Everything here is decided by the `random.Random` that is given.
"""

import json
import struct
import zlib
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

BOXES_OF_BOXES = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"udta", b"moof", b"traf", b"mvex"}
NUMBERS = [0, 1, -1, 255, 2**15 - 1, 2**16 - 1, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1]
# For a value in JSON or YAML.
VALUES: list[Any] = [
    *(
        None,
        True,
        "",
        " ",
        "nan",
        "../../outside/kept.txt",
        "x" * 3000,
        "\x1b[31mred\x1b]0;t\x07",
        "a\nb",
        "\ud800",
        "é\u202e",
    ),
    *(0, -1, 1, 2**31, 2**63, 10**30, -(10**400), 0.5, 1e308, -1e308, float("nan"), float("inf")),
    *([], {}, [[]], {"a": {}}, [None], [1, "a"], {"": 1}, "1/0", "0", "-1", "1e999999999", [0] * 3000),
]
# For the middle of a text.
TEXTS = [
    "\0",
    "\x1b[2J",
    "\r",
    "\n\n",
    "\t",
    ",,,",
    '"',
    "'",
    "{",
    "[" * 300,
    "]",
    ": ",
    "&a",
    "*a",
    "!!python/name:os",
    "\ufeff",
]
TEXTS += [
    "9" * 5000,
    "-",
    "nan",
    "1e999",
    "\u202e",
    "%s%n",
    "../" * 9,
    "~nouser/",
    "NaN",
    "\\",
    "#",
    "<<: ",
    "---\n",
    "\x85",
]


def damaged(content: bytes, random: Random) -> bytes:
    """With one to three of the kinds of damage that need no knowledge of the format."""
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        content = random.choice(_DAMAGE)(content, random)
    return content


def _flipped(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(random.choice([1, 1, 4, 16, 100])):
        if changed:
            changed[_place(changed, random)] ^= 1 << random.randrange(8)
    return bytes(changed)


def _cut_off(content: bytes, random: Random) -> bytes:
    return content[: _place(content, random)]


def _number_set(content: bytes, random: Random) -> bytes:
    size, order = random.choice([1, 2, 4, 8]), random.choice(["little", "big"])
    number = random.choice(NUMBERS) % 256**size
    start = _place(content, random)
    return content[:start] + number.to_bytes(size, order) + content[start + size :]


def _stretch(content: bytes, random: Random) -> tuple[int, int]:
    start = _place(content, random)
    return start, min(len(content), start + random.choice([1, 4, 32, 500, 5000]))


def _removed(content: bytes, random: Random) -> bytes:
    start, end = _stretch(content, random)
    return content[:start] + content[end:]


def _repeated(content: bytes, random: Random) -> bytes:
    start, end = _stretch(content, random)
    return content[:end] + content[start:end] * random.choice([1, 2, 50]) + content[end:]


def _zeroed(content: bytes, random: Random) -> bytes:
    start, end = _stretch(content, random)
    return content[:start] + bytes(end - start) + content[end:]


def _noise(content: bytes, random: Random) -> bytes:
    start, end = _stretch(content, random)
    return content[:start] + random.randbytes(end - start) + content[end:]


def _moved(content: bytes, random: Random) -> bytes:
    start, end = _stretch(content, random)
    rest = content[:start] + content[end:]
    place = _place(rest, random)
    return rest[:place] + content[start:end] + rest[place:]


def _longer(content: bytes, random: Random) -> bytes:
    return content + random.choice([b"\0" * 4096, content, random.randbytes(300), b"<html>"])


def _place(content: bytes | bytearray, random: Random) -> int:
    """Headers matter most."""
    return random.randrange(min(len(content), random.choice([64, 1024, 1 << 40])) or 1)


_DAMAGE: list[Callable[[bytes, Random], bytes]] = [
    *(_flipped, _cut_off, _number_set, _number_set, _removed, _repeated, _zeroed, _noise, _moved, _longer)
]


def spliced(first: bytes, second: bytes, random: Random) -> bytes:
    """The beginning of one file and the end of another."""
    return first[: _place(first, random)] + second[_place(second, random) :]


# MP4 and MOV


def with_other_boxes(content: bytes, random: Random) -> bytes:
    """A box is removed, doubled, swapped, renamed, or has another size or other numbers; all around it fits again."""
    return b"".join(_change_boxes(_boxes(content), random, random.randrange(5)))


def _change_boxes(boxes: list[bytes], random: Random, depth: int) -> list[bytes]:
    inner = [number for number, box in enumerate(boxes) if box[4:8] in BOXES_OF_BOXES]
    if depth and inner:
        number = random.choice(inner)
        content = b"".join(_change_boxes(_boxes(boxes[number][8:]), random, depth - 1))
        boxes[number] = struct.pack(">I", 8 + len(content)) + boxes[number][4:8] + content
        return boxes
    first, second = (random.randrange(len(boxes)) for _ in range(2)) if boxes else (0, 0)
    change = random.randrange(7)
    if not boxes:
        return boxes
    if change == 0:
        del boxes[first]
    elif change == 1:
        boxes.insert(second, boxes[first])
    elif change == 2:
        boxes[first], boxes[second] = boxes[second], boxes[first]
    elif change == 3:
        boxes[first] = (
            boxes[first][:4] + random.choice([b"free", b"moov", b"trak", b"stsd", bytes(4)]) + boxes[first][8:]
        )
    elif change == 4:
        boxes[first] = struct.pack(">I", random.choice(NUMBERS) % 2**32) + boxes[first][4:]
    else:
        boxes[first] = boxes[first][:8] + damaged(boxes[first][8:], random)
    return boxes


def _boxes(content: bytes) -> list[bytes]:
    boxes, start = [], 0
    while start + 8 <= len(content):
        size = struct.unpack_from(">I", content, start)[0]
        size = size if 8 <= size <= len(content) - start else len(content) - start
        boxes.append(content[start : start + size])
        start += size
    return boxes


# PNG


def with_other_chunks(content: bytes, random: Random) -> bytes:
    """A chunk of a PNG has other bytes, or is removed, doubled or moved; every checksum is right."""
    chunks = list(_chunks(content))
    number = random.randrange(len(chunks))
    kind, data = chunks[number]
    change = random.randrange(5)
    if change == 0:
        del chunks[number]
    elif change == 1:
        chunks.insert(random.randrange(len(chunks)), (kind, data))
    elif change == 2:  # a picture as large as it likes
        sides = [random.choice([0, 1, 64, 20_000, 60_000, 2**31 - 1]) for _ in range(2)]
        chunks[0] = (b"IHDR", struct.pack(">II", *sides) + chunks[0][1][8:])
    elif change == 3:
        text = random.choice([b"a\0" + b"\x1b[31m" * 9, b"a\0\0" + zlib.compress(bytes(30_000_000))])
        chunks.insert(1, (random.choice([b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf"]), text))
    else:
        chunks[number] = (kind, damaged(data, random))
    return content[:8] + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    start = 8
    while start + 12 <= len(content):
        size = struct.unpack_from(">I", content, start)[0]
        yield content[start + 4 : start + 8], content[start + 8 : start + 8 + size]
        start += 12 + size


# Trees and text


def other_tree(tree: Any, random: Random) -> Any:
    """A copy of a tree of JSON with one to three of its values replaced, removed, renamed or doubled."""
    tree = json.loads(json.dumps(tree))
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        places = list(_places(tree))
        if not places:
            return random.choice(VALUES)
        owner, key = random.choice(places)
        change = random.randrange(8)
        if change == 0:
            del owner[key]
        elif change == 1 and isinstance(owner, dict):
            owner[str(random.choice(VALUES))[:3000]] = owner.pop(key)
        elif change == 2:
            owner[key] = [owner[key], owner[key]]
        elif change == 3 and isinstance(owner[key], (int, float)):
            owner[key] = random.choice([-owner[key], owner[key] * 1000, owner[key] + 1, str(owner[key])])
        else:
            owner[key] = random.choice(VALUES)
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield tree, key
        yield from _places(tree[key])


def other_text(text: str, random: Random) -> bytes:
    """UTF-8, or almost."""
    for _ in range(random.choice([1, 1, 2, 3])):
        lines = text.splitlines(keepends=True) or [""]
        number, place = random.randrange(len(lines)), random.randrange(len(text) + 1)
        change = random.randrange(6)
        if change == 0:
            text = text[:place]
        elif change == 1:
            text = text[:place] + text[place + random.choice([1, 2, 9]) :]
        elif change == 2:
            text = "".join([*lines[:number], *lines[number + 1 :]])
        elif change == 3:
            text = "".join([*lines[:number], *random.choice([1, 2, 40]) * [lines[number]], *lines[number:]])
        else:
            text = text[:place] + random.choice(TEXTS) + text[place:]
    content = text.encode("utf-8", "surrogatepass")
    return random.choice(
        [content, content, content, content, damaged(content, random), text.encode("utf-16", "surrogatepass")]
    )
