"""Figures: pictures and labels in a layout, written as PNG, SVG, PDF or video."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from mtanimate.checkpoints.registry import file_given
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.files import replacing
from mtanimate.inspection.subject import FigureInputs, Subject
from mtanimate.outputs import check_new_file, check_not_input
from mtanimate.video import VideoWriter, check_output, write_image
from mtanimate.video.encoding import CONTAINERS

TEXT = 14  # pixels
_DPI = 72  # so that a point is a pixel
_GAP, _TITLES = 6, 30
PICTURES = (".png", ".svg", ".pdf")
# Draws frames, uint8 (B, 3, R, R): for each the pictures of a sheet.
Paint = Callable[[Tensor], list[list[np.ndarray]]]


@dataclass(frozen=True)
class Label:
    """Text about the point (x, y), right and down in pixels. badge: RGB in [0, 1] of a box behind it."""

    x: float
    y: float
    text: str
    badge: tuple[float, ...] | None = None
    align: str = "center"  # or left, right
    turned: bool = False


@dataclass(frozen=True)
class Sheet:
    """width, height: of the whole. boxes: left and top of each picture. labels: what is written.
    fixed: pictures that are always the same, with their left and top.

    For print there is `vector`. Of many pictures in one layout, as a video has them, `blank` is drawn once, and then
    `filled` again and again.
    """

    width: int
    height: int
    boxes: list[tuple[int, int]]
    labels: list[Label]
    fixed: list[tuple[int, int, np.ndarray]] = field(default_factory=list)

    def blank(self) -> np.ndarray:
        """Everything but the pictures: uint8 RGB (height, width, 3)."""
        canvas = FigureCanvasAgg(self._figure())
        canvas.draw()
        sheet = np.asarray(canvas.buffer_rgba())[..., :3].copy()
        for left, top, picture in self.fixed:
            _paste(sheet, left, top, picture)
        return sheet

    def filled(self, blank: np.ndarray, pictures: list[np.ndarray]) -> np.ndarray:
        """A copy of `blank` with pictures, uint8 RGB (h, w, 3), in their boxes, to the pixel."""
        sheet = blank.copy()
        for (left, top), picture in zip(self.boxes, pictures, strict=True):
            _paste(sheet, left, top, picture)
        return sheet

    def vector(self, file: Path, pictures: list[np.ndarray], said: dict[str, str]) -> None:
        """Writes SVG or PDF, by the file's name: labels are outlines, pictures stay pictures of their pixels.

        said: metadata by the keywords that this format has (both have `Title`). Raises OSError where it cannot.
        """
        figure = self._figure()
        placed = [(*box, picture) for box, picture in zip(self.boxes, pictures, strict=True)]
        for left, top, picture in [*placed, *self.fixed]:
            height, width = picture.shape[:2]
            place = (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
            axes = figure.add_axes(place)
            axes.imshow(picture, interpolation="none", aspect="auto")
            axes.set_axis_off()
        figure.savefig(file, metadata=said)

    def _figure(self) -> Figure:
        """What is written."""
        figure = Figure(figsize=(self.width / _DPI, self.height / _DPI), dpi=_DPI, facecolor="white")
        for label in self.labels:
            box = None
            if label.badge is not None:
                box = {"boxstyle": "round,pad=0.2", "facecolor": label.badge, "edgecolor": "none"}
            figure.text(
                label.x / self.width,
                1 - label.y / self.height,
                label.text,
                horizontalalignment=label.align,
                verticalalignment="center",
                fontsize=TEXT,
                color=_on(label.badge),
                rotation=90 if label.turned else 0,
                bbox=box,
            )
        return figure


def is_video(out: Path) -> bool:
    return out.suffix.lower() in CONTAINERS and bool(out.suffix)


def check_figure(out: Path, overwrite: bool, subject: Subject, checkpoint: str) -> None:
    """Says before any work whether `out` can be written.

    Raises InputError for a format that is not written, a video of one picture, an input, and as `check_new_file`.
    """
    check_not_input("--out", out, [*subject.files, file_given(checkpoint)])
    if is_video(out):
        if not subject.is_driven:
            raise InputError(f"{out} would be a video of one picture: give a video as --driving, or end it in .png")
        check_output(out, overwrite)
        return
    if out.suffix.lower() not in PICTURES:
        raise InputError(f"{out}: a figure ends in one of {', '.join(PICTURES)}; with a driving video also in .mp4")
    check_new_file(out, overwrite)


def write_figure(
    out: Path, sheet: Sheet, pictures: list[np.ndarray], title: str, comment: str, overwrite: bool
) -> None:
    """PNG, SVG or PDF, whole or not at all; title and comment go into its metadata. Raises CameMeanwhile for a file
    that came to be there unless `overwrite`, MTAnimateError where writing fails."""
    kind = out.suffix.lower()
    if kind == ".png":
        write_image(out, sheet.filled(sheet.blank(), pictures), {"Title": title, "Comment": comment}, overwrite)
        return
    try:
        with replacing(out, overwrite) as partial:
            sheet.vector(partial, pictures, {"Title": title, "Description" if kind == ".svg" else "Subject": comment})
    except OSError as error:
        raise MTAnimateError(f"{out} could not be written ({error.strerror}): is the disk full?") from error


def write_video(
    out: Path,
    sheet: Sheet,
    inputs: FigureInputs,
    paint: Paint,
    title: str,
    comment: str,
    overwrite: bool,
    progress: Callable[..., None],
) -> None:
    """A figure a driving frame. Text and colour bars are drawn once. Raises as `write_figure`."""
    blank, done = sheet.blank(), 0
    writer = VideoWriter(
        out,
        fps=inputs.fps,
        times=inputs.times,
        width=sheet.width,
        height=sheet.height,
        title=title,
        comment=comment,
        overwrite=overwrite,
    )
    with writer:
        for batch in inputs.batches():
            for pictures in paint(batch):
                writer.write(sheet.filled(blank, pictures)[None])
            done += len(batch)
            progress(done, inputs.length)


def _paste(sheet: np.ndarray, left: int, top: int, picture: np.ndarray) -> None:
    sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture


def _on(badge: tuple[float, ...] | None) -> str:
    """Black or white, whichever reads better on that colour."""
    if badge is None:
        return "black"
    red, green, blue = badge
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
