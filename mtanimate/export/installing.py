"""`mtanimate export --install`: an export for `--backend auto`, measured against the torch engine on this machine."""

import timeit
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from mtanimate.checkpoints.registry import resolve
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.export.export import ExportResult, Original, write_export
from mtanimate.export.parity import synthetic_frames
from mtanimate.export.programs import check_format
from mtanimate.files import replacing_folder, sha256
from mtanimate.inference.backends import ExportedNetwork
from mtanimate.inference.engine import PreparedNetwork, fastest_precision
from mtanimate.inference.installed import EXPORT, Measurement, installed_folder, this_machine, uninstall
from mtanimate.inference.manifest import NAME, read_manifest
from mtanimate.inference.predictor import Predictor
from mtanimate.models.animator import Animator
from mtanimate.outputs import claim

_TURNS = 7  # of both, in turn; the quickest of each counts, which other work on the machine disturbed least


@dataclass(frozen=True)
class Installation:
    """An export that was installed. as_dict: As `--json` prints it."""

    export: ExportResult
    measurement: Measurement

    def as_dict(self) -> dict[str, Any]:
        measured = self.measurement
        shares = {"engine": measured.engine, "batch": measured.batch, "single": measured.single}
        return self.export.as_dict() | {"machine": measured.machine, "measured": shares, "faster": measured.faster}


def install(
    checkpoint: str,
    format: str,
    *,
    precision: str = "fp32",
    calibrate: Sequence[Path] = (),
    log: Callable[[str], None] = lambda line: None,
) -> Installation:
    """Exports a checkpoint's network, compares it with PyTorch, measures it, and keeps it in the user's cache.

    It takes the place of the checkpoint's export that was installed before.

    Args:
        checkpoint: a name or a file.
        format: onnx or openvino.
        precision: fp32, fp16 or int8, which needs `calibrate`.
        calibrate: videos, folders of frames, pictures.
        log: gets each step.

    Raises:
        InputError: a wrong file or option.
        MTAnimateError: the network cannot be exported, differs from PyTorch by more than the tolerance, cannot be
            kept, or another run is installing it; then what was installed before stays.
    """
    if format == "torch":
        raise InputError("--format torch: programs for PyTorch are not installed; give openvino or onnx")
    check_format(format, precision)
    home = _home(checkpoint)
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        with claim(home), replacing_folder(home, overwrite=True) as partial:
            original = Original.read(checkpoint, precision, calibrate)
            folder = partial / EXPORT
            folder.mkdir()
            exported = write_export(original, format, precision, folder, log)
            log("measuring it beside the torch engine")
            measurement = measure(original.animator, folder, log)
            measurement.write(partial)
    except OSError as error:
        raise MTAnimateError(
            f"the export could not be kept in {home} ({error.strerror}): make room there, or set MTANIMATE_CACHE"
        ) from error
    return Installation(replace(exported, out=str(home / EXPORT)), measurement)


def remove(checkpoint: str) -> Path:
    """Removes a checkpoint's installed export.

    Returns:
        The folder that is gone.

    Raises:
        InputError: none is installed.
        MTAnimateError: another run is installing it.
    """
    home = _home(checkpoint)
    with claim(home):
        return uninstall(home.name)


def _home(checkpoint: str) -> Path:
    return installed_folder(sha256(resolve(checkpoint)))


def measure(animator: Animator, folder: Path, log: Callable[[str], None]) -> Measurement:
    """Times an exported network and the torch engine in its fastest precision, in turn, on the CPU.

    Args:
        animator: the original network, which may be changed.
        folder: the export.
        log: gets a line where the engine's precision is measured, too.
    """
    manifest = read_manifest(folder)
    engine = fastest_precision(animator, manifest.checkpoint_sha256, log)
    network = ExportedNetwork(folder, manifest.backend, manifest.model, manifest.files)
    ours = Predictor(PreparedNetwork(animator), engine, log)
    theirs = Predictor(network, manifest.precision, log)
    frames = (255 * synthetic_frames(animator.config.resolution)).byte()
    return Measurement(
        manifest=sha256(folder / NAME),
        machine=this_machine(manifest.backend),
        engine=engine,
        single=_share(theirs, ours, frames[:1]),
        batch=_share(theirs, ours, frames),
    )


def _share(predictor: Predictor, other: Predictor, frames: Tensor) -> float:
    """What the first takes of the other's time for these frames, uint8 (B, 3, R, R)."""
    drives = [_driving(each, frames) for each in (predictor, other)]
    for drive in drives:
        drive()  # the first takes longer
    ours, theirs = zip(*[[timeit.timeit(drive, number=1) for drive in drives] for _ in range(_TURNS)], strict=True)
    return round(min(ours) / min(theirs), 3)


def _driving(predictor: Predictor, frames: Tensor) -> Callable[[], object]:
    source = predictor.encode(frames[:1])
    return lambda: predictor.drive(source, predictor.estimate(frames), predictor.predict_background(source, frames))
