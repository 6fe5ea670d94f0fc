"""Pictures in rows and columns."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mtanimate.geometry import resize
from mtanimate.inference.prefetch import to_frames
from mtanimate.inspection.motion import (
    FAR,
    axis_scale,
    colour_flow,
    colour_masks,
    colour_wheel,
    draw_arrows,
    draw_motion,
    token_colours,
)
from mtanimate.models.dense_motion import DenseMotion
from mtanimate.models.motion import Motion

HEADER = 22  # pixels
GAP = 2


def labelled_grid(columns: dict[str, list[np.ndarray]]) -> np.ndarray:
    """Columns of uint8 RGB pictures (H, W, 3) of one size, by their titles -> one picture, titles on top."""
    height, width = next(iter(columns.values()))[0].shape[:2]
    rows = len(next(iter(columns.values())))
    size = (len(columns) * (width + GAP) - GAP, HEADER + rows * (height + GAP) - GAP)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=min(14, width / 8))
    for index, (title, pictures) in enumerate(columns.items()):
        left = index * (width + GAP)
        draw.text((left + width / 2, HEADER / 2), title, fill="black", font=font, anchor="mm")
        for row, picture in enumerate(pictures):
            sheet.paste(Image.fromarray(picture), (left, HEADER + row * (height + GAP)))
    return np.array(sheet)


TEXT = 14  # pixels
_DPI = 72  # so that a point is a pixel


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


def _paste(sheet: np.ndarray, left: int, top: int, picture: np.ndarray) -> None:
    sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture


def _on(badge: tuple[float, ...] | None) -> str:
    """Black or white, whichever reads better on that colour."""
    if badge is None:
        return "black"
    red, green, blue = badge
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"


def scene_pictures(
    source: Tensor,
    driving: Tensor,
    source_motion: Motion,
    driving_motion: Motion,
    dense: DenseMotion,
    prediction: Tensor,
) -> dict[str, list[np.ndarray]]:
    """Pictures (B, 3, H, W) in [0, 1], their motions, and what came of them -> uint8 RGB (H, W, 3) by what they show.
    One source may have several driving pictures.

    Source and driving with keypoints and local affine frames; the parts' masks over the driving picture; the dense
    flow, from source to driving; occlusion (white: the warped source is used), where it is estimated; the source
    warped by the flow; the result.
    """
    size = (source.shape[2], source.shape[3])
    scale = axis_scale(source_motion)
    grey = driving.float().mean(dim=1, keepdim=True)
    pictures = {
        "source": _with_motion(source, source_motion, scale) * (len(driving) // len(source)),
        "driving": _with_motion(driving, driving_motion, scale),
        "part masks": list(to_frames(0.6 * colour_masks(dense.masks.float(), size) + 0.4 * grey)),
        "dense flow": [
            draw_arrows(frame, flow)
            for frame, flow in zip(to_frames(colour_flow(dense.flow, size)), dense.flow, strict=True)
        ],
    }
    if dense.occlusion is not None:
        pictures["occlusion"] = list(to_frames(resize(dense.occlusion.float(), size).expand(-1, 3, -1, -1)))
    pictures["warped source"] = list(to_frames(dense.warp(source.expand_as(driving))))
    pictures["result"] = list(to_frames(prediction))
    return pictures


def draw_scene(
    source: Tensor,
    driving: Tensor,
    source_motion: Motion,
    driving_motion: Motion,
    dense: DenseMotion,
    prediction: Tensor,
) -> np.ndarray:
    """`scene_pictures` as one picture, uint8 RGB: a row a pair."""
    return labelled_grid(scene_pictures(source, driving, source_motion, driving_motion, dense, prediction))


def _with_motion(pictures: Tensor, motion: Motion, scale: float) -> list[np.ndarray]:
    return [draw_motion(frame, motion[index : index + 1], scale) for index, frame in enumerate(to_frames(pictures))]


_ACROSS = 4  # pictures in a row of the sheet
_GAP, _TITLES = 6, 30
_WHEEL = 96  # pixels


def scene_sheet(titles: list[str], side: int, tokens: int) -> Sheet:
    """The layout of `scene_pictures` for one pair of pictures of this side, with what its colours mean."""
    rows = -(-(len(titles) + 1) // _ACROSS)  # the legend takes a place too
    places = [
        (column * (side + _GAP), row * (side + _TITLES) + _TITLES) for row in range(rows) for column in range(_ACROSS)
    ]
    boxes, (left, top) = places[: len(titles)], places[len(titles)]
    labels = [Label(x + side / 2, y - _TITLES / 2, title) for (x, y), title in zip(boxes, titles, strict=True)]
    across = max(1, side // 40)
    for index, colour in enumerate(token_colours(tokens).tolist()):
        row, column = divmod(index, across)
        labels.append(Label(left + 24 + 38 * column, top + 14 + 28 * row, str(index + 1), tuple(colour)))
    below = top + 14 + 28 * (-(-tokens // across)) + 8
    wheel = (left + 12, below, colour_wheel(_WHEEL))
    text = f"moved this way;\nrim: 1/{round(2 / FAR)} of the\npicture, or more"
    labels.append(Label(left + _WHEEL + 24, below + _WHEEL / 2, text, align="left"))
    labels.append(Label(left + side / 2, top - _TITLES / 2, "tokens and movement"))
    height = max(rows * (side + _TITLES), below + _WHEEL + _GAP)
    return Sheet(_ACROSS * (side + _GAP) - _GAP, height, boxes, labels, [wheel])
