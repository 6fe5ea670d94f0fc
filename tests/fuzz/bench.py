"""What a case is made with: its folder, its random numbers, and the good files."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from random import Random

import good_files
import mutations


@dataclass
class Bench:
    """The command runs in `folder / "work"`. No file may reach `folder / "outside"`: hostile ones name `kept.txt` and
    `kept.mp4` in it, and `made` where something would run. address: of a server that nobody may ask.
    """

    random: Random
    folder: Path
    good: Path
    address: str

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @property
    def outside(self) -> Path:
        return self.folder / "outside"

    def take(self, *names: str) -> None:
        """Good files and folders, into `work`; "NAME as OTHER" under another name."""
        for name in names:
            source, _, other = name.partition(" as ")
            target = self.work / (other or source)
            target.parent.mkdir(parents=True, exist_ok=True)
            path = good_files.good(self.good, source)
            (shutil.copytree if path.is_dir() else shutil.copy)(path, target)

    def content(self, name: str) -> bytes:
        top, _, rest = name.partition("/")
        return (good_files.good(self.good, top) / rest).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        (self.work / name).parent.mkdir(parents=True, exist_ok=True)
        (self.work / name).write_bytes(content)

    def damage_json(self, name: str) -> None:
        """A file of JSON in `work` has other values, or is torn text."""
        text = (self.work / name).read_text("utf-8")
        if self.random.random() < 0.7:
            self.write(name, json.dumps(mutations.other_tree(json.loads(text), self.random)).encode())
        else:
            self.write(name, mutations.other_text(text, self.random))

    def damage_lines(self, name: str) -> None:
        """Of a file of JSON a line, one line has other values, or the text is torn."""
        lines = (self.work / name).read_text("utf-8").splitlines()
        number = self.random.randrange(len(lines))
        if self.random.random() < 0.6:
            lines[number] = json.dumps(mutations.other_tree(json.loads(lines[number]), self.random))
            self.write(name, ("\n".join(lines) + "\n").encode())
        else:
            self.write(name, mutations.other_text("\n".join(lines) + "\n", self.random))
