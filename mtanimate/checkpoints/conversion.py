"""Import and export of other tools' checkpoints.

An import is recognised by its names, measured by its shapes, run once, and written whole.
"""

import re
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtanimate.checkpoints.configuration import read_configuration, write_configuration
from mtanimate.checkpoints.file import KEPT, mismatches, not_finite, read_checkpoint, read_tensors, write_checkpoint
from mtanimate.checkpoints.fitting import unfit
from mtanimate.checkpoints.layouts import PARTS, POSITION, SIGNATURES, computed, from_layout, infer, to_layout
from mtanimate.checkpoints.pickles import read_pickle
from mtanimate.checkpoints.registry import Entry, check_name, entries, named_file, resolve
from mtanimate.config import (
    Config,
    ModelConfig,
    SplineEstimatorConfig,
    differences,
    load_preset,
    within_limits,
)
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.files import replacing, sha256, taken
from mtanimate.geometry import coordinate_grid
from mtanimate.models.animator import Animator, outline_network
from mtanimate.outputs import check_not_input, claim

# What shapes do not reveal, and whose wrong values would load silently and give wrong pictures.
UNSEEN = {
    "fomm": "the temperature and padding of its keypoint detector, the variance of its keypoints, its resolution",
    "release": "the number of attention heads, whether its generator has skips",
    "tpsmm": "its resolution, the variance of its keypoints",
}
# Top-level entries of checkpoints that look alike.
OTHERS = {"inpainting_network": "TPSMM's, without its keypoint detector", "region_predictor": "MRAA's"}


@dataclass(frozen=True)
class ImportedCheckpoint:
    """The result of an import.

    Attributes:
        name: under which it can be used from now on.
        file: that was written.
        layout: `fomm`, `release` or `tpsmm`.
        config: of the network.
        parameters: their number.
        left_out: entries that only training needs.
        remarks: what a user should know.
        about: its origin.
    """

    name: str
    file: Path
    layout: str
    config: ModelConfig
    parameters: int
    left_out: list[str]
    remarks: list[str]
    about: dict[str, Any]


def import_checkpoint(
    path: Path, name: str | None = None, config: str | None = None, overwrite: bool = False
) -> ImportedCheckpoint:
    """Imports the network in a torch file. Nothing in the file is run; the network is, once.

    Args:
        path: of the file.
        name: of the new checkpoint; None: the published one's, where the file has a published name of its layout, else
            the file's own name.
        config: for what shapes do not reveal: the configuration file of its training, or the name of the published
            checkpoint that it is. Not needed where `name` is a published one's.
        overwrite: whether a checkpoint of this name may be replaced.

    Raises:
        InputError: the file is no checkpoint, damaged, of an unknown network or not finite; the name is taken; `config`
            is missing or describes another network.
        MTAnimateError: it cannot be written, or another run is writing it.
    """
    path = path.expanduser()
    if name is not None:
        check_name(name)
    content = read_pickle(path)
    layout, weights = _recognised(path, content)
    name = name or _name_for(path, layout)
    with claim(named_file(name)):
        _check_free(path, name, overwrite)
        return _import(path, name, config, overwrite, content, layout, weights)


@dataclass(frozen=True)
class ExportedCheckpoint:
    """The result of an export to another tool's layout.

    Attributes:
        file: of the weights.
        configuration: the YAML file without which the other tool cannot read the weights.
        layout: `fomm`, `release` or `tpsmm`.
    """

    file: Path
    configuration: Path
    layout: str


def export_checkpoint(
    checkpoint: str, layout: str, out: str | Path | None = None, overwrite: bool = False
) -> ExportedCheckpoint:
    """Writes a checkpoint in another tool's layout, and its configuration beside it.

    Weights that were imported come back bit by bit.

    Args:
        checkpoint: a name or a file.
        layout: `fomm`, `release` or `tpsmm`.
        out: of the weights; None: `NAME.pth.tar` in the current folder. The configuration is `NAME.yaml`.
        overwrite: whether existing files may be replaced.

    Raises:
        InputError: the layout cannot hold the network, or a file exists.
        MTAnimateError: it cannot be written, or another run is writing it.
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
    return ExportedCheckpoint(out, settings, layout)


def _import(
    path: Path,
    name: str,
    config: str | None,
    overwrite: bool,
    content: dict[str, Any],
    layout: str,
    weights: dict[str, Tensor],
) -> ImportedCheckpoint:
    left_out = [key for key in content if key not in (*PARTS, "epoch")]
    for key in left_out:
        del content[key]  # an optimiser's moments are twice the weights
    published = {entry.name: entry for entry in entries().values() if entry.layout == layout}
    by_file = _published_as(path, layout)
    entry = published.get(name, by_file) if config is None else published.get(config)
    if name in entries() and entry != entries()[name]:
        raise InputError(
            f"'{name}' is a published checkpoint's name, and this is another, or said to be: choose another with --name"
            + ", or leave out --config" * (config is not None)
        )
    model = _configured(path, config, layout, weights, entry, list(published))
    state = _translated(path, weights, layout, model)
    animator = outline_network(model)
    animator.load_state_dict(state, assign=True)
    _try(path, animator.eval().requires_grad_(False))
    about = _about(path, layout, content, left_out, entry)
    target = named_file(name)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MTAnimateError(f"cannot make the folder '{target.parent}': {error.strerror}") from error
    kept, remarks = _kept(weights, layout, model)
    write_checkpoint(target, animator, Config(model=model), about, kept=kept, overwrite=overwrite)
    parameters = sum(parameter.numel() for parameter in animator.parameters())
    return ImportedCheckpoint(name, target, layout, model, parameters, left_out, remarks, about)


def _published_as(path: Path, layout: str) -> Entry | None:
    """The published checkpoint of this layout whose file has this name. Different tools' files have the same names."""
    return next((one for one in entries().values() if (one.layout, one.published) == (layout, path.name)), None)


def _name_for(path: Path, layout: str) -> str:
    """The published name, or the file's without its extensions. Raises InputError where that can be no name."""
    entry = _published_as(path, layout)
    if entry is not None:
        return entry.name
    stem = re.sub(r"(\.(pth|pt|tar|ckpt|bin))+$", "", path.name, flags=re.IGNORECASE)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.")
    if not name:
        raise InputError(f"'{path.name}' makes no name for a checkpoint: give one with --name")
    return check_name(name)


def _check_free(path: Path, name: str, overwrite: bool) -> None:
    known = entries().get(name)
    if known is not None and known.file is not None:
        raise InputError(f"'{name}' is the name of a checkpoint that ships: choose another with --name")
    if taken(named_file(name)) and not overwrite:
        raise InputError(
            f"there is a checkpoint '{name}' already ({named_file(name)}): choose another name with --name, or "
            "replace it with --overwrite"
        )
    check_not_input("--name", named_file(name), [path])


def _recognised(path: Path, content: dict[str, Any]) -> tuple[str, dict[str, Tensor]]:
    """The layout, and the weights by `part.name`."""
    weights = {
        f"{part}.{_plain(name)}": tensor
        for part in PARTS
        if isinstance(content.get(part), dict)
        for name, tensor in content[part].items()
        if isinstance(tensor, Tensor)
    }
    for layout, signature in SIGNATURES.items():
        if all(entry in weights for entry in signature):
            return layout, weights
    seen = ", ".join(map(str, list(content)[:12])) + ", ..." * (len(content) > 12)
    whose = next((f" (it looks like {tool})" for key, tool in OTHERS.items() if key in content), "")
    raise InputError(
        f"'{path}' is of an unknown network{whose}: it has {seen or 'nothing'}; known are FOMM's checkpoints and those "
        "of the Motion Transformer's authors, which have 'generator' and 'kp_detector', and TPSMM's, which have "
        "'inpainting_network', 'dense_motion_network' and 'kp_detector'"
    )


def _plain(name: str) -> str:
    """A name without the prefixes of DataParallel and torch.compile."""
    return re.sub(r"^(module\.)+", "", name.replace("_orig_mod.", ""))


def _configured(
    path: Path, config: str | None, layout: str, weights: dict[str, Tensor], entry: Entry | None, published: list[str]
) -> ModelConfig:
    """The network's configuration, from its shapes, and from a file or the published checkpoint that it is."""
    names = "|".join(published)
    if entry is not None:
        told = load_preset(entry.configuration).model
    elif config is None:
        raise InputError(
            f"'{path}' does not show {UNSEEN[layout]}: give the configuration file that it was trained with, --config "
            f"FILE.yaml, or the published checkpoint that it is, --config {names}"
        )
    elif not Path(config).expanduser().is_file():
        raise InputError(f"--config {config}: no such file, nor a published checkpoint of this layout ({names})")
    else:
        told = read_configuration(Path(config).expanduser(), layout)
    model = within_limits(infer(weights, layout, told), f"'{path}'")
    differing = _differing(told, model, of_the_tool=entry is not None)
    if differing:
        said = f"--config {config}" if entry is None else f"the published '{entry.name}'"
        raise InputError(f"'{path}' is another network than {said}: {differing}; give its own with --config")
    return model


def _differing(told: ModelConfig, found: ModelConfig, of_the_tool: bool) -> str:
    """Settings that the shapes contradict.

    of_the_tool: one configuration stands for all checkpoints that a tool published, whose kinds of matrices differ. A
    background predictor may have been left out of the file, and so may TPSMM's network for shape and pose; where that
    is there, its shapes say what it is.
    """
    told = replace(told, background=found.background)
    if isinstance(told.estimator, SplineEstimatorConfig) and isinstance(found.estimator, SplineEstimatorConfig):
        widths = {name: getattr(found.estimator, name) for name in ("width", "identity_width", "pose_width")}
        told = replace(told, estimator=replace(told.estimator, **widths))
    if of_the_tool and told.estimator.name in ("fomm", "monkey-net"):
        told = replace(told, estimator=found.estimator)
    changes = differences(Config(told), Config(found))
    return "; ".join(f"{key} is {shown}, not {said}" for key, (said, shown) in changes.items())


def _translated(path: Path, weights: dict[str, Tensor], layout: str, model: ModelConfig) -> dict[str, Tensor]:
    """Our state dict, in float32."""
    names = outline_network(model).state_dict()
    wanted = to_layout(names, layout) | {key: t for key, t in computed(model, layout).items() if key in weights}
    found = dict(weights)
    for key in wanted:
        if key.endswith(".num_batches_tracked") and key not in found:  # files of PyTorch before 0.4.1
            found[key] = torch.zeros((), dtype=torch.int64)
    found.pop(POSITION, None)  # its shape has been looked at: the picture that it is for need not be square
    wanted.pop(POSITION, None)
    mismatched = mismatches(wanted, found, most=len(wanted) + len(found))
    if mismatched:
        raise InputError(f"'{path}' does not fit the network that its shapes show: {mismatched}")
    unfit = not_finite(weights.items())
    if unfit:
        raise InputError(f"'{path}' holds weights that are not finite: {', '.join(unfit)}")
    full = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in found.items()}
    return from_layout(full, names, layout)


@torch.inference_mode()
def _try(path: Path, animator: Animator) -> None:
    """Animates a picture by its mirror image. Raises InputError where the result is not finite."""
    side = animator.config.resolution
    x, y = coordinate_grid(side, side, like=torch.zeros(())).unbind(dim=-1)
    picture = torch.stack([torch.sin(5 * x), torch.cos(4 * y), torch.sin(3 * (x + y))])[None] / 2 + 0.5
    source = animator.encode_source(picture)
    driven = animator.drive(source, animator.estimate_motion(picture.flip(3)))
    if not all(torch.isfinite(tensor).all() for tensor in (source.motion.keypoints, source.motion.affine, driven)):
        raise InputError(f"'{path}': the network gives values that are not finite; nothing was imported")


def _about(
    path: Path, layout: str, content: dict[str, Any], left_out: list[str], entry: Entry | None
) -> dict[str, Any]:
    about = {
        "origin": path.name,
        "origin_sha256": sha256(path),
        "layout": layout,
        "left_out": ", ".join(left_out),
        "imported": date.today().isoformat(),
        "licence": entry.licence if entry is not None else "unknown: ask whoever made it",
    }
    if entry is not None:
        about |= {"animates": entry.animates, "citation": entry.citation, "configuration": entry.configuration}
    if isinstance(content.get("epoch"), int):
        about["epoch"] = content["epoch"]
    return about


def _kept(weights: dict[str, Tensor], layout: str, model: ModelConfig) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors that the layout stores and we compute, where the two differ in any bit; and remarks on them."""
    kept, remarks = {}, []
    for key, ours in computed(model, layout).items():
        theirs = weights.get(key)
        if theirs is None or torch.equal(theirs, ours):
            continue
        kept[key] = theirs
        if theirs.shape != ours.shape:
            remarks.append(
                f"trained on pictures that are not square; here they are {model.resolution} pixels both ways"
            )
        elif not torch.allclose(theirs.float(), ours, atol=1e-5):
            remarks.append(f"{key} is not what this network computes in its place: its pictures may be wrong here")
    return kept, remarks


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


def _parts(theirs: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Nests `part.name`."""
    parts: dict[str, dict[str, Tensor]] = {}
    for part in PARTS:
        inside = {name.removeprefix(f"{part}."): t for name, t in theirs.items() if name.startswith(f"{part}.")}
        if inside:
            parts[part] = {name: tensor.clone() for name, tensor in inside.items()}
    return parts
