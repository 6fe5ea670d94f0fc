"""Loading a network that animates: a checkpoint's, or one that was exported."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from mtanimate.checkpoints.file import read_checkpoint
from mtanimate.checkpoints.registry import is_path, resolve
from mtanimate.config import ModelConfig
from mtanimate.devices import Precision, choose_device, choose_precision, describe_device
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.files import sha256
from mtanimate.inference.backends import ExportedNetwork
from mtanimate.inference.engine import PreparedNetwork, fastest_precision
from mtanimate.inference.installed import read_installed
from mtanimate.inference.manifest import NAME, Manifest, is_exported, read_manifest
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
        """For people: `device cpu (2 threads), fp32 by torch; 256 x 256`."""
        device = describe_device(self.device)
        return f"device {device}, {self.precision} by {self.backend}; {self.resolution} x {self.resolution}"


def load_network(
    checkpoint: str,
    device: str = "auto",
    precision: Precision = "auto",
    backend: str = "auto",
    log: Callable[[str], None] = lambda line: None,
    batch_size: int | None = None,
    allow_code: bool = False,
) -> LoadedNetwork:
    """Load a network for inference.

    Args:
        checkpoint: A name, a file, or a folder written by `mtanimate export`, which says what runs it.
        device: auto, cpu, cuda, cuda:N or mps. Exported networks run on the CPU.
        precision: What to compute in. auto is the fastest of the device; an exported network keeps its own.
        backend: torch; onnx or openvino, which run a folder, or a checkpoint's installed export; or auto: a folder's
            own, and that of a checkpoint's installed export where it was measured to be faster, otherwise torch.
        log: Gets remarks, a line at a time.
        batch_size: Frames per batch; None means what suits the device.
        allow_code: Run the programs of a folder that was exported for PyTorch. They can do anything on this machine.

    Raises:
        InputError: An option or a file is wrong.
    """
    if names_export(checkpoint):
        return _load_folder(checkpoint, device, precision, backend, log, batch_size, allow_code)
    file = resolve(checkpoint)
    digest = sha256(file)
    if backend not in ("auto", "torch"):
        return replace(_load_installed(checkpoint, digest, device, precision, backend), batch_size=batch_size)
    chosen = choose_device(device, log)
    if backend == "auto" and (installed := _faster_export(checkpoint, digest, chosen, precision, log)):
        return replace(installed, batch_size=batch_size)
    animator = read_checkpoint(file, chosen).animator
    computes_in = (
        fastest_precision(animator, digest, log) if precision == "auto" else choose_precision(precision, chosen)
    )
    return LoadedNetwork(checkpoint, digest, PreparedNetwork(animator), chosen, computes_in, "torch", batch_size)


def names_export(checkpoint: str) -> bool:
    """Whether `--checkpoint` means a folder written by `mtanimate export`."""
    return is_path(checkpoint) and is_exported(Path(checkpoint).expanduser())


def _faster_export(
    checkpoint: str, digest: str, device: torch.device, precision: Precision, log: Callable[[str], None]
) -> LoadedNetwork | None:
    """What `--backend auto` runs instead of the torch engine; None where that is better, which is logged if there is an
    export at all."""
    try:
        installed = read_installed(digest)
        if installed is None:
            return None
        against = installed.reason_against(device, precision)
        if not against:
            loaded = _exported(checkpoint, installed.folder, installed.manifest)
            taken = installed.measurement.describe()
            log(f"--backend auto is {loaded.backend}: the installed export was measured to take {taken}")
            return loaded
    except (MTAnimateError, OSError) as error:
        against = str(error)
    log(f"--backend auto is torch: {against}")
    return None


def _load_installed(checkpoint: str, digest: str, device: str, precision: Precision, backend: str) -> LoadedNetwork:
    installed = read_installed(digest)
    to_get = f"mtanimate export --checkpoint {checkpoint} --install --format {backend}"
    if installed is None:
        raise InputError(f"--backend {backend} runs an exported network, and none of this is installed: {to_get}")
    folder, manifest = installed.folder, installed.manifest
    if manifest.backend != backend:
        raise InputError(f"--backend {backend}: the installed export is for {manifest.backend}: {to_get}")
    return _exported(checkpoint, folder, manifest, bf16=_in_bf16(folder, manifest, device, precision))


def _load_folder(
    checkpoint: str,
    device: str,
    precision: Precision,
    backend: str,
    log: Callable[[str], None],
    batch_size: int | None,
    allow_code: bool,
) -> LoadedNetwork:
    folder = Path(checkpoint).expanduser()
    manifest = read_manifest(folder)
    if backend not in ("auto", manifest.backend):
        raise InputError(
            f"--backend {backend}: {folder} was exported for {manifest.backend}; leave --backend out, or: "
            f"mtanimate export --format {backend}"
        )
    bf16 = _in_bf16(folder, manifest, device, precision)
    if manifest.backend == "torch" and not allow_code:
        raise InputError(
            f"{folder} holds programs (.pt2), which can do anything on this machine: if you trust who made them, "
            "--allow-code runs them; exports for onnx and openvino hold none"
        )
    log(
        f"{folder} says of itself: exported by mtanimate {manifest.mtanimate} from '{manifest.checkpoint}' (SHA-256 "
        f"{manifest.checkpoint_sha256[:16]}...); the SHA-256 of its manifest is {sha256(folder / NAME)}"
    )
    return replace(_exported(checkpoint, folder, manifest, bf16=bf16), batch_size=batch_size)


def _in_bf16(folder: Path, manifest: Manifest, device: str, precision: Precision) -> bool:
    """Whether an export is to compute in bfloat16. Raises InputError for a device or a precision that it has not."""
    if device not in ("auto", "cpu"):
        raise InputError(f"--device {device}: {folder} is an exported network, and those run on the CPU")
    bf16 = precision == "bf16" and manifest.backend == "openvino"
    if precision not in ("auto", manifest.precision) and not bf16:
        raise InputError(f"--precision {precision}: {folder} was exported in {manifest.precision}, and stays so")
    return bf16


def _exported(name: str, folder: Path, manifest: Manifest, *, bf16: bool = False) -> LoadedNetwork:
    return LoadedNetwork(
        name=name,
        sha256=manifest.checkpoint_sha256,
        network=ExportedNetwork(folder, manifest.backend, manifest.model, manifest.files, bf16=bf16),
        device=torch.device("cpu"),
        precision="bf16" if bf16 else manifest.precision,
        backend=manifest.backend,
    )
