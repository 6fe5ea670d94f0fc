"""The two kinds of attention layers, against their formulas written out."""

import pytest
import torch
from golden import close

from mtanimate.config import BACKBONES, MotionTransformerConfig
from mtanimate.models.motion_transformer import (
    MotionTransformer,
    MultiHeadAttention,
    SeparateLayer,
    UnifiedLayer,
)


def attention_inputs(dim=16, seed=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 5, dim, generator=generator), torch.randn(2, 9, dim, generator=generator)


@pytest.mark.parametrize(("variant", "divisor"), [("paper", 16), ("release", 16 // 4)])
def test_logits_are_divided_by_the_root_of(variant, divisor):
    config = MotionTransformerConfig(variant=variant, backbone=BACKBONES["stem"], dim=16, heads=4, layers=1)
    attention = MotionTransformer(config, 5).layers[0].attention
    queries, context = attention_inputs()
    maps = []
    attention(queries, context, maps)
    head = slice(8, 12)  # the third of four heads
    query, key = attention.query(queries)[..., head], attention.key(context)[..., head]
    expected = torch.softmax(query @ key.transpose(1, 2) / divisor**0.5, dim=-1)
    close(maps[0][:, 2], expected, atol=1e-6)


def test_attention_written_out():
    """Head by head: the mean of the values, weighted by the softmax of query times key."""
    torch.manual_seed(0)
    attention = MultiHeadAttention(dim=8, heads=2, logit_dim=8)
    queries, context = attention_inputs(dim=8)
    heads = []
    for head in (slice(0, 4), slice(4, 8)):
        query, key, value = (
            tokens @ layer.weight[head].T
            for layer, tokens in (
                (attention.query, queries),
                (attention.key, context),
                (attention.value, context),
            )
        )
        weights = torch.exp(query @ key.transpose(1, 2) / 8**0.5)
        heads.append(weights / weights.sum(dim=-1, keepdim=True) @ value)
    expected = torch.cat(heads, dim=-1) @ attention.out.weight.T + attention.out.bias
    close(attention(queries, context), expected, atol=1e-6)


@pytest.mark.parametrize("kind", [UnifiedLayer, SeparateLayer])
def test_fast_path_equals_explicit_path_and_rows_sum_to_one(kind):
    torch.manual_seed(0)
    layer = kind(dim=16, heads=4, logit_dim=16, mlp_ratio=3)
    motion, image = attention_inputs()
    maps = []
    explicit, fast = layer(motion, image, maps), layer(motion, image)
    for a, b in zip(explicit, fast, strict=True):
        assert (a - b).abs().max() <= 1e-6
    queries = 14 if kind is UnifiedLayer else 5
    assert maps[0].shape == (2, 4, queries, 14)
    close(maps[0].sum(dim=-1), torch.ones(2, 4, queries), atol=1e-6)
    assert maps[0].min() >= 0


def test_separate_attention_leaves_image_tokens_as_they_are():
    torch.manual_seed(0)
    motion, image = attention_inputs()
    moved, seen = SeparateLayer(16, 4, 16, 3)(motion, image)
    assert seen is image
    assert (moved - motion).abs().max() > 0.01
    assert (UnifiedLayer(16, 4, 16, 3)(motion, image)[1] - image).abs().max() > 0.01


def test_separate_attention_written_out():
    """Eq. 5-6: own tokens and image tokens each through an attention of their own, both added."""
    torch.manual_seed(0)
    layer = SeparateLayer(16, 4, 16, 3)
    motion, image = attention_inputs()
    normed = layer.motion_norm(motion)
    halfway = motion + layer.self_attention(normed, normed)
    halfway = halfway + layer.cross_attention(normed, layer.image_norm(image))
    close(layer(motion, image)[0], halfway + layer.mlp(layer.mlp_norm(halfway)), atol=1e-6)
