"""Keypoints and part masks as pictures."""

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from mtanimate.drawing.colours import token_colours
from mtanimate.geometry import resize

FINE = 4  # drawn so much larger and reduced again: Pillow's circles have hard edges


def draw_keypoints(picture: np.ndarray, keypoints: Tensor) -> np.ndarray:
    """Discs on uint8 RGB (H, W, 3) at keypoints (K, 2), (x, y) in [-1, 1]; those outside are drawn at the rim."""
    height, width = picture.shape[:2]
    radius = max(2.5, min(height, width) / 45)
    colours = (token_colours(len(keypoints)) * 255).round().int().tolist()
    layer = Image.new("RGBA", (width * FINE, height * FINE))
    draw = ImageDraw.Draw(layer)
    for (x, y), colour in zip(keypoints.clamp(-1, 1).tolist(), colours, strict=True):
        centre = ((x + 1) / 2 * (width - 1) * FINE, (y + 1) / 2 * (height - 1) * FINE)
        draw.circle(centre, (radius + 1) * FINE, fill=(255, 255, 255, 255))
        draw.circle(centre, radius * FINE, fill=(*colour, 255))
    small = layer.resize((width, height), Image.Resampling.BOX)
    return np.array(Image.alpha_composite(Image.fromarray(picture).convert("RGBA"), small).convert("RGB"))


def colour_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks (B, K+1, h, w), background first -> (B, 3, *size) in [0, 1]: each pixel the mixture of its parts'
    colours, the background grey."""
    colours = torch.cat([torch.full((1, 3), 0.25), token_colours(masks.shape[1] - 1)]).to(masks)
    return resize(torch.einsum("bkhw,kc->bchw", masks, colours), size)
