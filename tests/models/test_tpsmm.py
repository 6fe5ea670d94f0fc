"""The Thin-Plate Spline Motion Model: every stage against its authors' numbers, and what its parts promise."""

from dataclasses import replace

import pytest
import torch
from foreign import TPSMM
from golden import close, document, tensors
from tiny import MODEL
from tpsmm_networks import SMALL, recipe_network, small_network

from mtanimate.config import DenseMotionConfig, load_preset
from mtanimate.errors import InputError
from mtanimate.geometry import coordinate_grid, warp
from mtanimate.models.animator import Animator
from mtanimate.models.dense_motion import DenseMotion
from mtanimate.models.generator import gate
from mtanimate.models.motion import movement_scale, transfer_relative
from mtanimate.models.thin_plate_splines import fit_splines, solve
from mtanimate.models.tpsmm import SplineDenseMotionNetwork, spline_motion

MODES = {
    "abs": ("kp_driving", None),
    "reladapt": ("kp_relative", None),
    "absbg": ("kp_driving", "bg_param"),
    "absproj": ("kp_driving", "bg_param_projective"),
}
FULL = load_preset("tpsmm").model
FULL = replace(FULL, estimator=replace(FULL.estimator, identity_width=128, pose_width=128))


# Against its authors' numbers


def test_splines_are_those_of_the_authors():
    given = tensors("tps_points.npz")
    splines = fit_splines(given["kp_driving"], given["kp_source"])
    close(splines.theta, given["theta"])
    close(splines.weights, given["control_params"])
    close(splines(coordinate_grid(16, 16, like=splines.theta)), given["grid"])


def rendered(name, mode, dtype):
    """What a fixture's network makes of its stored keypoints."""
    animator, io = small_network(name).to(dtype), tensors(f"{name}/io.npz")
    which, background = MODES[mode]
    count = len(io[f"{mode}_prediction"])
    source, driving = (spline_motion(io[key].to(dtype)) for key in ("kp_source", which))
    matrix = None if background is None else io[background][:count].to(dtype)
    encoded = animator.encode_source(io["source"].to(dtype), source)
    return animator.render(encoded, driving[:count], matrix)


@pytest.mark.parametrize(
    ("name", "mode"), [(name, mode) for name in SMALL for mode in MODES if name == "tpsmm_small" or "rel" in mode]
)
def test_every_stage_is_within_the_sheets_tolerance(name, mode):
    io = tensors(f"{name}/io.npz")
    tolerances = document(f"{name}/info.json")["suggested_atol_float32"]
    found = rendered(name, mode, torch.float32)
    dense = found.motion
    stages = {"prediction": found.prediction, "deformation": dense.flow, "contribution_maps": dense.masks}
    maps = dense.occlusions or (dense.occlusion,)
    stages |= {f"occlusion_map{index}": one for index, one in enumerate(maps)}
    compared = 0
    for stage, tensor in stages.items():
        key = f"{mode}_{stage}"
        if key in io:
            close(tensor, io[key], atol=tolerances[key], rtol=0)
            compared += 1
    assert compared >= 2


@pytest.mark.parametrize("name", SMALL)
def test_in_float64_it_is_reproduced_to_the_last_digits(name):
    """What float32 hides, such as the spline's epsilon, shows here."""
    exact = tensors(f"{name}/io64.npz")
    frames = [int(frame) for frame in exact["frames"]]
    try:
        found = rendered(name, "abs", torch.float64)
    finally:
        small_network(name).float()
    close(found.prediction[frames], exact["abs_prediction"], atol=1e-9, rtol=0)
    close(found.motion.flow[frames], exact["abs_deformation"], atol=1e-9, rtol=0)


@pytest.fixture(scope="module")
def full():
    """The estimator and its like at full size; the other networks are small."""
    config = replace(FULL, dense_motion=TPSMM.dense_motion, generator=TPSMM.generator)
    return recipe_network(config, document("tpsmm_recipe.json"))


def test_keypoints_background_and_disentanglement_at_full_size(full):
    given = tensors("tpsmm_recipe.npz")
    motion = full.estimate_motion(given["images"])
    close(motion.keypoints, given["kp"])
    close(full.predict_background(given["images"][:1], given["images"][1:]), given["bg_param"])
    close(full.disentangle(motion[:1], motion[1:]).keypoints, given["avd_source0_driving12"])


@pytest.mark.slow
def test_a_frame_at_full_size():
    given = tensors("tpsmm_full_recipe.npz")
    animator = recipe_network(FULL, document("tpsmm_full_recipe.json"))
    source, driving = (animator.estimate_motion(given[name]) for name in ("source", "driving"))
    close(source.keypoints, given["kp_source"])
    moved = transfer_relative(source, driving[1:], driving[:1], movement_scale(source, driving[:1]))
    close(moved.keypoints, given["kp_relative"])
    found = animator.render(animator.encode_source(given["source"], source), moved)
    close(found.motion.flow, given["deformation"], atol=1e-4)
    coarse, finer, _, finest = found.motion.occlusions
    close(coarse, given["occlusion_map0"], atol=1e-4)
    close(finer, given["occlusion_map1"], atol=1e-4)
    close(finest[..., ::4, ::4], given["occlusion_map3_every4"], atol=1e-4)
    close(found.prediction, given["prediction"], atol=1e-4)


# What its parts promise


@pytest.mark.parametrize("size", [1, 3, 8])
def test_small_systems_are_solved(size):
    random = torch.Generator().manual_seed(size)
    matrix, wanted = (torch.randn(4, size, width, generator=random, dtype=torch.float64) for width in (size, 2))
    close(solve(matrix, wanted), torch.linalg.solve(matrix, wanted), atol=1e-9)


def test_a_spline_between_equal_points_moves_nothing_far_and_bends_towards_its_targets():
    points = torch.tensor([[[-0.5, -0.5], [0.5, -0.5], [0.0, 0.0], [-0.5, 0.5], [0.5, 0.5]]])[None]
    still = fit_splines(points, points)(points[0, 0][None])
    moved = fit_splines(points, points + torch.tensor([0.2, 0.0]))(points[0, 0][None])
    close(still[0, 0, 0], points[0, 0], atol=0.05)  # the system is softened
    close((moved - still)[0, 0, 0], torch.tensor([0.2, 0.0]).expand(5, 2), atol=0.02)


def test_points_that_coincide_still_give_a_spline():
    same = torch.zeros(1, 2, 5, 2)
    assert fit_splines(same, same)(coordinate_grid(4, 4, like=same)).isfinite().all()


def dense_network(**settings):
    torch.manual_seed(0)
    return SplineDenseMotionNetwork(DenseMotionConfig(8, 16, 2, **settings), 15)


def motion(batch, seed=0):
    return spline_motion(2 * torch.rand(batch, 15, 2, generator=torch.Generator().manual_seed(seed)) - 1)


def test_dropout_leaves_splines_out_in_training_alone():
    network, picture = dense_network(), torch.rand(1, 3, 64, 64)
    network.dropout = 0.5
    reduced, source, driving = network.reduce(picture), motion(1), motion(32, seed=1)
    network.train()
    gone = network(reduced, source, driving).masks.amax(dim=(2, 3)) == 0
    assert not gone[:, 0].any()  # never the background
    assert 0.3 < gone[:, 1:].float().mean() < 0.7
    network.eval()
    assert (network(reduced, source, driving).masks > 0).all()


def test_heat_maps_have_no_numbers_too_small_to_be_normal():
    """Convolutions of such numbers take several times as long."""
    network = dense_network()
    heat = network._heatmaps(motion(8), coordinate_grid(16, 16, like=torch.zeros(())))
    assert ((heat == 0) | (heat >= torch.finfo(torch.float32).tiny)).all()
    assert (heat == 0).any()


def test_where_all_is_visible_the_picture_is_the_warped_source():
    torch.manual_seed(0)
    generator = Animator(TPSMM).eval().generator
    source = torch.rand(1, 3, 64, 64)
    flow = coordinate_grid(16, 16, like=source)[None] * 0.8
    seen = DenseMotion(torch.ones(1, 1, 16, 16), flow, torch.ones(1, 1, 64, 64), True, padding="zeros")
    close(generator.decode(generator.encode(source), source, seen), warp(source, flow, exact=True))
    hidden = replace(seen, occlusion=torch.zeros(1, 1, 64, 64))
    painted = generator.decode(generator.encode(source), source, hidden)
    close(painted, generator.decode(generator.encode(source.flip(3)), source.flip(3), hidden))  # nothing of it is seen


def test_outside_of_the_source_is_black():
    flow = torch.full((1, 4, 4, 2), 1.5)
    dense = DenseMotion(torch.ones(1, 1, 4, 4), flow, None, exact=True)
    source = torch.ones(1, 3, 8, 8)
    assert dense.warp(source).min() == 1  # the edge is repeated
    assert replace(dense, padding="zeros").warp(source).max() == 0


def test_our_own_generator_gates_each_size_by_the_map_of_its_size():
    config = replace(
        MODEL,
        dense_motion=replace(MODEL.dense_motion, multi_occlusion=True),
        generator=replace(MODEL.generator, num_down_blocks=3),
    )
    torch.manual_seed(0)
    animator = Animator(config).eval()
    frames = torch.rand(2, 3, 64, 64)
    dense = animator.render(animator.encode_source(frames[:1]), animator.estimate_motion(frames)).motion
    assert [one.shape[-1] for one in dense.occlusions] == [8, 16, 32, 64]
    assert dense.occlusion is dense.occlusions[-1]
    skip = torch.rand(2, 4, 16, 16)
    close(gate(skip, None, dense), dense.warp(skip) * dense.occlusions[1])


def test_a_network_that_does_not_tell_shape_from_pose():
    animator = Animator(replace(TPSMM, estimator=replace(TPSMM.estimator, identity_width=0, pose_width=0)))
    moved = animator.eval().estimate_motion(torch.rand(2, 3, 64, 64))
    with pytest.raises(InputError, match="--mode avd"):
        animator.disentangle(moved[:1], moved)
