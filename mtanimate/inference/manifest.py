"""The manifest of an exported network: its graphs, their inputs and outputs, and the files that hold them."""

import hashlib
import importlib.metadata
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from mtanimate.config import ModelConfig, from_checkpoint, to_mapping
from mtanimate.errors import InputError
from mtanimate.files import sha256
from mtanimate.reading import read_bytes, read_json

# The suffixes of a graph's files, by backend. The runtime is given the first one.
SUFFIXES = {"torch": (".pt2",), "onnx": (".onnx",), "openvino": (".xml", ".bin")}


@dataclass(frozen=True)
class Graph:
    """A part of a network that is exported by itself. inputs, outputs: names, in order."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def files(self, backend: str) -> list[str]:
        return [self.name + suffix for suffix in SUFFIXES[backend]]


def graphs_of(config: ModelConfig) -> tuple[Graph, ...]:
    """The graphs of a network: encode, estimate, drive; background where it has a background predictor, and disentangle
    where it tells shape from pose.
    """
    features = feature_names(config)
    picture = ("source",) if config.generator.skips else ()
    motions = ("source_keypoints", "source_affine", "driving_keypoints", "driving_affine")
    background = ("background",) if config.background else ()
    occlusion = ("occlusion",) if config.dense_motion.occlusion else ()
    graphs: tuple[Graph, ...] = (
        Graph("encode", ("source",), ("reduced", *features, "keypoints", "affine")),
        Graph("estimate", ("frames",), ("keypoints", "affine")),
        Graph(
            "drive",
            (*picture, "reduced", *features, *motions, *background),
            ("prediction", "masks", "flow", *occlusion),
        ),
    )
    if background:
        graphs += (Graph("background", ("source", "driving"), background),)
    if config.disentangles:
        graphs += (Graph("disentangle", ("source_keypoints", "driving_keypoints"), ("keypoints",)),)
    return graphs


def feature_names(config: ModelConfig) -> tuple[str, ...]:
    """The encoder's feature maps that driving needs, largest first; without skips, the smallest alone."""
    last = config.generator.num_down_blocks
    return tuple(f"features_{level}" for level in range(0 if config.generator.skips else last, last + 1))


_FORMATS = "mtanimate-export-"  # of any version
FORMAT = f"{_FORMATS}1"
NAME = "manifest.json"
_MOST_BYTES = 16 << 20  # of the manifest
_LARGEST_FILE = 4 << 30  # of a graph, which is read whole: the weights of a billion parameters


@dataclass(frozen=True)
class Manifest:
    """What an exported folder holds.

    Attributes:
        backend: torch, onnx or openvino.
        precision: fp32, fp16 or int8.
        checkpoint: The name of the checkpoint that was exported.
        checkpoint_sha256: Of that checkpoint's file. Motion files of the checkpoint serve the export, and vice versa.
        model: The network's configuration.
        shapes: By graph and by input or output; "batch" stands for any number.
        differences: From PyTorch, as measured, and the tolerance.
        files: SHA-256 by file name.
        mtanimate: The version that wrote it.
    """

    backend: str
    precision: str
    checkpoint: str
    checkpoint_sha256: str
    model: ModelConfig
    shapes: dict[str, dict[str, dict[str, list[int | str]]]]
    differences: dict[str, Any]
    files: dict[str, str]
    mtanimate: str = field(default_factory=lambda: importlib.metadata.version("mtanimate"))

    def write(self, folder: Path) -> None:
        values = {"format": FORMAT} | asdict(self) | {"model": to_mapping(self.model)}
        (folder / NAME).write_text(json.dumps(values, indent=1) + "\n", "utf-8")


def is_exported(path: Path) -> bool:
    """Whether this is an exported folder, complete or not."""
    return (path / NAME).is_file()


def foreign_in(folder: Path) -> str:
    """What in a folder does not belong to an export, and so must not be replaced.

    Returns:
        The name of a file that the folder's manifest, of any version, does not list. Without a manifest, the folder's
        own name. Empty where everything is of an export, or the folder is empty.
    """
    try:
        values = json.loads((folder / NAME).read_text("utf-8"))
        ours = {NAME, *values["files"]} if values["format"].startswith(_FORMATS) else set()
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError, OSError):
        ours = set()
    if not ours:
        return "" if folder.is_dir() and not any(folder.iterdir()) else folder.name
    return next((path.name for path in sorted(folder.iterdir()) if path.name not in ours or path.is_dir()), "")


def read_manifest(folder: Path) -> Manifest:
    """What the folder holds. Its files are checked when `read_verified` reads them.

    Raises InputError where the manifest is damaged, or of another version.
    """
    file = folder / NAME
    again = "export it again"
    try:
        values = read_json(file, _MOST_BYTES)
        version, made_by = values["format"], values.get("mtanimate")
    except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise InputError(f"{file} is damaged ({_line(error)}): {again}") from error
    if version != FORMAT:
        raise InputError(f"{folder} was exported by mtanimate {made_by} as {version}, this one reads {FORMAT}: {again}")
    try:
        model = from_checkpoint({"model": values["model"]}).model
        manifest = Manifest(**{field.name: values[field.name] for field in fields(Manifest)} | {"model": model})
        expected = {name for graph in graphs_of(model) for name in graph.files(manifest.backend)}
        if not all(isinstance(text, str) for text in (manifest.checkpoint, manifest.checkpoint_sha256, made_by)):
            raise ValueError("it does not say what it was exported from")
        if not isinstance(manifest.differences, dict):
            raise ValueError("it does not say how far it is from PyTorch")
        if not isinstance(manifest.files, dict) or manifest.files.keys() != expected:
            raise ValueError(f"its files are not those of its network for {manifest.backend}")
    except (AttributeError, InputError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file} is damaged ({_line(error)}): {again}") from error
    return manifest


def digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of each of the folder's files, by name."""
    return {file.name: sha256(file) for file in sorted(folder.iterdir())}


def read_verified(file: Path, digest: str) -> bytes:
    """The file's content, read once, so that the bytes given to a runtime are those that were checked.

    Raises InputError where it is missing, or its SHA-256 is not `digest`.
    """
    again = "export it again"
    if not file.is_file():  # a device would never end
        raise InputError(f"{file} is missing: copy the whole folder, or {again}")
    content = read_bytes(file, _LARGEST_FILE)
    if hashlib.sha256(content).hexdigest() != digest:
        raise InputError(f"{file} is not the file that was exported (its SHA-256 differs): {again}")
    return content


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
