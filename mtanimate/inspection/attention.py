"""The command `mtanimate attention`: where motion tokens look, as a figure, a video or raw numbers."""

import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mtanimate.checkpoints.file import read_checkpoint, read_config
from mtanimate.checkpoints.registry import file_given, resolve
from mtanimate.config import ModelConfig, MotionTransformerConfig
from mtanimate.devices import choose_device
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.faces.detection import resize_frames
from mtanimate.files import replacing
from mtanimate.inspection.attention_maps import (
    TokenTable,
    attention_rollout,
    estimate_with_attention,
    image_maps,
    matrix_pictures,
    matrix_sheet,
    part_matrices,
    part_rows,
)
from mtanimate.inspection.sheets import check_figure, is_video, write_figure, write_video
from mtanimate.inspection.subject import Subject, as_image
from mtanimate.models.animator import Animator
from mtanimate.models.motion_transformer import MotionTransformer
from mtanimate.outputs import check_new_file, check_not_input, claim

Heads = Literal["mean", "max", "each"]
Progress = Callable[..., None]
Log = Callable[[str], None]
TITLE = "Attention of motion tokens, drawn by mtanimate"


@dataclass
class AttentionResult:
    """What was written, as `--json` prints it.

    Attributes:
        layers: numbers as in the figure, from 1.
        tokens: numbers as in the figure, from 1.
        frame: its number in the driving video, for a single figure.
    """

    out: str
    raw: str | None
    layers: list[int]
    tokens: list[int]
    heads: str
    frames: int
    frame: int | None
    width: int
    height: int
    seconds: float
    device: str
    checkpoint: str
    warnings: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def show_attention(
    subject: Subject,
    *,
    layer: str = "all",
    tokens: str = "all",
    heads: Heads = "mean",
    rollout: bool = False,
    motion: bool = False,
    out: str | Path | None = None,
    raw: str | Path | None = None,
    checkpoint: str = "default",
    device: str = "auto",
    overwrite: bool = False,
    progress: Progress = lambda done, total, note="": None,
    log: Log = lambda line: None,
) -> AttentionResult:
    """Draws where motion tokens look, as the paper's Figure 3: for the middle frame of a driving video, or for all
    frames.

    Everything that can be checked is checked before anything is computed.

    Args:
        subject: the pictures.
        layer: a number from 1, or `all`.
        tokens: numbers from 1 as in the figure, `1,4,8`, or `all`.
        heads: their mean, their maximum, or each by itself.
        rollout: attention rollout up to these layers (Abnar and Zuidema).
        motion: draws the attention among motion tokens, as matrices.
        out: .png, .svg, .pdf, or a video of all driving frames; None: a PNG here, named by what it shows.
        raw: an .npz for the probabilities.
        checkpoint: a name or a file.
        device: see `choose_device`.
        overwrite: whether existing files may be replaced.
        progress: called with frames done and in all.
        log: gets each message.

    Raises:
        InputError: a wrong file or option.
        MTAnimateError: writing failed, or another run is writing the same files.
    """
    out = Path(out or f"attention{'-rollout' * rollout}{'-motion' * motion}-layer-{layer}.png").expanduser()
    raw_file = Path(raw).expanduser() if raw else None
    with claim(out, raw_file):
        check_figure(out, overwrite, subject, checkpoint)
        if raw_file:
            check_raw(raw_file, overwrite, [*subject.files, file_given(checkpoint)])
        file, target = resolve(checkpoint), choose_device(device, log)
        config = read_config(file).model
        view = _view(str(layer), heads, rollout, config, checkpoint)
        chosen = _tokens(tokens, config.num_keypoints)
        warnings: list[str] = []

        def warn(line: str) -> None:
            warnings.append(line)
            log(f"warning: {line}")

        inputs = subject.open(config.resolution, warn)
        started = time.monotonic()
        painter = AttentionPainter(read_checkpoint(file, target).animator, inputs.source, view, chosen, matrices=motion)
        middle = inputs.length // 2
        numbers = range(inputs.length) if is_video(out) else range(middle, middle + 1)
        with open_raw(raw_file, painter.raw_name, len(numbers), painter.about(numbers), overwrite) as painter.record:
            if is_video(out):
                write_video(out, painter.sheet, inputs, painter.paint, TITLE, subject.credit, overwrite, progress)
            else:
                (pictures,) = painter.paint(inputs.frame(middle))
                write_figure(out, painter.sheet, pictures, TITLE, subject.credit, overwrite)
        return AttentionResult(
            out=str(out),
            raw=str(raw_file) if raw_file else None,
            layers=[index + 1 for index in view.layers],
            tokens=[token + 1 for token in chosen],
            heads=heads,
            frames=len(numbers),
            frame=None if is_video(out) or not subject.driving else middle,
            width=painter.sheet.width,
            height=painter.sheet.height,
            seconds=round(time.monotonic() - started, 3),
            device=str(target),
            checkpoint=checkpoint,
            warnings=warnings,
        )


@dataclass(frozen=True)
class AttentionView:
    """Which part of the attention is shown.

    Attributes:
        layers: from 0.
        heads: how they are combined.
        rollout: shows attention rollout up to these layers.
    """

    layers: list[int]
    heads: Heads = "mean"
    rollout: bool = False

    def titles(self, head_count: int) -> list[str]:
        """Titles of the matrices that `merged` gives."""
        if self.rollout:
            return [f"rollout to\nlayer {layer + 1}" for layer in self.layers]
        if self.heads == "each":
            return [f"layer {layer + 1}\nhead {head + 1}" for layer in self.layers for head in range(head_count)]
        return [f"layer {layer + 1}" for layer in self.layers]

    def raw(self, probabilities: Tensor) -> Tensor:
        """The chosen layers of (B, L, heads, Q, S): (B, l, heads, Q, S); of a rollout (B, l, S, S)."""
        return (attention_rollout(probabilities) if self.rollout else probabilities)[:, self.layers]

    def merged(self, raw: Tensor) -> Tensor:
        """Combines the heads of `raw`: a matrix for each title, (B, C, Q, S)."""
        if self.rollout:
            return raw
        if self.heads == "each":
            return raw.flatten(1, 2)
        return raw.mean(dim=2) if self.heads == "mean" else raw.amax(dim=2)


class AttentionPainter:
    """Draws the attention of a network to frames that drive a source.

    Args:
        animator: with a Motion Transformer.
        source: uint8 (1, 3, R, R).
        view: layers and heads.
        tokens: from 0.
        matrices: draws attention among motion tokens, not to the picture.

    Attributes:
        record: is called with the raw probabilities of each batch.
    """

    def __init__(
        self, animator: Animator, source: Tensor, view: AttentionView, tokens: list[int], *, matrices: bool
    ) -> None:
        assert isinstance(animator.motion_estimator, MotionTransformer)
        self.animator, self.estimator = animator, animator.motion_estimator
        self.view, self.tokens, self.matrices = view, tokens, matrices
        self.parts, self.motion_tokens = animator.config.num_keypoints, len(self.estimator.motion_tokens)
        self.record: Callable[[Tensor], None] = lambda raw: None
        self.raw_name = "rollout" if view.rollout else "attention"
        titles = view.titles(self.estimator.config.heads)
        self.table = TokenTable(tokens, self.parts, titles)
        self.sheet = matrix_sheet(tokens, self.parts, titles) if matrices else self.table.sheet()
        picture = as_image(source, animator.device)
        with torch.inference_mode():
            self.reduced = animator.dense_motion.reduce(picture)
            self.source_motion = animator.estimate_motion(picture)

    def about(self, numbers: range) -> dict[str, np.ndarray]:
        """The arrays beside the probabilities in the raw file. numbers: of the frames."""
        return {
            "layers": np.array(self.view.layers) + 1,
            "parts": np.array(self.parts),
            "motion_tokens": np.array(self.motion_tokens),
            "frames": np.array(numbers),
        }

    @torch.inference_mode()
    def paint(self, frames: Tensor) -> list[list[np.ndarray]]:
        """Draws the sheet's pictures for each of the frames, uint8 (B, 3, R, R)."""
        motion, probabilities = estimate_with_attention(self.estimator, as_image(frames, self.animator.device))
        raw = self.view.raw(probabilities)
        self.record(raw)
        rows = part_rows(self.view.merged(raw), self.parts, self.motion_tokens)
        if self.matrices:
            matrices = part_matrices(rows, self.parts, self.motion_tokens)
            return [matrix_pictures(each, self.tokens) for each in matrices]
        masks = self.animator.dense_motion(self.reduced, self.source_motion, motion).masks[:, 1:]
        maps = image_maps(rows, self.motion_tokens)
        small = resize_frames(frames.permute(0, 2, 3, 1).numpy(), self.table.side).permute(0, 2, 3, 1).numpy()
        return [self.table.pictures(*each) for each in zip(small, motion.keypoints, masks, maps, strict=True)]


def check_raw(path: Path, overwrite: bool, inputs: Iterable[Path | None]) -> None:
    """Checks whether an NPZ file can be written.

    Args:
        path: of the file.
        overwrite: whether an existing file may be replaced.
        inputs: files that are never overwritten.

    Raises:
        InputError: it cannot be written.
    """
    if path.suffix.lower() != ".npz":
        raise InputError(f"--raw {path}: the name of NumPy's archives ends in .npz")
    check_not_input("--raw", path, inputs)
    check_new_file(path, overwrite)


@contextmanager
def open_raw(
    path: Path | None, name: str, count: int, about: dict[str, np.ndarray], overwrite: bool
) -> Iterator[Callable[[Tensor], None]]:
    """Writes an NPZ file batch by batch, whole or not at all, as `numpy.savez` does without a pickle.

    Args:
        path: of the file; None: nothing is written.
        name: of the array.
        count: its length in all.
        about: arrays beside it.
        overwrite: whether an existing file may be replaced.

    Yields:
        A function that takes the next batch (B, ...) and stores it as float32.

    Raises:
        CameMeanwhile: the file exists by now, unless `overwrite`.
        MTAnimateError: writing failed.
    """
    if path is None:
        yield lambda batch: None
        return
    try:
        with replacing(path, overwrite) as partial, zipfile.ZipFile(partial, "w") as archive:
            for key, array in about.items():
                with archive.open(f"{key}.npy", "w") as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                begun = False

                def write(batch: Tensor) -> None:
                    nonlocal begun
                    array = batch.cpu().numpy().astype("<f4")
                    if not begun:
                        header = {"descr": "<f4", "fortran_order": False, "shape": (count, *array.shape[1:])}
                        np.lib.format.write_array_header_1_0(member, header)
                        begun = True
                    member.write(array.tobytes())

                yield write
    except OSError as error:
        raise MTAnimateError(f"{path} could not be written ({error.strerror}): is the disk full?") from error


def _view(layer: str, heads: Heads, rollout: bool, config: ModelConfig, checkpoint: str) -> AttentionView:
    """Raises InputError for a network without attention, a layer that it does not have, or an undefined rollout."""
    estimator = config.estimator
    if not isinstance(estimator, MotionTransformerConfig):
        raise InputError(
            f"the checkpoint '{checkpoint}' has the estimator {estimator.name}, which has no attention; "
            "'mtanimate inspect' shows its keypoints and masks"
        )
    if layer != "all" and (not layer.isdecimal() or not 1 <= int(layer) <= estimator.layers):
        count = estimator.layers
        raise InputError(f"--layer {layer}: this network has {count} layers: give 1 to {count}, or all")
    if rollout and heads != "mean":
        raise InputError(f"--rollout averages the heads: leave out --heads {heads}")
    if rollout and estimator.attention == "separate":
        raise InputError(
            "--rollout is defined where all tokens attend to all (Eq. 7-8), and this network has separate attentions "
            "to motion and image tokens (Eq. 5-6): leave it out"
        )
    layers = list(range(estimator.layers)) if layer == "all" else [int(layer) - 1]
    return AttentionView(layers, heads, rollout)


def _tokens(text: str, count: int) -> list[int]:
    """Token numbers from 0, each once. Raises InputError for others."""
    if text == "all":
        return list(range(count))
    numbers = [part.strip() for part in text.split(",")]
    if not all(number.isdecimal() and 1 <= int(number) <= count for number in numbers):
        raise InputError(f"--tokens {text}: the tokens are 1 to {count}: give all, or numbers with commas between")
    return list(dict.fromkeys(int(number) - 1 for number in numbers))
