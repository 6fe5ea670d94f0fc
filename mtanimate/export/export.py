"""The command `mtanimate export`: traces, converts and writes a network, and compares it with PyTorch."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from mtanimate.checkpoints.file import read_checkpoint
from mtanimate.checkpoints.registry import resolve
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.export.parity import Differences, calibration_frames, compare, synthetic_frames
from mtanimate.export.programs import check_format, save_models, save_programs, to_onnx, trace
from mtanimate.export.quantisation import quantise_models
from mtanimate.files import replacing_folder, sha256, taken
from mtanimate.inference.backends import ExportedNetwork
from mtanimate.inference.manifest import Manifest, digests, foreign_in, graphs_of
from mtanimate.models.animator import Animator
from mtanimate.outputs import check_folder, check_not_input, claim


@dataclass(frozen=True)
class ExportResult:
    """What was written, as `--json` prints it.

    Attributes:
        bytes: of all files.
        differences: from PyTorch.
        frames: what it was compared on: `calibration` or `synthetic`.
        int8: parts of the network in int8.
        float32: parts that could be in int8 and are not.
    """

    out: str
    format: str
    precision: str
    checkpoint: str
    graphs: list[str]
    bytes: int
    differences: Differences
    frames: str
    seconds: float
    int8: list[str] = field(default_factory=list)
    float32: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Original:
    """What is exported.

    Attributes:
        checkpoint: its name or file, as it was given.
        file: that holds it.
        animator: its network.
        groups: frames to calibrate and to compare with, as `calibration_frames` gives them.
        frames: what these are: `calibration` or `synthetic`.
    """

    checkpoint: str
    file: Path
    animator: Animator
    groups: list[Tensor]
    frames: str

    @classmethod
    def read(cls, checkpoint: str, precision: str, calibrate: Sequence[Path]) -> "Original":
        """Reads a checkpoint, and the frames of `calibrate`. Raises InputError where a file or an option is wrong."""
        if precision == "int8" and not calibrate:
            raise InputError("--precision int8 needs frames to see values' ranges on: --calibrate VIDEO_OR_PICTURES")
        file = resolve(checkpoint)
        animator = read_checkpoint(file).animator
        resolution = animator.config.resolution
        if calibrate:
            return cls(checkpoint, file, animator, calibration_frames(calibrate, resolution), "calibration")
        return cls(checkpoint, file, animator, [synthetic_frames(resolution)], "synthetic")


def export(
    checkpoint: str,
    format: str,
    out: str | Path,
    *,
    precision: str = "fp32",
    calibrate: Sequence[Path] = (),
    overwrite: bool = False,
    log: Callable[[str], None] = lambda line: None,
) -> ExportResult:
    """Writes a checkpoint's network as graphs, runs them, and compares the results with PyTorch.

    Args:
        checkpoint: a name or a file.
        format: torch, onnx or openvino.
        out: the folder.
        precision: fp32, fp16 or int8, which needs `calibrate`.
        calibrate: videos, folders of frames, pictures.
        overwrite: whether an exported folder may be replaced.
        log: gets each step.

    Raises:
        InputError: a wrong file or option.
        MTAnimateError: the network cannot be exported, differs from PyTorch by more than the tolerance, cannot be
            written, or another run is writing it; then `out` is unchanged.
    """
    out = Path(out).expanduser()
    with claim(out):
        check_format(format, precision)
        _check_out(out, overwrite)
        original = Original.read(checkpoint, precision, calibrate)
        check_not_input("--out", out, [original.file, *calibrate])
        try:
            with replacing_folder(out, _is_export if overwrite else False) as folder:
                result = write_export(original, format, precision, folder, log)
        except OSError as error:
            raise MTAnimateError(f"--out {out} could not be written ({error.strerror}): choose another") from error
        return replace(result, out=str(out))


def write_export(
    original: Original, format: str, precision: str, folder: Path, log: Callable[[str], None]
) -> ExportResult:
    """Writes graphs and manifest into an empty folder.

    Raises:
        MTAnimateError: the network cannot be exported, or differs from PyTorch by more than the tolerance.
        OSError: the folder cannot be written.
    """
    started = time.monotonic()
    animator = original.animator
    written = _write(animator, format, precision, original.groups, folder, log)
    log("comparing with PyTorch")
    files = digests(folder)
    exported = ExportedNetwork(folder, format, animator.config, files)
    differences = compare(animator, exported, original.groups, precision)
    if not differences.within:
        raise MTAnimateError(_too_far(differences))
    Manifest(
        backend=format,
        precision=precision,
        checkpoint=Path(original.checkpoint).name,
        checkpoint_sha256=sha256(original.file),
        model=animator.config,
        shapes=written.shapes,
        differences=differences.as_dict(),
        files=files,
    ).write(folder)
    return ExportResult(
        out=str(folder),
        format=format,
        precision=precision,
        checkpoint=original.checkpoint,
        graphs=list(written.shapes),
        bytes=sum(path.stat().st_size for path in folder.iterdir()),
        differences=differences,
        frames=original.frames,
        seconds=round(time.monotonic() - started, 1),
        int8=written.int8,
        float32=written.float32,
    )


def _check_out(out: Path, overwrite: bool) -> None:
    """Raises InputError unless the folder can be written. Only an exported folder is ever replaced."""
    check_folder(out)
    if not taken(out):
        return
    if not overwrite:
        raise InputError(f"--out {out} exists already: choose another, or --overwrite")
    foreign = foreign_in(out)
    if foreign:
        raise InputError(
            f"--out {out}: {foreign} is of no export, and only an exported folder is replaced: choose another"
        )


def _is_export(folder: Path) -> bool:
    return not foreign_in(folder)


@dataclass(frozen=True)
class _Written:
    shapes: dict[str, dict[str, dict[str, list[int | str]]]]
    int8: list[str] = field(default_factory=list)
    float32: list[str] = field(default_factory=list)


def _write(
    animator: Animator,
    format: str,
    precision: str,
    groups: Sequence[Tensor],
    folder: Path,
    log: Callable[[str], None],
) -> _Written:
    graphs = graphs_of(animator.config)
    traced = {}
    for graph in graphs:
        log(f"tracing {graph.name}")
        traced[graph.name] = trace(animator, graph)
    shapes = {name: each.shapes for name, each in traced.items()}
    if format == "torch":
        save_programs({name: each.program for name, each in traced.items()}, folder)
        return _Written(shapes)
    models = {}
    int8: list[str] = []
    float32: list[str] = []
    for graph in graphs:
        log(f"converting {graph.name}")
        models[graph.name] = to_onnx(traced[graph.name].program, graph)
    if precision == "int8":
        models, int8, float32 = quantise_models(animator, models, groups, log)
    save_models(models, format, precision == "fp16", folder)
    return _Written(shapes, int8, float32)


def _too_far(differences: Differences) -> str:
    return (
        f"not exported: pictures differ from PyTorch's by {differences.largest:.2g} at most, {differences.mean:.2g} in "
        f"the mean, PSNR {differences.psnr} dB; the tolerance is {differences.tolerance}"
    )
