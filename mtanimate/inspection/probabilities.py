"""Attention as the network computes it, and what is made of it for a figure."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mtanimate.models.motion import Motion
from mtanimate.models.motion_transformer import MotionTransformer

Heads = Literal["mean", "max", "each"]


@torch.inference_mode()
def estimate_with_attention(estimator: MotionTransformer, image: Tensor) -> tuple[Motion, Tensor]:
    """Pictures (B, 3, R, R) in [0, 1] -> their motion and every layer's probabilities (B, L, heads, Q, M + N).

    Rows look, columns are looked at; M motion tokens first, then N image tokens, row by row. Q = M + N, with separate
    attention (Eq. 5-6) M. A row sums to 1.
    """
    layers: list[Tensor] = []
    motion = estimator(image, layers)
    return motion, torch.stack(layers, dim=1).float()


def rolled_out(probabilities: Tensor) -> Tensor:
    """Attention rollout (Abnar and Zuidema, 2020) up to each layer: (B, L, heads, S, S) -> (B, L, S, S).

    Heads are averaged, half of each layer is the residual path, A' = (A + I) / 2, and layers are multiplied, the later
    from the left. Rows sum to 1.
    """
    mean = probabilities.mean(dim=2)
    steps = (mean + torch.eye(mean.shape[-1], device=mean.device)) / 2
    rolled = [steps[:, 0]]
    for layer in range(1, steps.shape[1]):
        rolled.append(steps[:, layer] @ rolled[-1])
    return torch.stack(rolled, dim=1)


@dataclass(frozen=True)
class View:
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
        return (rolled_out(probabilities) if self.rollout else probabilities)[:, self.layers]

    def merged(self, raw: Tensor) -> Tensor:
        """Of `raw`, a matrix a title: (B, C, Q, S)."""
        if self.rollout:
            return raw
        if self.heads == "each":
            return raw.flatten(1, 2)
        return raw.mean(dim=2) if self.heads == "mean" else raw.amax(dim=2)


def part_rows(matrices: Tensor, parts: int, motion_tokens: int) -> Tensor:
    """(..., Q, S) -> (..., K, S): how each part looks. Of a part's two tokens (`release`), their mean."""
    return matrices[..., :motion_tokens, :].unflatten(-2, (-1, parts)).mean(dim=-3)


def image_maps(rows: Tensor, motion_tokens: int) -> Tensor:
    """(..., K, M + N) -> (..., K, n, n): attention to the patches of a square picture, as a multiple of 1 / (M + N)."""
    patches = rows[..., motion_tokens:] * rows.shape[-1]
    side = math.isqrt(patches.shape[-1])
    return patches.unflatten(-1, (side, side))


def part_matrices(rows: Tensor, parts: int, motion_tokens: int) -> Tensor:
    """(..., K, M + N) -> (..., K, K): attention to each part, as a multiple of 1 / (M + N).

    Of a part's two tokens (`release`), the mean: what a token of it gets.
    """
    return rows[..., :motion_tokens].unflatten(-1, (-1, parts)).mean(dim=-2) * rows.shape[-1]
