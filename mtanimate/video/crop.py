"""Between a picture of any shape and the network's square."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from mtanimate.transfer import download
from mtanimate.video.square import centred_square


def resize_frames(frames: np.ndarray, resolution: int) -> Tensor:
    """Square uint8 (B, S, S, 3) -> uint8 (B, 3, resolution, resolution), anti-aliased where it shrinks."""
    images = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
    if images.shape[2:] == (resolution, resolution):
        return images
    size = (resolution, resolution)
    resized = F.interpolate(images.float(), size, mode="bicubic", align_corners=False, antialias=True)
    return resized.round().clamp(0, 255).to(torch.uint8)


def resize_part(frame: np.ndarray, left: float, top: float, side: float, resolution: int) -> Tensor:
    """A square of uint8 (H, W, 3) that begins between pixels -> uint8 (3, resolution, resolution), as `resize_frames`.

    left, top, side: in pixels; the square lies within the frame.
    """
    box = (left, top, min(left + side, frame.shape[1]), min(top + side, frame.shape[0]))
    picture = Image.fromarray(frame).resize((resolution, resolution), Image.Resampling.BICUBIC, box)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def square_frames(frames: np.ndarray, resolution: int) -> Tensor:
    """uint8 (B, H, W, 3) of any shape -> uint8 (B, 3, resolution, resolution): the centred square, resized."""
    return resize_frames(centred_square(frames.shape[2], frames.shape[1]).cut(frames), resolution)


def to_frames(images: Tensor) -> np.ndarray:
    """(B, 3, H, W) in [0, 1] -> uint8 (B, H, W, 3), rounded."""
    frames = (images.float().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    return download(frames.contiguous()).numpy()
