"""The mask predictor: Eq. 2 by hand, and against a first-order-motion network of the same layout."""

import pytest
import torch
from fomm import CASES, SMALL, dense_from, fomm_networks, motions
from golden import close, document, tensors

from mtanimate.config import BackgroundConfig, DenseMotionConfig
from mtanimate.geometry import coordinate_grid, sample
from mtanimate.models.background_predictor import BackgroundPredictor, background_grid
from mtanimate.models.dense_motion import DenseMotionNetwork
from mtanimate.models.motion import Motion, sparse_motions

PARTS = 4


def network(seed=0, **changes):
    torch.manual_seed(seed)
    config = DenseMotionConfig(**{"block_expansion": 4, "max_features": 16, "num_blocks": 2, **changes})
    return DenseMotionNetwork(config, PARTS).eval().requires_grad_(False)


def random_motion(batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    keypoints = torch.rand(batch, PARTS, 2, generator=generator) * 1.6 - 0.8
    affine = torch.eye(2) + 0.2 * torch.randn(batch, PARTS, 2, 2, generator=generator)
    return Motion(keypoints, affine)


def pictures(batch=1, size=64, seed=3):
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_shapes_and_masks_that_sum_to_one():
    net = network()
    dense = net(net.reduce(pictures()), random_motion(1), random_motion(3, seed=1))
    assert dense.masks.shape == (3, PARTS + 1, 16, 16)
    assert dense.flow.shape == (3, 16, 16, 2)
    assert dense.occlusion.shape == (3, 1, 16, 16)
    close(dense.masks.sum(dim=1), torch.ones(3, 16, 16), atol=1e-6)
    assert dense.masks.min() > 0
    assert dense.occlusion.min() > 0
    assert dense.occlusion.max() < 1


def test_no_occlusion_where_the_configuration_has_none():
    net = network(occlusion=False)
    assert net(net.reduce(pictures()), random_motion(1), random_motion(1)).occlusion is None
    assert not any("occlusion" in name for name in net.state_dict())


@pytest.mark.parametrize("size", [(64, 64), (32, 96)])
def test_the_same_motion_twice_gives_the_identity_flow(size):
    net = network()
    reduced = torch.rand(2, 3, *(side // 4 for side in size))
    motion = random_motion(2)
    flow = net(reduced, motion, motion).flow
    close(flow, coordinate_grid(*reduced.shape[2:], reduced).expand_as(flow), atol=1e-5)


def test_exact_sampling_keeps_what_stands_still():
    """The same motion twice: the hourglass sees the source itself, and the warped source is the source."""
    net = network(exact_sampling=True)
    seen = []
    net.hourglass.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    source, motion = pictures(2), random_motion(2)
    reduced = net.reduce(source)
    dense = net(reduced, motion, motion)
    close(seen[0].unflatten(1, (PARTS + 1, 4))[:, :, 1:], reduced[:, None].expand(-1, PARTS + 1, -1, -1, -1), atol=1e-3)
    close(dense.warp(source), source, atol=1e-3)
    assert (network()(reduced, motion, motion).warp(source) - source).abs().mean() > 0.05


def test_flow_is_the_mean_of_the_motions_weighted_by_masks():
    net = network()
    source, driving = random_motion(1), random_motion(2, seed=1)
    dense = net(net.reduce(pictures()), source, driving)
    grid = coordinate_grid(16, 16, dense.flow)
    expected = dense.masks[:, 0, ..., None] * grid
    for part, motion in enumerate(sparse_motions(source, driving, grid).unbind(1)):
        expected = expected + dense.masks[:, part + 1, ..., None] * motion
    close(dense.flow, expected, atol=1e-5)


def test_background_moves_by_its_matrix():
    net = network()
    with torch.no_grad():
        net.mask.weight.zero_()
        net.mask.bias.copy_(torch.tensor([50.0, 0, 0, 0, 0]))  # all is background
    matrix = torch.tensor([[1.0, 0, 0.25], [0, 1, -0.5], [0, 0, 1]]).expand(2, 3, 3)
    dense = net(net.reduce(pictures()), random_motion(1), random_motion(2, seed=1), matrix)
    expected = coordinate_grid(16, 16, dense.flow) + torch.tensor([0.25, -0.5])
    close(dense.flow, expected.expand_as(dense.flow), atol=1e-5)


def test_hourglass_reads_heat_and_picture_of_each_part_in_turn():
    net = network()
    seen = []
    net.hourglass.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    source, driving = random_motion(1), random_motion(2, seed=1)
    reduced = net.reduce(pictures())
    net(reduced, source, driving)
    parts = seen[0].unflatten(1, (PARTS + 1, 4))
    grid = coordinate_grid(16, 16, reduced)
    assert not parts[:, 0, 0].any()  # the background has no heat
    close(parts[:, 0, 1:], sample(reduced, grid[None]).expand(2, -1, -1, -1), atol=1e-6)
    for b in range(2):
        for part in range(PARTS):
            heat = [
                torch.exp(-((grid - motion.keypoints[index, part]) ** 2).sum(dim=-1) / 0.02)
                for motion, index in ((driving, b), (source, 0))
            ]
            close(parts[b, part + 1, 0], heat[0] - heat[1], atol=1e-6)
            motion = sparse_motions(source, driving, grid)[b, part]
            close(parts[b, part + 1, 1:], sample(reduced, motion[None])[0], atol=1e-6)


def test_one_source_serves_many_driving_frames():
    net = network()
    reduced, source, driving = net.reduce(pictures()), random_motion(1), random_motion(3, seed=1)
    together = net(reduced, source, driving)
    for index in range(3):
        alone = net(reduced, source, driving[index : index + 1])
        close(together.masks[index], alone.masks[0])
        close(together.flow[index], alone.flow[0])


# Background


def test_background_predictor_starts_at_the_identity():
    torch.manual_seed(0)
    predictor = BackgroundPredictor(BackgroundConfig(4, 16, 3)).eval()
    matrix = predictor(pictures(2), pictures(2, seed=4))
    assert torch.equal(matrix, torch.eye(3).expand(2, 3, 3))


def test_background_grid_divides_by_the_depth():
    matrix = torch.tensor([[[2.0, 0, 0.1], [0, 1, 0], [0.5, 0, 2]]])
    grid = torch.tensor([[[1.0, -1.0]]])
    expected = torch.tensor([2.1, -1.0]) / 2.5
    close(background_grid(matrix, grid)[0, 0, 0], expected, atol=1e-6)


# Against stored numbers


@pytest.mark.parametrize("transfer", ["abs", "reladapt"])
@pytest.mark.parametrize("name", CASES)
def test_first_order_dense_motion(name, transfer):
    io, tolerances = tensors(f"{name}/io.npz"), document(f"{name}/tolerances.json")
    dense_motion, _ = fomm_networks(name)
    source, driving = motions(io, transfer)
    dense = dense_motion(dense_motion.reduce(io["source"]), source, driving)
    found = {"mask": dense.masks, "deformation": dense.flow, "occlusion_map": dense.occlusion}
    if not SMALL[name].occlusion:
        assert found.pop("occlusion_map") is None
    for key, value in found.items():
        tolerance = tolerances["suggested_atol_float32"][f"{transfer}_{key}"]
        close(value, io[f"{transfer}_{key}"], atol=tolerance, rtol=0)


@pytest.mark.parametrize("name", CASES)
def test_first_order_stages(name):
    debug, io = tensors(f"{name}/debug.npz"), tensors(f"{name}/io.npz")
    dense_motion, _ = fomm_networks(name)
    source, driving = motions(io, "abs")
    seen = {}
    dense_motion.hourglass.register_forward_hook(
        lambda _m, inputs, output: seen.update(dm_hourglass_in=inputs[0], dm_hourglass_out=output)
    )
    dense_motion.mask.register_forward_hook(lambda _m, _i, output: seen.update(dm_mask_logits=output))
    reduced = dense_motion.reduce(io["source"])
    dense_motion(reduced, source, driving[1:2])
    close(reduced, debug["dm_down"])
    for key, value in seen.items():
        close(value, debug[key], atol=3e-5)
    assert len(seen) == 3
    assert dense_from(io, "abs").masks.shape[1] == source.keypoints.shape[1] + 1
