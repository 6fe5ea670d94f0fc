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
    """Text at a point.

    Attributes:
        x: pixels to the right.
        y: pixels down.
        text: may have several lines.
        badge: RGB in [0, 1] of a box behind it, or None.
        align: center, left or right.
        turned: whether it reads upwards.
    """

    x: float
    y: float
    text: str
    badge: tuple[float, ...] | None = None
    align: str = "center"  # or left, right
    turned: bool = False


@dataclass(frozen=True)
class Sheet:
    """The layout of a figure.

    SVG and PDF are written by `vector`. For pixels, `blank` is drawn once, and `filled` for every frame.

    Attributes:
        width: in pixels.
        height: in pixels.
        boxes: left and top of each picture, in pixels.
        labels: the texts.
        fixed: left, top and pixels of pictures that never change.
    """

    width: int
    height: int
    boxes: list[tuple[int, int]]
    labels: list[Label]
    fixed: list[tuple[int, int, np.ndarray]] = field(default_factory=list)

    def blank(self) -> np.ndarray:
        """Draws everything but the pictures: uint8 RGB (height, width, 3)."""
        canvas = FigureCanvasAgg(self._figure())
        canvas.draw()
        sheet = np.asarray(canvas.buffer_rgba())[..., :3].copy()
        for left, top, picture in self.fixed:
            _paste(sheet, left, top, picture)
        return sheet

    def filled(self, blank: np.ndarray, pictures: list[np.ndarray]) -> np.ndarray:
        """Copies `blank` and puts pictures, uint8 RGB (h, w, 3), into the boxes."""
        sheet = blank.copy()
        for (left, top), picture in zip(self.boxes, pictures, strict=True):
            _paste(sheet, left, top, picture)
        return sheet

    def vector(self, file: Path, pictures: list[np.ndarray], said: dict[str, str]) -> None:
        """Writes SVG or PDF, by the file's extension; labels become outlines, pictures stay pixels.

        Args:
            file: to write.
            pictures: uint8 RGB (h, w, 3), one for each box.
            said: metadata by the format's keywords (both have `Title`).

        Raises:
            OSError: it cannot be written.
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
        """A matplotlib figure with the labels."""
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
    """Whether the file's extension is that of a video."""
    return out.suffix.lower() in CONTAINERS and bool(out.suffix)


def check_figure(out: Path, overwrite: bool, subject: Subject, checkpoint: str) -> None:
    """Checks before any work whether a figure can be written.

    Args:
        out: the file.
        overwrite: whether an existing file may be replaced.
        subject: what the figure shows; its files are never overwritten.
        checkpoint: that is not overwritten either.

    Raises:
        InputError: a format that is not written, a video of one picture, an input, or as `check_new_file`.
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
    """Writes PNG, SVG or PDF, whole or not at all.

    Args:
        out: the file.
        sheet: the layout.
        pictures: uint8 RGB (h, w, 3), one for each box.
        title: metadata.
        comment: metadata.
        overwrite: whether an existing file may be replaced.

    Raises:
        CameMeanwhile: the file exists by now, unless `overwrite`.
        MTAnimateError: writing failed.
    """
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
    """Writes a figure for each driving frame; labels and colour bars are drawn once.

    Args:
        out: the video.
        sheet: the layout.
        inputs: source and driving frames.
        paint: draws the pictures of a batch of frames.
        title: metadata.
        comment: metadata.
        overwrite: whether an existing file may be replaced.
        progress: called with frames done and in all.

    Raises:
        CameMeanwhile, MTAnimateError: as `write_figure`.
    """
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
    """Black or white, whichever reads better on this colour."""
    if badge is None:
        return "black"
    red, green, blue = badge
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
