"""What a network made of a few pairs of pictures, step by step, as one picture."""

import numpy as np
from torch import Tensor

from mtanimate.drawing.grids import labelled_grid
from mtanimate.drawing.motion import colour_masks, draw_keypoints
from mtanimate.geometry import resize, warp
from mtanimate.models.dense_motion import DenseMotion
from mtanimate.models.motion import Motion
from mtanimate.video.crop import to_frames


def draw_scene(
    source: Tensor,
    driving: Tensor,
    source_motion: Motion,
    driving_motion: Motion,
    dense: DenseMotion,
    prediction: Tensor,
) -> np.ndarray:
    """Pictures (B, 3, H, W) in [0, 1], their motions, and what came of them -> uint8 RGB, a row a pair.

    Columns: source, driving (each with its keypoints), masks, the source warped by the dense flow, occlusion
    (white: the warped source is used), result.
    """
    size = (source.shape[2], source.shape[3])
    columns = {
        "source": _with_keypoints(source, source_motion),
        "driving": _with_keypoints(driving, driving_motion),
        "masks": list(to_frames(colour_masks(dense.masks, size))),
        "warped source": list(to_frames(warp(source, dense.flow))),
    }
    if dense.occlusion is not None:
        columns["occlusion"] = list(to_frames(resize(dense.occlusion.float(), size).expand(-1, 3, -1, -1)))
    return labelled_grid(columns | {"result": list(to_frames(prediction))})


def _with_keypoints(pictures: Tensor, motion: Motion) -> list[np.ndarray]:
    frames = to_frames(pictures)
    return [draw_keypoints(frame, points) for frame, points in zip(frames, motion.keypoints, strict=True)]
