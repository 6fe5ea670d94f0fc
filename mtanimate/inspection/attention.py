"""The use case `mtanimate attention`: where motion tokens look, as a figure, a video or raw numbers."""

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
    """What was made, as `--json` prints it. layers, tokens: by the numbers in the figure. frame: of the driving video,
    where one was chosen."""

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
    """Where motion tokens look, as the paper's Figure 3 shows it: of a driving video its middle frame, or all frames.

    layer: a number from 1, or `all`. tokens: numbers from 1 as the figure has them, `1,4,8`, or `all`.
    heads: their mean, their largest, or each by itself. rollout: through all layers up to these (Abnar and Zuidema).
    motion: what motion tokens give each other, as matrices.
    out: .png, .svg, .pdf, or a video, with all driving frames; by default a PNG here, named by what it shows.
    raw: an .npz for the probabilities themselves.

    Everything that can be checked is checked before anything is computed. Raises InputError for a wrong file or
    option, MTAnimateError where writing fails or another run writes the same files.
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
    """What of the attention is shown. layers: from 0. rollout: up to these layers, not in them."""

    layers: list[int]
    heads: Heads = "mean"
    rollout: bool = False

    def titles(self, head_count: int) -> list[str]:
        """Of what `chosen` gives."""
        if self.rollout:
            return [f"rollout to\nlayer {layer + 1}" for layer in self.layers]
        if self.heads == "each":
            return [f"layer {layer + 1}\nhead {head + 1}" for layer in self.layers for head in range(head_count)]
        return [f"layer {layer + 1}" for layer in self.layers]

    def raw(self, probabilities: Tensor) -> Tensor:
        """Of (B, L, heads, Q, S), the chosen layers: (B, l, heads, Q, S), of a rollout (B, l, S, S)."""
        return (attention_rollout(probabilities) if self.rollout else probabilities)[:, self.layers]

    def merged(self, raw: Tensor) -> Tensor:
        """Of `raw`, a matrix a title: (B, C, Q, S)."""
        if self.rollout:
            return raw
        if self.heads == "each":
            return raw.flatten(1, 2)
        return raw.mean(dim=2) if self.heads == "mean" else raw.amax(dim=2)


class AttentionPainter:
    """Draws the attention of a network, from frames that drive a source. record: gets the probabilities, as they are.

    tokens: from 0. matrices: what motion tokens give each other, in place of what they give the picture.
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
        """What stands in the raw file beside the probabilities of the frames of these numbers."""
        return {
            "layers": np.array(self.view.layers) + 1,
            "parts": np.array(self.parts),
            "motion_tokens": np.array(self.motion_tokens),
            "frames": np.array(numbers),
        }

    @torch.inference_mode()
    def paint(self, frames: Tensor) -> list[list[np.ndarray]]:
        """uint8 (B, 3, R, R) -> for each frame the sheet's pictures."""
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
    """Raises InputError unless an NPZ file can be written there, in the place of none of the inputs."""
    if path.suffix.lower() != ".npz":
        raise InputError(f"--raw {path}: the name of NumPy's archives ends in .npz")
    check_not_input("--raw", path, inputs)
    check_new_file(path, overwrite)


@contextmanager
def open_raw(
    path: Path | None, name: str, count: int, about: dict[str, np.ndarray], overwrite: bool
) -> Iterator[Callable[[Tensor], None]]:
    """Yields write(batch): float32 (B, ...), `count` of them in all, become the array `name`; about: arrays beside it.
    Without a path nothing is written.

    What `numpy.savez` writes, without a pickle, whole or not at all. Raises CameMeanwhile for a file that came to be
    there unless `overwrite`, MTAnimateError where writing fails.
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
    """Raises InputError for a network without attention, a layer that it has not, and what a rollout cannot be."""
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
    """From 0, each once. Raises InputError for numbers that are none of a token."""
    if text == "all":
        return list(range(count))
    numbers = [part.strip() for part in text.split(",")]
    if not all(number.isdecimal() and 1 <= int(number) <= count for number in numbers):
        raise InputError(f"--tokens {text}: the tokens are 1 to {count}: give all, or numbers with commas between")
    return list(dict.fromkeys(int(number) - 1 for number in numbers))
