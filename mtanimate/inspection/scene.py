"""The steps from keypoints to the result as pictures, for `mtanimate inspect` and for training."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mtanimate.geometry import resize
from mtanimate.inference.prefetch import to_frames
from mtanimate.inspection.drawing import (
    FAR,
    axis_scale,
    colour_flow,
    colour_masks,
    colour_wheel,
    draw_arrows,
    draw_contours,
    draw_motion,
    token_colours,
)
from mtanimate.inspection.sheets import Label, Sheet
from mtanimate.models.dense_motion import DenseMotion
from mtanimate.models.motion import Motion

HEADER = 22  # pixels
GAP = 2
_ACROSS = 4  # pictures in a row of the sheet
_GAP, _TITLES = 6, 30
_WHEEL = 96  # pixels


def labelled_grid(columns: dict[str, list[np.ndarray]]) -> np.ndarray:
    """Arranges pictures in columns, with titles on top.

    Args:
        columns: uint8 RGB pictures (H, W, 3) of one size, by title.

    Returns:
        One picture, uint8 RGB.
    """
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


def occlusion_titles(dense: DenseMotion) -> list[str]:
    """The titles of the maps of occlusion: one, or one for each size, such as `occlusion 1/8`."""
    if not dense.occlusions:
        return [] if dense.occlusion is None else ["occlusion"]
    full = dense.occlusions[-1].shape[-1]
    return [f"occlusion 1/{full // one.shape[-1]}" for one in dense.occlusions[:-1]] + ["occlusion"]


def scene_pictures(
    source: Tensor,
    driving: Tensor,
    source_motion: Motion,
    driving_motion: Motion,
    dense: DenseMotion,
    prediction: Tensor,
) -> dict[str, list[np.ndarray]]:
    """Draws each step of an animation.

    They are: source and driving with keypoints and local affine frames, or with the control points of splines; the
    parts' masks over the driving picture, of splines with their contours; the dense flow, from source to driving;
    occlusion, where it is estimated (white: the warped source is visible), every map of it; the source warped by the
    flow; the result.

    Args:
        source: (1 or B, 3, H, W) in [0, 1].
        driving: (B, 3, H, W) in [0, 1].
        source_motion: of the source.
        driving_motion: of the driving pictures.
        dense: masks, flow and occlusion.
        prediction: (B, 3, H, W) in [0, 1].

    Returns:
        uint8 RGB pictures (H, W, 3) by title.
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
    if driving_motion.kind == "splines":
        drawn = zip(pictures["part masks"], dense.masks, strict=True)
        pictures["part masks"] = [draw_contours(picture, masks) for picture, masks in drawn]
    for title, occlusion in zip(occlusion_titles(dense), dense.occlusions or (dense.occlusion,), strict=False):
        assert occlusion is not None
        pictures[title] = list(to_frames(resize(occlusion.float(), size).expand(-1, 3, -1, -1)))
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
    """`scene_pictures` as one picture, uint8 RGB, with a row for each driving picture."""
    return labelled_grid(scene_pictures(source, driving, source_motion, driving_motion, dense, prediction))


def scene_sheet(titles: list[str], side: int, tokens: int) -> Sheet:
    """The layout of `scene_pictures` for one driving picture, with a legend.

    Args:
        titles: of the pictures.
        side: of a picture, in pixels.
        tokens: the number of motion tokens.
    """
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


def _with_motion(pictures: Tensor, motion: Motion, scale: float) -> list[np.ndarray]:
    return [draw_motion(frame, motion[index : index + 1], scale) for index, frame in enumerate(to_frames(pictures))]
