"""Ours -> a file that FOMM's tool or the Motion Transformer authors' reads."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from mtanimate.checkpoints.configuration import write_configuration
from mtanimate.checkpoints.file import KEPT, read_checkpoint, read_tensors
from mtanimate.checkpoints.layouts import PARTS, computed, to_layout
from mtanimate.checkpoints.registry import resolve
from mtanimate.config import HeatmapEstimatorConfig, HRNetConfig, ModelConfig
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.files import replacing, taken
from mtanimate.places import check_not_input, claim

_STEM = ("stem_width", "layer1_width", "layer1_blocks")  # which the release's configuration has no words for


@dataclass(frozen=True)
class Exported:
    """The file of the weights, and that of the configuration, without which the other tool cannot read them."""

    file: Path
    configuration: Path
    layout: str


def export_checkpoint(checkpoint: str, layout: str, out: str | Path | None = None, overwrite: bool = False) -> Exported:
    """Write a checkpoint (a name or a file) in the layout `fomm` or `release`, and its configuration beside it.

    out: `NAME.pth.tar` in the current folder, if it is not given; the configuration is `NAME.yaml`.
    Weights that were imported come back to the bit. Raises InputError where the layout cannot hold the network or a
    file is there already, MTAnimateError where it cannot be written or another run writes it.
    """
    file = resolve(checkpoint)
    out = Path(out).expanduser() if out is not None else Path(f"{file.stem}.pth.tar")
    settings = out.with_name(out.name.removesuffix(".tar").removesuffix(".pth") + ".yaml")
    with claim(out, settings):
        for path in (out, settings):
            check_not_input("--out", path, [file])
            if taken(path) and not overwrite:
                raise InputError(f"--out {path} exists already: choose another, or --overwrite")
        _export(checkpoint, file, layout, out, settings, overwrite)
    return Exported(out, settings, layout)


def _export(checkpoint: str, file: Path, layout: str, out: Path, settings: Path, overwrite: bool) -> None:
    read = read_checkpoint(file)
    model = read.config.model
    obstacle = unfit(model, layout)
    if obstacle:
        raise InputError(f"'{checkpoint}' does not go into the layout {layout}: {obstacle}")
    kept = {name.removeprefix(KEPT): t for name, t in read_tensors(file).items() if name.startswith(KEPT)}
    theirs = to_layout(read.animator.state_dict(), layout) | computed(model, layout) | kept
    epoch = read.about.get("epoch", "0")
    alone = False  # whether the settings would stay without weights
    try:
        with replacing(out, overwrite) as weights:
            # The format that PyTorch of 2019, which FOMM asks for, can read; every later one does, too.
            torch.save(_parts(theirs) | {"epoch": int(epoch)}, weights, _use_new_zipfile_serialization=False)
            with replacing(settings, overwrite) as partial:
                partial.write_text(write_configuration(model, layout), "utf-8")
            alone = not overwrite
        alone = False
    except (OSError, RuntimeError) as error:
        raise MTAnimateError(f"cannot write '{out}': {getattr(error, 'strerror', None) or error}") from error
    finally:
        if alone:
            settings.unlink()


def unfit(model: ModelConfig, layout: str) -> str:
    """Why the layout cannot hold the network, or empty."""
    reason = _unfit_parts(model, layout)
    if not reason and model.dense_motion.exact_sampling:
        return "it samples exactly (model.dense_motion.exact_sampling), other tools half a pixel off"
    return reason


def _unfit_parts(model: ModelConfig, layout: str) -> str:
    estimator = model.estimator
    if isinstance(estimator, HeatmapEstimatorConfig):
        if layout != "fomm" or estimator.name == "mraa":
            return f"its estimator is {estimator.name}"
        if model.generator.skips:
            return "its generator has skips, FOMM's has none (train with --preset fomm)"
        return "it has a background predictor, FOMM has none" if model.background is not None else ""
    if layout != "release":
        return "its estimator is a Motion Transformer"
    if estimator.variant != "release":
        return "it is the variant `paper`; the release's tool knows its own alone (train with --preset vox-release)"
    if (estimator.attention, estimator.position, estimator.scale_factor) != ("unified", "every_layer", 1.0):
        return "the release has unified attention, the position before every layer, and pictures of full size alone"
    if not estimator.backbone.widths:
        return "its backbone is a stem alone, the release's is an HRNet"
    stem = replace(HRNetConfig(), **{name: getattr(estimator.backbone, name) for name in _STEM})
    return "" if stem == HRNetConfig() else "its backbone's stem and first layer have not the release's fixed widths"


def _parts(theirs: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """`part.name` -> nested."""
    parts: dict[str, dict[str, Tensor]] = {}
    for part in PARTS:
        inside = {name.removeprefix(f"{part}."): t for name, t in theirs.items() if name.startswith(f"{part}.")}
        if inside:
            parts[part] = {name: tensor.clone() for name, tensor in inside.items()}
    return parts
