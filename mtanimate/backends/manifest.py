"""`manifest.json`, which says what an exported folder holds."""

import importlib.metadata
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from mtanimate.backends.graphs import graphs_of
from mtanimate.config import ModelConfig, from_mapping, to_mapping
from mtanimate.errors import InputError
from mtanimate.files import sha256

FORMAT = "mtanimate-export-1"
NAME = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """What an exported folder holds.

    backend: torch, onnx or openvino. precision: fp32, fp16 or int8. checkpoint: the name it was exported from, and
    checkpoint_sha256, what its file held: motion that was kept with one serves the other. shapes: by graph and by
    input or output, "batch" where any number goes. differences: from PyTorch, as they were measured, and the tolerance.
    files: SHA-256 by name.
    """

    backend: str
    precision: str
    checkpoint: str
    checkpoint_sha256: str
    model: ModelConfig
    shapes: dict[str, dict[str, dict[str, list[int | str]]]]
    differences: dict[str, Any]
    files: dict[str, str]

    def write(self, folder: Path) -> None:
        made = {"format": FORMAT, "mtanimate": importlib.metadata.version("mtanimate")}
        values = made | asdict(self) | {"model": to_mapping(self.model)}
        (folder / NAME).write_text(json.dumps(values, indent=1) + "\n", "utf-8")


def is_exported(path: Path) -> bool:
    """Whether this is an exported folder, whole or not."""
    return (path / NAME).is_file()


def read_manifest(folder: Path) -> Manifest:
    """What the folder holds, every file of it checked against its checksum.

    Raises InputError where it is none of ours, of another version, or a file is missing or changed.
    """
    file = folder / NAME
    again = "export it again"
    try:
        values = json.loads(file.read_text("utf-8"))
        version, made_by = values["format"], values.get("mtanimate")
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError, OSError) as error:
        raise InputError(f"{file} is damaged ({_line(error)}): {again}") from error
    if version != FORMAT:
        raise InputError(f"{folder} was exported by mtanimate {made_by} as {version}, this one reads {FORMAT}: {again}")
    try:
        model = from_mapping(ModelConfig, values["model"], "model")
        manifest = Manifest(**{field.name: values[field.name] for field in fields(Manifest)} | {"model": model})
        expected = {name for graph in graphs_of(model) for name in graph.files(manifest.backend)}
        if set(manifest.files) != expected:
            raise ValueError(f"its files are not those of its network for {manifest.backend}")
    except (AttributeError, InputError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file} is damaged ({_line(error)}): {again}") from error
    for name, digest in manifest.files.items():
        if not (folder / name).is_file():
            raise InputError(f"{folder / name} is missing: copy the whole folder, or {again}")
        if sha256(folder / name) != digest:
            raise InputError(f"{folder / name} is not the file that was exported (its SHA-256 differs): {again}")
    return manifest


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
