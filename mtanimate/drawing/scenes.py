"""What a network made of a few pairs of pictures, step by step."""

import numpy as np
from torch import Tensor

from mtanimate.drawing.flow import colour_flow, draw_arrows
from mtanimate.drawing.grids import labelled_grid
from mtanimate.drawing.motion import axis_scale, colour_masks, draw_motion
from mtanimate.geometry import resize
from mtanimate.models.dense_motion import DenseMotion
from mtanimate.models.motion import Motion
from mtanimate.video.crop import to_frames


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
