"""The Motion Transformer of the paper: shapes, sizes, start and position."""

from dataclasses import replace

import pytest
import torch
from golden import close
from torch.nn import functional as F

from mtanimate.config import BACKBONES, HRNetConfig, MotionTransformerConfig, load_preset
from mtanimate.models.motion_transformer import (
    MotionTransformer,
    sine_position,
    sunflower,
)

TINY = MotionTransformerConfig(
    backbone=HRNetConfig(
        widths=(4, 8, 16),
        stem_width=8,
        layer1_width=4,
        layer1_blocks=1,
        stage2_blocks=(1, 1),
        stage3_modules=1,
        stage3_blocks=(1, 1, 1),
    ),
    dim=16,
    layers=3,
    heads=4,
    mlp_ratio=2,
)
PARTS = 5


def build(seed=0, **changes):
    torch.manual_seed(seed)
    return MotionTransformer(replace(TINY, **changes), PARTS).eval()


def pictures(batch=2, height=64, width=64, seed=1):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


# Sizes


@pytest.mark.parametrize(("backbone", "millions"), [("stem", 5.559), ("hrnet_w32", 12.231622), ("hrnet_w48", 21.301)])
def test_parameters_of_the_paper(backbone, millions):
    with torch.device("meta"):
        estimator = MotionTransformer(MotionTransformerConfig(backbone=BACKBONES[backbone]), num_keypoints=10)
    count = sum(parameter.numel() for parameter in estimator.parameters())
    assert count == pytest.approx(1e6 * millions, rel=1e-3)
    if backbone == "hrnet_w32":
        assert count == 12_231_622


@pytest.mark.parametrize("variant", ["paper", "release"])
@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
def test_output_and_attention_shapes(variant, size):
    estimator = build(variant=variant)
    maps = []
    motion = estimator(pictures(3, *size), maps)
    assert motion.keypoints.shape == (3, PARTS, 2)
    assert motion.affine.shape == (3, PARTS, 2, 2)
    tokens = (2 if variant == "release" else 1) * PARTS + size[0] * size[1] // 16**2
    assert [tuple(each.shape) for each in maps] == [(3, 4, tokens, tokens)] * 3


def test_scale_factor_reduces_the_picture_first():
    maps = []
    build(scale_factor=0.5)(pictures(1, 64, 64), maps)
    assert maps[0].shape[-1] == PARTS + (32 // 16) ** 2


def test_each_picture_of_a_batch_has_its_own_motion():
    estimator, frames = build(), pictures(3)
    together = estimator(frames)
    for index in range(3):
        alone = estimator(frames[index : index + 1])
        close(together.keypoints[index], alone.keypoints[0])
        close(together.affine[index], alone.affine[0])
    assert not torch.allclose(together.keypoints[0], together.keypoints[1], atol=1e-4)


@pytest.mark.parametrize("attention", ["unified", "separate"])
def test_asking_for_maps_does_not_change_the_motion(attention):
    estimator, frames = build(attention=attention), pictures()
    maps = []
    plain, explained = estimator(frames), estimator(frames, maps)
    assert len(maps) == 3
    assert (plain.keypoints - explained.keypoints).abs().max() <= 1e-5
    assert (plain.affine - explained.affine).abs().max() <= 1e-5


# The start


@pytest.mark.parametrize("squash", [False, True])
def test_the_head_reads_a_sunflower_off_the_first_tokens(squash):
    estimator = build(squash=squash)
    with torch.no_grad():
        motion = estimator._regress(estimator.motion_tokens[None])
    # Four hundredths: the tokens' own noise, at this small dimension.
    close(motion.keypoints[0], sunflower(PARTS), atol=0.04, rtol=0)


def test_sunflower_fills_its_disc():
    points = sunflower(40, radius=0.7)
    assert points.norm(dim=1).max() <= 0.7
    assert points.mean(dim=0).abs().max() < 0.05
    assert (torch.cdist(points, points) + 9 * torch.eye(40)).min() > 0.1


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_keypoints_start_spread(seed):
    """After all layers too, in training mode, for the network that we train, on smooth pictures."""
    torch.manual_seed(seed)
    config = load_preset("small").model
    estimator = MotionTransformer(config.estimator, config.num_keypoints).train()
    with torch.no_grad():
        frames = F.interpolate(pictures(4, 8, 8), size=(256, 256), mode="bicubic").clamp(0, 1)
        keypoints = estimator(frames).keypoints
    for points in keypoints:
        distances = torch.cdist(points, points) + 9 * torch.eye(len(points))
        assert distances.min() >= 0.1


@pytest.mark.parametrize("variant", ["paper", "release"])
def test_affine_starts_at_the_identity(variant):
    affine = build(variant=variant)(pictures()).affine
    close(affine, torch.eye(2).expand_as(affine), atol=1e-6)


@pytest.mark.parametrize(("variant", "squash"), [("paper", True), ("release", False)])
def test_squashed_keypoints_stay_inside_the_picture(variant, squash):
    estimator = build(variant=variant, squash=squash)
    head = estimator.keypoint_head[1] if variant == "release" else estimator.head
    with torch.no_grad():
        head.weight.mul_(30)
    keypoints = estimator(pictures()).keypoints
    assert keypoints.abs().max() <= 1
    assert keypoints.abs().max() > 0.8


def test_keypoints_are_free_without_squash():
    estimator = build()
    with torch.no_grad():
        estimator.head.bias[4:] += 3
    assert estimator(pictures()).keypoints.max() > 1


@pytest.mark.parametrize("variant", ["paper", "release"])
@pytest.mark.parametrize("attention", ["unified", "separate"])
def test_every_parameter_gets_a_gradient(variant, attention):
    estimator = build(variant=variant, attention=attention).train()
    for head in (getattr(estimator, name, None) for name in ("head", "affine_head")):
        if head is not None:  # A's rows start at zero, which would hide what lies behind them
            torch.nn.init.normal_(head.weight if variant == "paper" else head[1].weight)
    motion = estimator(pictures(4))
    weights = torch.randn(2, *motion.keypoints.shape)
    ((weights[0] * motion.keypoints).sum() + (weights[1] * motion.affine.sum(dim=-1)).sum()).backward()
    silent = [
        name
        for name, parameter in estimator.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    ]
    assert silent == []


# Position and patches


@pytest.mark.parametrize(
    ("position", "attention", "additions"),
    [
        ("none", "unified", [0, 0, 0]),
        ("once", "unified", [1, 0, 0]),
        ("every_layer", "unified", [1, 1, 1]),
        ("once", "separate", [1, 0, 0]),
        ("every_layer", "separate", [1, 0, 0]),  # image tokens pass unchanged and keep their position
    ],
)
def test_how_often_the_position_is_added(position, attention, additions):
    estimator = build(position=position, attention=attention)
    passed = []
    for layer in estimator.layers:
        layer.register_forward_hook(lambda _m, inputs, outputs: passed.append((inputs, outputs)))
    frames = pictures()
    estimator(frames)
    tokens, _ = estimator.embed(estimator.backbone(frames))
    before = [(estimator.motion_tokens.expand(2, -1, -1), tokens), *(outputs for _, outputs in passed)]
    code = sine_position(4, 4, 16)
    for index, count in enumerate(additions):
        motion, image = passed[index][0][:2]
        close(motion, before[index][0], atol=0)
        close(image - before[index][1], count * code.expand(2, -1, -1), atol=1e-5)


def test_embed_gives_no_position_where_it_is_off():
    estimator = build(position="none")
    _, position = estimator.embed(torch.zeros(1, 4, 8, 12))
    assert torch.equal(position, torch.zeros(6, 16))


def test_sine_position_facts():
    code = sine_position(4, 6, 16).view(4, 6, 16)
    assert torch.equal(code[:, 0, :8], code[:, 5, :8])  # the first half tells the row alone
    assert torch.equal(code[0, :, 8:], code[3, :, 8:])  # the second half the column
    # Row r of 4 is the angle 2 pi (r + 1) / 4; the first two components are its sine and cosine.
    close(code[:, 0, :2], torch.tensor([[1.0, 0], [0, -1], [-1, 0], [0, 1]]), atol=1e-5)
    close(code[:3, 0, 0], torch.sin(torch.tensor([0.5, 1, 1.5]) * torch.pi), atol=1e-5)
    # Components 2 and 3 of 8 turn 10000 ** (2 / 8) = 10 times slower: sine and cosine of 9 degrees.
    close(code[0, 0, 2:4], torch.tensor([0.156434, 0.987688]), atol=1e-5)
    square = sine_position(5, 5, 16).view(5, 5, 16)
    close(square.transpose(0, 1), square.roll(8, dims=-1), atol=0)
    assert len(torch.unique(sine_position(16, 16, 192).round(decimals=4), dim=0)) == 256


def test_patches_are_flattened_row_column_channel():
    estimator = build(backbone=replace(TINY.backbone, widths=(2, 4, 8)), patch_size=2, dim=8, position="none")
    with torch.no_grad():
        estimator.patch_embedding.weight.copy_(torch.eye(8))
    channel, y, x = torch.meshgrid(torch.arange(2), torch.arange(4), torch.arange(6), indexing="ij")
    tokens, _ = estimator.embed((100 * channel + 10 * y + x)[None].float())
    assert tokens.shape == (1, 6, 8)
    assert tokens[0, 0].tolist() == [0, 100, 1, 101, 10, 110, 11, 111]
    assert tokens[0, 1].tolist() == [2, 102, 3, 103, 12, 112, 13, 113]  # to the right
    assert tokens[0, 3].tolist() == [20, 120, 21, 121, 30, 130, 31, 131]  # the next row of patches
