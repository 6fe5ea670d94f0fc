"""The network that animates: a checkpoint's, or one that was exported."""

from collections.abc import Callable
from pathlib import Path

import torch

from mtanimate.checkpoints.file import read_checkpoint
from mtanimate.checkpoints.registry import is_path, resolve
from mtanimate.devices import Precision, choose_device, choose_precision, describe_device
from mtanimate.errors import InputError
from mtanimate.files import sha256
from mtanimate.inference.backends import Exported
from mtanimate.inference.engine import Prepared, fastest_precision
from mtanimate.inference.manifest import NAME, is_exported, read_manifest
from mtanimate.inference.predictor import Network, Performer


class Cast:
    """A checkpoint on its device, for as many animations as there are.

    checkpoint: a name, a file, or a folder that `mtanimate export` wrote, which knows what runs it. backend: insist on
    torch, onnx or openvino. precision: what it computes in. batch_size: as `Performer` takes it. allow_code: run a
    folder's programs, which can do whatever they like. sha256: of the weights. log: gets remarks.
    Raises InputError for wrong options or files.
    """

    def __init__(
        self,
        checkpoint: str,
        device: str = "auto",
        precision: Precision = "auto",
        backend: str | None = None,
        log: Callable[[str], None] = lambda line: None,
        batch_size: int | None = None,
        allow_code: bool = False,
    ) -> None:
        self.name = checkpoint
        self.batch_size = batch_size
        self.animator: Network
        self._network: Network | Prepared  # what performers share
        folder = Path(checkpoint).expanduser()
        if is_path(checkpoint) and is_exported(folder):
            self._take_exported(folder, device, precision, backend, allow_code, log)
            return
        file = resolve(checkpoint)
        if backend not in (None, "torch"):
            raise InputError(
                f"--backend {backend} runs an exported network: mtanimate export --checkpoint {checkpoint} --format "
                f"{backend} --out FOLDER, then --checkpoint FOLDER/"
            )
        self.backend = "torch"
        self.device = choose_device(device, log)
        animator = read_checkpoint(file, self.device).animator
        self.sha256 = sha256(file)
        if precision == "auto":
            self.precision = fastest_precision(animator, self.sha256, log)
        else:
            self.precision = choose_precision(precision, self.device)
        self.animator, self._network = animator, Prepared(animator)

    def _take_exported(
        self,
        folder: Path,
        device: str,
        precision: Precision,
        backend: str | None,
        allow_code: bool,
        log: Callable[[str], None],
    ) -> None:
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
            f"{folder} says of itself: exported by mtanimate {manifest.mtanimate} from '{manifest.checkpoint}' ("
            f"SHA-256 {manifest.checkpoint_sha256[:16]}...); that of its manifest is {sha256(folder / NAME)}"
        )
        self.backend = manifest.backend
        self.device = torch.device("cpu")
        self.precision = "bf16" if bf16 else manifest.precision
        self.animator = self._network = Exported(folder, manifest.backend, manifest.model, manifest.files, bf16=bf16)
        self.sha256 = manifest.checkpoint_sha256

    def performer(self, warn: Callable[[str], None]) -> Performer:
        """One for each animation; in as many threads as there are."""
        return Performer(self._network, self.precision, warn, self.batch_size)

    def describe(self) -> str:
        """For people: `device cpu (2 threads), fp32; 256 x 256`."""
        by = f" by {self.backend}" if isinstance(self.animator, Exported) else ""
        device = describe_device(self.device)
        return f"device {device}, {self.precision}{by}; {self.resolution} x {self.resolution}"

    @property
    def resolution(self) -> int:
        return self.animator.config.resolution
