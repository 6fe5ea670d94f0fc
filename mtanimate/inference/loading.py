"""Loading a network that animates: a checkpoint's, or one that was exported."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from mtanimate.checkpoints.file import read_checkpoint
from mtanimate.checkpoints.registry import is_path, resolve
from mtanimate.config import ModelConfig
from mtanimate.devices import Precision, choose_device, choose_precision, describe_device
from mtanimate.errors import InputError
from mtanimate.files import sha256
from mtanimate.inference.backends import ExportedNetwork
from mtanimate.inference.engine import PreparedNetwork, fastest_precision
from mtanimate.inference.manifest import NAME, is_exported, read_manifest
from mtanimate.models.animator import EncodedSource, Rendering
from mtanimate.models.motion import Motion


class Network(Protocol):
    """What a predictor calls: an `Animator`, an `ExportedNetwork` or a `CapturedNetwork`. See `Animator`'s methods."""

    config: ModelConfig

    @property
    def device(self) -> torch.device: ...

    def estimate_motion(self, frames: Tensor) -> Motion: ...

    def encode_source(self, picture: Tensor, motion: Motion | None = None) -> EncodedSource: ...

    def render(self, source: EncodedSource, motion: Motion, background: Tensor | None = None) -> Rendering: ...

    def predict_background(self, source: Tensor, driving: Tensor) -> Tensor | None: ...

    def disentangle(self, source: Motion, driving: Motion) -> Motion: ...


@dataclass(frozen=True)
class LoadedNetwork:
    """A network on its device, shared by all predictors that are made of it.

    Attributes:
        name: The checkpoint's name or path, as it was given.
        sha256: Of the file that holds the weights. For an exported network, of the checkpoint it was exported from.
        network: Ready to be prepared for a precision, or exported.
        device: Where it computes.
        precision: What it computes in: fp32, fp16, bf16 or int8.
        backend: What runs it: torch, onnx or openvino.
        batch_size: Frames per batch; None means what suits the device.
    """

    name: str
    sha256: str
    network: PreparedNetwork | ExportedNetwork
    device: torch.device
    precision: str
    backend: str
    batch_size: int | None = None

    @property
    def config(self) -> ModelConfig:
        return self.network.config

    @property
    def resolution(self) -> int:
        """The side of the square pictures that the network takes and gives, in pixels."""
        return self.config.resolution

    def describe(self) -> str:
        """For people: `device cpu (2 threads), fp32; 256 x 256`."""
        by = f" by {self.backend}" if isinstance(self.network, ExportedNetwork) else ""
        device = describe_device(self.device)
        return f"device {device}, {self.precision}{by}; {self.resolution} x {self.resolution}"


def load_network(
    checkpoint: str,
    device: str = "auto",
    precision: Precision = "auto",
    backend: str | None = None,
    log: Callable[[str], None] = lambda line: None,
    batch_size: int | None = None,
    allow_code: bool = False,
) -> LoadedNetwork:
    """Load a network for inference.

    Args:
        checkpoint: A name, a file, or a folder written by `mtanimate export`, which says what runs it.
        device: auto, cpu, cuda, cuda:N or mps. Exported networks run on the CPU.
        precision: What to compute in. auto is the fastest of the device; an exported network keeps its own.
        backend: Insist on torch, onnx or openvino.
        log: Gets remarks, a line at a time.
        batch_size: Frames per batch; None means what suits the device.
        allow_code: Run the programs of a folder that was exported for PyTorch. They can do anything on this machine.

    Raises:
        InputError: An option or a file is wrong.
    """
    folder = Path(checkpoint).expanduser()
    if is_path(checkpoint) and is_exported(folder):
        return _load_exported(checkpoint, device, precision, backend, log, batch_size, allow_code)
    file = resolve(checkpoint)
    if backend not in (None, "torch"):
        raise InputError(
            f"--backend {backend} runs an exported network: mtanimate export --checkpoint {checkpoint} --format "
            f"{backend} --out FOLDER, then --checkpoint FOLDER/"
        )
    chosen = choose_device(device, log)
    animator = read_checkpoint(file, chosen).animator
    digest = sha256(file)
    computes_in = (
        fastest_precision(animator, digest, log) if precision == "auto" else choose_precision(precision, chosen)
    )
    return LoadedNetwork(checkpoint, digest, PreparedNetwork(animator), chosen, computes_in, "torch", batch_size)


def _load_exported(
    checkpoint: str,
    device: str,
    precision: Precision,
    backend: str | None,
    log: Callable[[str], None],
    batch_size: int | None,
    allow_code: bool,
) -> LoadedNetwork:
    folder = Path(checkpoint).expanduser()
    manifest = read_manifest(folder)
    if backend not in (None, manifest.backend):
        raise InputError(
            f"--backend {backend}: {folder} was exported for {manifest.backend}; leave --backend out, or: "
            f"mtanimate export --format {backend}"
        )
    if device not in ("auto", "cpu"):
        raise InputError(f"--device {device}: {folder} is an exported network, and those run on the CPU")
    bf16 = precision == "bf16" and manifest.backend == "openvino"
    if precision not in ("auto", manifest.precision) and not bf16:
        raise InputError(f"--precision {precision}: {folder} was exported in {manifest.precision}, and stays so")
    if manifest.backend == "torch" and not allow_code:
        raise InputError(
            f"{folder} holds programs (.pt2), which can do anything on this machine: if you trust who made them, "
            "--allow-code runs them; exports for onnx and openvino hold none"
        )
    log(
        f"{folder} says of itself: exported by mtanimate {manifest.mtanimate} from '{manifest.checkpoint}' (SHA-256 "
        f"{manifest.checkpoint_sha256[:16]}...); the SHA-256 of its manifest is {sha256(folder / NAME)}"
    )
    return LoadedNetwork(
        name=checkpoint,
        sha256=manifest.checkpoint_sha256,
        network=ExportedNetwork(folder, manifest.backend, manifest.model, manifest.files, bf16=bf16),
        device=torch.device("cpu"),
        precision="bf16" if bf16 else manifest.precision,
        backend=manifest.backend,
        batch_size=batch_size,
    )
