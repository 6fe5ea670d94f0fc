"""What comes back from a GPU: `results.json`, written as it comes, and large files in parts."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

MOST_FILES = 8
PART = 15 * 2**20  # bytes; less than 16 MiB
ROOM = 64 * 2**20  # of all files together
_OTHERS = ("results.json", "log.txt")


class Results:
    """`results.json` in `folder`. Whole at any time: a kill leaves what was found until then."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "results.json"

    def read(self) -> dict[str, Any]:
        return json.loads(self.file.read_text("utf-8")) if self.file.exists() else {}

    def change(self, do: Callable[[dict[str, Any]], object]) -> None:
        content = self.read()
        do(content)
        partial = self.file.with_suffix(".partial")
        partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")
        os.replace(partial, self.file)

    def put(self, value: Any, *keys: str) -> None:
        """value: at this place in nested mappings, which are made where they are missing."""

        def do(content: dict[str, Any]) -> None:
            for key in keys[:-1]:
                content = content.setdefault(key, {})
            content[keys[-1]] = value

        self.change(do)

    def send(self, file: Path, name: str, about: dict[str, Any]) -> None:
        """Cut `file` into parts, `NAME-*.part0` and so on, in place of those that were sent as `name` before.

        These go when the new ones and their checksum are written, so that a kill leaves one or the other whole.
        """
        content = file.read_bytes()
        sha256 = hashlib.sha256(content).hexdigest()
        parts = [f"{name}-{sha256[:8]}.part{number}" for number in range(-(-len(content) // PART))]
        for number, part in enumerate(parts):
            (self.folder / part).write_bytes(content[number * PART : (number + 1) * PART])
        self.put({**about, "parts": parts, "bytes": len(content), "sha256": sha256}, "files", name)
        for old in self.folder.glob(f"{name}-*.part*"):
            if old.name not in parts:
                old.unlink()

    def fits(self, size: int, *, replaced: bool) -> bool:
        """Whether a file of `size` bytes can come back beside those that are there. replaced: again and again, which
        takes the room of two."""
        there = [file for file in self.folder.iterdir() if file.name not in _OTHERS]
        parts = -(-size // PART) * (2 if replaced else 1)
        taken = sum(file.stat().st_size for file in there)
        return len(_OTHERS) + len(there) + parts <= MOST_FILES and taken + size <= ROOM - 2**20


def joined(folder: Path, name: str) -> bytes:
    """A file that `Results.send` cut. Raises ValueError, in one line, where it is not there or not whole."""
    content = Results(folder).read().get("files", {}).get(name)
    if content is None:
        raise ValueError(f"'{folder}' has no {name}: results.json names none")
    missing = [part for part in content["parts"] if not (folder / part).is_file()]
    if missing:
        raise ValueError(f"'{folder}' lacks {', '.join(missing)}, parts of the {name}: copy them again")
    whole = b"".join((folder / part).read_bytes() for part in content["parts"])
    if hashlib.sha256(whole).hexdigest() != content["sha256"]:
        raise ValueError(f"the parts of the {name} in '{folder}' are not those that were written: copy them again")
    return whole
