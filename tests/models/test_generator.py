"""The image generator and the animator around it."""

from dataclasses import replace

import pytest
import torch
from fomm import CASES, dense_from, fomm_networks, motions
from golden import close, document, tensors

from mtanimate.config import (
    BackgroundConfig,
    DenseMotionConfig,
    GeneratorConfig,
    HRNetConfig,
    ModelConfig,
    MotionTransformerConfig,
)
from mtanimate.geometry import coordinate_grid, resize, warp
from mtanimate.models.animator import Animator
from mtanimate.models.dense_motion import DenseMotion
from mtanimate.models.generator import Generator, gate
from mtanimate.models.motion import Motion

CONFIG = GeneratorConfig(block_expansion=4, max_features=12, num_bottleneck_blocks=1)
TINY = ModelConfig(
    resolution=64,
    num_keypoints=3,
    estimator=MotionTransformerConfig(
        backbone=HRNetConfig(widths=(), stem_width=8, layer1_width=4, layer1_blocks=1),
        dim=16,
        layers=2,
        heads=2,
    ),
    dense_motion=DenseMotionConfig(block_expansion=4, max_features=16, num_blocks=2),
    generator=CONFIG,
)


def pictures(batch=1, height=64, width=64, seed=0):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def generator(seed=0, **changes):
    torch.manual_seed(seed)
    return Generator(replace(CONFIG, **changes)).eval().requires_grad_(False)


def animator(**changes):
    torch.manual_seed(0)
    return Animator(replace(TINY, **changes)).eval().requires_grad_(False)


def dense_motion(batch=1, size=16, occlusion=None, seed=5):
    """A flow near the identity; occlusion everywhere the number given, else random."""
    random = torch.Generator().manual_seed(seed)
    grid = coordinate_grid(size, size, torch.zeros(()))
    flow = grid + 0.1 * torch.randn(batch, size, size, 2, generator=random)
    shape = (batch, 1, size, size)
    maps = torch.rand(shape, generator=random) if occlusion is None else torch.full(shape, occlusion)
    return DenseMotion(torch.full((batch, 1, size, size), 1.0), flow, maps)


# Gates


def test_gate_mixes_warped_and_decoded():
    skip, decoded, motion = pictures(2, 32, 32), pictures(2, 32, 32, seed=1), dense_motion(2)
    warped, occlusion = warp(skip, motion.flow), resize(motion.occlusion, (32, 32))
    close(gate(skip, decoded, motion), warped * occlusion + decoded * (1 - occlusion), atol=1e-6)
    close(gate(skip, None, motion), warped * occlusion, atol=1e-6)
    assert torch.equal(gate(skip, None, replace(motion, occlusion=None)), warped)


# Encoder and decoder


def test_encoder_halves_sizes_and_doubles_channels_up_to_the_most():
    features = generator().encode(pictures(2))
    assert [tuple(f.shape) for f in features] == [(2, 4, 64, 64), (2, 8, 32, 32), (2, 12, 16, 16)]


@pytest.mark.parametrize("skips", [True, False])
def test_prediction_is_a_picture(skips):
    net, source = generator(skips=skips), pictures(2)
    prediction = net.decode(net.encode(source), source, dense_motion(2))
    assert prediction.shape == source.shape
    assert prediction.min() >= 0
    assert prediction.max() <= 1


def test_skips_have_no_parameters():
    assert generator(skips=True).state_dict().keys() == generator(skips=False).state_dict().keys()


def test_visible_everywhere_shows_the_warped_source_pixels():
    net, source = generator(), pictures(2)
    motion = dense_motion(2, occlusion=1.0)
    prediction = net.decode(net.encode(source), source, motion)
    assert torch.equal(prediction, warp(source, motion.flow))


def test_hidden_everywhere_shows_nothing_of_the_source():
    net, motion = generator(), dense_motion(1, occlusion=0.0)
    first, second = (net.decode(net.encode(source), source, motion) for source in (pictures(), pictures(seed=9)))
    assert torch.equal(first, second)


def test_each_skip_matters():
    """All scales enter by their skips: first, down 0, down 1, and the source's pixels."""
    net, source, motion = generator(), pictures(), dense_motion()
    features = net.encode(source)
    plain = net.decode(features, source, motion)
    for level in range(3):
        changed = [f + (0.5 if i == level else 0) for i, f in enumerate(features)]
        assert (net.decode(changed, source, motion) - plain).abs().max() > 1e-5
    assert (net.decode(features, 1 - source, motion) - plain).abs().max() > 0.1


def test_without_skips_only_the_deepest_feature_matters():
    net, source, motion = generator(skips=False), pictures(), dense_motion()
    features = net.encode(source)
    plain = net.decode(features, source, motion)
    assert torch.equal(net.decode([f * 0 for f in features[:-1]] + features[-1:], 1 - source, motion), plain)
    assert not torch.allclose(net.decode([*features[:-1], features[-1] + 1], source, motion), plain)


# The animator


def test_encode_once_drive_many_equals_one_by_one():
    net, source, driving = animator(), pictures(), pictures(4, seed=1)
    encoded = net.encode_source(source)
    motion = net.estimate_motion(driving)
    together = net.drive(encoded, motion)
    for index in range(4):
        one = net.drive(net.encode_source(source), motion[index : index + 1])
        close(together[index], one[0])


def test_one_source_expands_without_a_copy():
    net = animator()
    encoded = net.encode_source(pictures())
    expanded = encoded.expand(5)
    assert expanded.picture.shape[0] == 5
    assert expanded.picture.data_ptr() == encoded.picture.data_ptr()
    assert all(a.data_ptr() == b.data_ptr() for a, b in zip(expanded.features, encoded.features, strict=True))
    assert encoded.expand(1) is encoded


def test_a_known_motion_is_not_estimated_again():
    net, source = animator(), pictures()
    motion = net.estimate_motion(source)
    encoded = net.encode_source(source, Motion(motion.keypoints + 0.3, motion.affine))
    assert torch.equal(encoded.motion.keypoints, motion.keypoints + 0.3)


def test_source_as_its_own_driver_gives_the_identity_flow():
    net, source = animator(), pictures()
    encoded = net.encode_source(source)
    flow = net.render(encoded, encoded.motion).motion.flow
    close(flow, coordinate_grid(16, 16, flow)[None], atol=1e-5)


def test_warp_source_is_the_dense_flow_on_the_pixels():
    net, source, driving = animator(), pictures(2), pictures(2, seed=1)
    source_motion, motion = net.estimate_motion(source), net.estimate_motion(driving)
    warped, dense = net.warp_source(source, source_motion, motion)
    rendering = net.render(net.encode_source(source, source_motion), motion)
    close(dense.flow, rendering.motion.flow)
    assert torch.equal(warped, warp(source, dense.flow))


def test_background_is_predicted_where_it_is_configured():
    source, driving = pictures(), pictures(3, seed=1)
    assert animator().predict_background(source, driving) is None
    net = animator(background=BackgroundConfig(4, 8, 2))
    assert net.predict_background(source, driving).shape == (3, 3, 3)


# Against stored numbers


@pytest.mark.parametrize("transfer", ["abs", "reladapt"])
@pytest.mark.parametrize("name", CASES)
def test_first_order_generator(name, transfer):
    """Decoded from the stored dense motion, and from the stored keypoints through both networks."""
    io = tensors(f"{name}/io.npz")
    tolerances = document(f"{name}/tolerances.json")["suggested_atol_float32"]
    network, net = fomm_networks(name)
    frames = len(io["driving"])
    source = io["source"].expand(frames, -1, -1, -1)
    features = [feature.expand(frames, -1, -1, -1) for feature in net.encode(io["source"])]
    source_motion, driving_motion = motions(io, transfer)
    dense = network(network.reduce(io["source"]), source_motion, driving_motion)
    for motion in (dense_from(io, transfer), dense):
        deformed, prediction = warp(source, motion.flow), net.decode(features, source, motion)
        key = f"{transfer}_deformed"
        close(deformed, io[key], atol=tolerances[key], rtol=0)
        key = f"{transfer}_prediction"
        close(prediction, io[key], atol=tolerances[key], rtol=0)
