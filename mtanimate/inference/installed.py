"""Installed exports: kept in the user's cache, one for each checkpoint, each with what was measured of it."""

import importlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from mtanimate.devices import processor
from mtanimate.errors import InputError
from mtanimate.files import cache_folder, sha256
from mtanimate.inference.backends import missing
from mtanimate.inference.manifest import NAME, Manifest, read_manifest
from mtanimate.reading import read_json

EXPORT = "export"  # the exported folder, within that of its checkpoint
_MEASUREMENT = "measurement.json"
_RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino"}  # modules, by backend
_WORTH = 0.9  # of the torch engine's time: with more, other work on the machine may have made the difference
_AGAIN = "mtanimate export --install makes it anew"


def installed_folder(checkpoint_sha256: str) -> Path:
    """Where the export of this checkpoint is kept, if one is installed."""
    return cache_folder() / "exports" / checkpoint_sha256


def this_machine(backend: str) -> str:
    """All that a measurement depends on: processor, threads, and versions of PyTorch and the backend's runtime.

    Raises InputError where the runtime is not installed.
    """
    try:
        runtime = importlib.import_module(_RUNTIMES[backend])
    except ImportError as error:
        raise missing(backend) from error
    threads = f"{torch.get_num_threads()} threads"
    return f"{processor()}, {threads}, torch {torch.__version__}, {backend} {runtime.__version__}"


@dataclass(frozen=True)
class Measurement:
    """An export beside the torch engine, the network alone.

    Attributes:
        manifest: SHA-256 of the export's manifest.
        machine: What it was measured on, as `this_machine` says it.
        engine: The precision of the torch engine: its fastest there.
        single: Of the engine's time, what the export takes for one frame alone.
        batch: The same for four frames at once.
    """

    manifest: str
    machine: str
    engine: str
    single: float
    batch: float

    @property
    def faster(self) -> bool:
        return max(self.single, self.batch) < _WORTH

    def describe(self) -> str:
        """For people: `0.58 of the torch engine's time (bf16), 0.61 for a frame alone`."""
        return f"{self.batch:.2f} of the torch engine's time ({self.engine}), {self.single:.2f} for a frame alone"

    def write(self, folder: Path) -> None:
        (folder / _MEASUREMENT).write_text(json.dumps(asdict(self), indent=1) + "\n", "utf-8")


@dataclass(frozen=True)
class InstalledExport:
    """An export that is installed. folder: As `mtanimate export` writes it."""

    folder: Path
    manifest: Manifest
    measurement: Measurement

    def reason_against(self, device: torch.device, precision: str) -> str:
        """Why `--backend auto` does not use it on this device, asked for this precision; "" where it does.

        Raises InputError where its runtime is not installed.
        """
        if device.type != "cpu":
            return f"the installed export runs on the CPU, not on {device.type}"
        if precision not in ("auto", self.manifest.precision):
            return f"the installed export is in {self.manifest.precision}"
        if self.manifest.differences.get("within") is not True:
            return "the installed export's pictures are not close to PyTorch's"
        if self.measurement.machine != this_machine(self.manifest.backend):
            return f"the installed export was measured on {self.measurement.machine}; {_AGAIN}"
        if not self.measurement.faster:
            return f"the installed export was measured to take {self.measurement.describe()}"
        return ""


def read_installed(checkpoint_sha256: str) -> InstalledExport | None:
    """The export of this checkpoint that is installed; None where there is none.

    Its graphs are checked against its manifest when they are opened.

    Raises InputError where it is damaged, was changed, or is of another checkpoint or another version.
    """
    home = installed_folder(checkpoint_sha256)
    folder, file = home / EXPORT, home / _MEASUREMENT
    if not home.exists():
        return None
    manifest = read_manifest(folder)
    try:
        measurement = Measurement(**read_json(file))
        measurement.describe()
        changed = measurement.manifest != sha256(folder / NAME)
    except (OSError, TypeError, ValueError) as error:
        raise InputError(f"{file} is damaged ({' '.join(str(error).split())}); {_AGAIN}") from error
    if changed:
        raise InputError(f"{folder} was changed since it was installed; {_AGAIN}")
    if manifest.checkpoint_sha256 != checkpoint_sha256:
        raise InputError(f"{folder} is an export of another checkpoint; {_AGAIN}")
    return InstalledExport(folder, manifest, measurement)


def installed_checkpoints() -> Iterator[str]:
    """The SHA-256 of each checkpoint of which an export is installed."""
    return (home.name for home in sorted(installed_folder("").glob("[!.]*")))


def uninstall(checkpoint_sha256: str) -> Path:
    """Removes the export of this checkpoint.

    Returns:
        The folder that is gone.

    Raises:
        InputError: None is installed, or it cannot be removed.
    """
    home = installed_folder(checkpoint_sha256)
    try:
        shutil.rmtree(home)
    except FileNotFoundError as error:
        raise InputError("no export of this checkpoint is installed: 'mtanimate doctor' lists all") from error
    except OSError as error:
        raise InputError(f"{home} cannot be removed ({error.strerror}): check its permissions") from error
    return home
