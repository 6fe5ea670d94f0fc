"""The motion estimator of the paper: a picture in, K keypoints and affine matrices out (section 3.2, Fig. 1)."""

import math
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtanimate.config import MotionTransformerConfig
from mtanimate.geometry import CPU, antialias_downsample
from mtanimate.models.face_points import face_frame
from mtanimate.models.hrnet import HRNet
from mtanimate.models.keypoint_refinement import KeypointRefinement
from mtanimate.models.motion import Motion


class MultiHeadAttention(nn.Module):
    """Multi-head attention (Eq. 3-4).

    Args:
        dim: components d of a token.
        heads: the number of heads.
        logit_dim: logits are divided by its square root.
    """

    def __init__(self, dim: int, heads: int, logit_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = logit_dim**-0.5
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.out = nn.Linear(dim, dim)

    def forward(self, queries: Tensor, context: Tensor, maps: list[Tensor] | None = None) -> Tensor:
        """Lets queries attend to a context.

        Args:
            queries: (B, Q, d).
            context: (B, N, d).
            maps: a list that the probabilities (B, heads, Q, N) are appended to; None uses fused attention, without
                them.

        Returns:
            (B, Q, d).
        """
        query, key, value = (
            layer(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, tokens in ((self.query, queries), (self.key, context), (self.value, context))
        )
        # On a CPU, fused attention has a slow backward pass: written out, the estimator trains a fifth faster.
        slow = query.device.type == "cpu" and query.requires_grad
        if maps is None and not slow:
            attended = F.scaled_dot_product_attention(query, key, value, scale=self.scale)
        else:
            probabilities = torch.softmax(query @ key.transpose(-2, -1) * self.scale, dim=-1)
            if maps is not None:
                maps.append(probabilities)
            attended = probabilities @ value
        return self.out(attended.transpose(1, 2).flatten(2))


class FeedForward(nn.Sequential):
    """Two linear layers with a GELU between; the hidden one has `ratio` * `dim` components."""

    def __init__(self, dim: int, ratio: int) -> None:
        super().__init__(nn.Linear(dim, ratio * dim), nn.GELU(), nn.Linear(ratio * dim, dim))


class UnifiedLayer(nn.Module):
    """Unified attention (Eq. 7-8): motion and image tokens attend to all tokens, in one pre-norm layer."""

    def __init__(self, dim: int, heads: int, logit_dim: int, mlp_ratio: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = MultiHeadAttention(dim, heads, logit_dim)
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp = FeedForward(dim, mlp_ratio)

    def forward(self, motion: Tensor, image: Tensor, maps: list[Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Updates both kinds of tokens.

        Args:
            motion: (B, M, d).
            image: (B, N, d).
            maps: a list that the probabilities (B, heads, M + N, M + N) are appended to.

        Returns:
            The updated motion and image tokens.
        """
        tokens = torch.cat([motion, image], dim=1)
        normed = self.attention_norm(tokens)
        tokens = tokens + self.attention(normed, normed, maps)
        tokens = tokens + self.mlp(self.mlp_norm(tokens))
        return tokens[:, : motion.shape[1]], tokens[:, motion.shape[1] :]


class SeparateLayer(nn.Module):
    """Separate attention (Eq. 5-6): motion tokens attend to each other and to image tokens, which stay as they are."""

    def __init__(self, dim: int, heads: int, logit_dim: int, mlp_ratio: int) -> None:
        super().__init__()
        self.motion_norm = nn.LayerNorm(dim)
        self.image_norm = nn.LayerNorm(dim)
        self.self_attention = MultiHeadAttention(dim, heads, logit_dim)
        self.cross_attention = MultiHeadAttention(dim, heads, logit_dim)
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp = FeedForward(dim, mlp_ratio)

    def forward(self, motion: Tensor, image: Tensor, maps: list[Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """As `UnifiedLayer.forward`; only motion tokens have rows in `maps`: (B, heads, M, M + N).

        Each of the two attentions sums to 1; both are halved, so that a row sums to 1.
        """
        normed = self.motion_norm(motion)
        own: list[Tensor] | None = None if maps is None else []
        motion = (
            motion
            + self.self_attention(normed, normed, own)
            + self.cross_attention(normed, self.image_norm(image), own)
        )
        if maps is not None and own is not None:
            maps.append(torch.cat(own, dim=-1) / 2)
        return motion + self.mlp(self.mlp_norm(motion)), image


class MotionTransformer(nn.Module):
    """The motion estimator, in the variants of the paper and of its release (`MotionTransformerConfig.variant`).

    Args:
        config: sizes and variants.
        num_keypoints: the number of parts K.
    """

    def __init__(self, config: MotionTransformerConfig, num_keypoints: int) -> None:
        super().__init__()
        self.config = config
        self.num_keypoints = num_keypoints
        release = config.variant == "release"
        dim = config.dim
        self.backbone = HRNet(config.backbone)
        self.patch_embedding = nn.Linear(config.patch_size**2 * self.backbone.out_channels, dim)
        self.motion_tokens = nn.Parameter(torch.empty((2 if release else 1) * num_keypoints, dim))
        layer = UnifiedLayer if config.attention == "unified" else SeparateLayer
        logit_dim = dim // config.heads if release else dim
        self.layers = nn.ModuleList(layer(dim, config.heads, logit_dim, config.mlp_ratio) for _ in range(config.layers))
        if release:
            self.keypoint_head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 2))
            self.affine_head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 4))
        else:
            self.head = nn.Linear(dim, 6)
        self.refinement = KeypointRefinement(dim, config.refinement_width) if config.refinement_width else None
        self._initialise()

    def forward(self, image: Tensor, attention: list[Tensor] | None = None) -> Motion:
        """Estimates the motion of each picture.

        Args:
            image: (B, 3, H, W) in [0, 1].
            attention: a list that each layer's probabilities (B, heads, M + N, M + N) are appended to; rows are
                queries, motion tokens come first, then the N image tokens row by row.

        Returns:
            Keypoints and affine matrices.
        """
        features = self.backbone(antialias_downsample(image, self.config.scale_factor))
        tokens, position = self.embed(features)
        motion = self.motion_tokens.expand(image.shape[0], -1, -1)
        for index, layer in enumerate(self.layers):
            if index == 0 or (self.config.position == "every_layer" and self.config.attention == "unified"):
                tokens = tokens + position
            motion, tokens = layer(motion, tokens, attention)
        found = self._regress(motion)
        return self._as_face(image, motion, found) if self.config.tied == "face" else found

    def _as_face(self, image: Tensor, tokens: Tensor, found: Motion) -> Motion:
        """Refines keypoints, where configured, and gives every part the matrix of the skull."""
        keypoints = found.keypoints
        if self.refinement is not None:
            keypoints = self.refinement(image, tokens, keypoints)
        matrix, _ = face_frame(keypoints)
        return Motion(keypoints, matrix[:, None].expand(-1, keypoints.shape[1], -1, -1), kind="face")

    def embed(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Cuts features into patches and embeds them.

        Args:
            features: (B, C, h, w), of the backbone.

        Returns:
            Image tokens (B, N, d) and their position code (N, d).
        """
        size = self.config.patch_size
        rows, columns = features.shape[2] // size, features.shape[3] // size
        # A token is flattened as (row in patch, column in patch, channel), channel fastest.
        patches = features.unflatten(3, (columns, size)).unflatten(2, (rows, size)).permute(0, 2, 4, 3, 5, 1)
        tokens = self.patch_embedding(patches.flatten(3).flatten(1, 2))
        if self.config.position == "none":
            return tokens, tokens.new_zeros(rows * columns, self.config.dim)
        return tokens, sine_position(rows, columns, self.config.dim, tokens.device).to(tokens.dtype)

    def _regress(self, tokens: Tensor) -> Motion:
        if self.config.variant == "release":
            points, matrices = tokens.chunk(2, dim=1)
            keypoints, affine = self.keypoint_head(points), self.affine_head(matrices)
        else:
            affine, keypoints = self.head(tokens).split([4, 2], dim=-1)
        keypoints, affine = keypoints.float(), affine.float().unflatten(-1, (2, 2))
        if self.config.squash or self.config.variant == "release":
            keypoints = 2 * torch.sigmoid(keypoints) - 1
        return Motion(keypoints, affine)

    def _initialise(self) -> None:
        """Draws tokens from a normal distribution (0.02); linear layers too in the release, else by Xavier, with which
        the content of the picture reaches the motion tokens from the start. A starts as the identity; in `paper`,
        keypoints start spread over the picture.
        """
        if self.motion_tokens.is_meta:  # nothing to initialise, and PyTorch's imports for it take seconds
            return
        for module in self.modules():
            if isinstance(module, nn.Linear):
                if self.config.variant == "release":
                    nn.init.normal_(module.weight, std=0.02)
                else:
                    nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.motion_tokens, std=0.02)
        identity = torch.tensor([1.0, 0, 0, 1])
        with torch.no_grad():
            if self.config.variant == "release":
                head = self.affine_head[1]
                assert isinstance(head, nn.Linear)
                head.weight.zero_()
                head.bias.copy_(identity)
                return
            self.head.weight[:4] = 0
            self.head.bias[:4] = identity
            self._spread_keypoints()

    def _spread_keypoints(self) -> None:
        """Gives each motion token a point of a sunflower in the plane that the head reads t from.

        One linear head serves all tokens, so only tokens can tell parts apart: with a head that starts at zero, all
        keypoints would start, and long stay, in one place. The layers in between add noise to it.
        """
        points = sunflower(self.num_keypoints)
        if self.config.squash:
            points = torch.logit((points + 1) / 2)
        plane = torch.linalg.qr(torch.randn(self.config.dim, 2)).Q.T  # (2, d), orthonormal rows
        norm = 0.5  # of the head's rows: about what PyTorch's default gives
        self.head.weight[4:] = norm * plane
        self.motion_tokens.add_((points / norm) @ plane)


def sunflower(count: int, radius: float = 0.7) -> Tensor:
    """Spreads `count` points evenly over a disc about the picture's centre.

    Args:
        count: the number of points.
        radius: of the disc, in coordinates.

    Returns:
        (count, 2), (x, y) in [-1, 1].
    """
    index = torch.arange(count) + 0.5
    distance = radius * torch.sqrt(index / count)
    angle = index * math.pi * (3 - math.sqrt(5))
    return torch.stack([distance * torch.cos(angle), distance * torch.sin(angle)], dim=-1)


@lru_cache
def sine_position(rows: int, columns: int, dim: int, device: torch.device = CPU) -> Tensor:
    """The fixed 2-D sine code of image tokens, row by row.

    The first half of the components codes the row, the second the column; sine and cosine alternate.

    Args:
        rows: of image tokens.
        columns: of image tokens.
        dim: components of a token, divisible by 4.
        device: of the result, which is cached.

    Returns:
        (rows * columns, dim), float32.
    """
    half = dim // 2
    component = torch.arange(half, dtype=torch.float64)
    divisor = 10000 ** (2 * torch.floor(component / 2) / half)

    def code(count: int) -> Tensor:
        angle = 2 * math.pi * torch.arange(1, count + 1, dtype=torch.float64) / (count + 1e-6)
        phase = angle[:, None] / divisor
        return torch.where(component % 2 == 0, torch.sin(phase), torch.cos(phase))

    y, x = code(rows), code(columns)
    grid = [y[:, None].expand(rows, columns, half), x[None].expand(rows, columns, half)]
    return torch.cat(grid, dim=-1).flatten(0, 1).float().to(device)
