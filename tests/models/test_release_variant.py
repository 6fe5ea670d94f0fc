"""The `release` variant against numbers that the authors' release produced, stage by stage and end to end."""

import pytest
import torch
from golden import tensors
from release_models import release_animator

from mtanimate.models.dense_motion import DenseMotion
from mtanimate.models.motion import Motion, convex_hull_area, movement_scale, transfer_relative

pytestmark = pytest.mark.parametrize("name", ["mtia_small", "mtia_small_noskip"])


def close(actual, expected, atol=1e-5, rtol=1e-5):
    torch.testing.assert_close(actual, expected, atol=atol, rtol=rtol)


def motion(io, which):
    return Motion(io[f"kp_{which}_value"], io[f"kp_{which}_jacobian"])


def test_backbone(name):
    io, debug = tensors(f"{name}/io.npz"), tensors(f"{name}/debug.npz")
    backbone = release_animator(name).motion_estimator.backbone
    seen = {}
    for module_name, module in backbone.named_modules():
        module.register_forward_hook(lambda _m, _i, out, key=module_name: seen.__setitem__(key, out))
    close(backbone(io["source"]), io["backbone_features"], atol=3e-5)
    checked = 0
    for key, expected in debug.items():
        if key.startswith("stage"):
            stage, number, branch = key.split("_")
            output = seen[f"{stage}.{number.removeprefix('module')}"][int(branch.removeprefix("branch"))]
            close(output, expected, atol=3e-5)
            checked += 1
    close(seen["layer1"][:, :64], debug["layer1_first64channels"], atol=3e-5)
    assert checked >= 5


def test_tokens_and_position(name):
    io = tensors(f"{name}/io.npz")
    tokens, position = release_animator(name).motion_estimator.embed(io["backbone_features"])
    close(tokens, io["patch_embedding"])
    close(position[None], io["position_embedding"], atol=1e-6)
    close(tokens + position, io["image_tokens"])


def test_layers_each_from_its_stored_input(name):
    io = tensors(f"{name}/io.npz")
    estimator = release_animator(name).motion_estimator
    count = len(estimator.motion_tokens)
    for index, layer in enumerate(estimator.layers):
        if index == 0:
            motion_tokens, image = io["tokens_in"][:, :count], io["tokens_in"][:, count:]
        else:
            before = io["tokens_after_layer"][index - 1]
            motion_tokens, image = before[:, :count], before[:, count:] + io["position_embedding"]
        maps: list[torch.Tensor] = []
        plain = torch.cat(layer(motion_tokens, image), dim=1)
        mapped = torch.cat(layer(motion_tokens, image, maps), dim=1)
        close(plain, io["tokens_after_layer"][index])
        close(maps[0], io["attention"][index])
        close(maps[0].sum(dim=-1), torch.ones_like(maps[0][..., 0]))
        close(mapped, plain, atol=1e-6)


@pytest.mark.parametrize("picture", ["source", "driving"])
def test_motion_end_to_end(name, picture):
    io = tensors(f"{name}/io.npz")
    maps: list[torch.Tensor] = []
    estimated = release_animator(name).motion_estimator(io[picture], maps)
    close(estimated.keypoints, io[f"kp_{picture}_value"])
    close(estimated.affine, io[f"kp_{picture}_jacobian"])
    if picture == "source":
        close(torch.stack(maps), io["attention"])


def test_relative_transfer(name):
    io = tensors(f"{name}/io.npz")
    source, driving = motion(io, "source"), motion(io, "driving")
    reference = driving[:1]
    for which, area in (("source", "hull_area_source"), ("driving", "hull_area_driving0")):
        points = io[f"kp_{which}_value"][0].double().numpy()
        assert convex_hull_area(points) == pytest.approx(io[area].item(), rel=1e-6)
    scale = movement_scale(source, reference)
    for key, factor in (("rel", 1.0), ("reladapt", scale)):
        moved = transfer_relative(source, driving, reference, factor)
        close(moved.keypoints, io[f"kp_{key}_value"])
        close(moved.affine, io[f"kp_{key}_jacobian"])


def test_background(name):
    io = tensors(f"{name}/io.npz")
    animator = release_animator(name)
    if "bg_params" not in io:
        assert animator.predict_background(io["source"], io["driving"]) is None
        return
    close(animator.predict_background(io["source"], io["driving"]), io["bg_params"])


@pytest.mark.parametrize(("case", "which"), [("abs", "driving"), ("reladapt", "reladapt")])
@pytest.mark.parametrize("background", [False, True])
def test_generator_from_stored_motion(name, case, which, background):
    io = tensors(f"{name}/io.npz")
    if background and "bg_params" not in io:
        case_has_no_background = f"{case}_bg_prediction" not in io
        assert case_has_no_background
        return
    animator = release_animator(name)
    source = animator.encode_source(io["source"], motion(io, "source"))
    rendering = animator.render(source, motion(io, which), io["bg_params"] if background else None)
    prefix = f"{case}_bg" if background else case
    close(rendering.motion.masks, io[f"{prefix}_mask"])
    close(rendering.motion.masks.sum(dim=1), torch.ones_like(rendering.motion.flow[..., 0]))
    close(rendering.motion.flow, io[f"{prefix}_deformation"])
    close(rendering.motion.occlusion, io[f"{prefix}_occlusion_map"])
    close(rendering.prediction, io[f"{prefix}_prediction"], atol=2e-5)


def test_generator_stages(name):
    """Gated skips, block by block, for driving frame 1 in absolute mode."""
    io, debug = tensors(f"{name}/io.npz"), tensors(f"{name}/debug.npz")
    animator = release_animator(name)
    generator = animator.generator
    prefix = "abs_bg" if "bg_params" in io else "abs"
    dense = DenseMotion(*(io[f"{prefix}_{key}"][1:2] for key in ("mask", "deformation", "occlusion_map")))
    features = generator.encode(io["source"])
    for index, feature in enumerate(features[1:]):
        close(feature, debug[f"gen_down{index}"])
    seen: dict[str, torch.Tensor] = {}
    hooks = [
        block.register_forward_pre_hook(lambda _m, inputs, key=f"gen_up{i}_in": seen.__setitem__(key, inputs[0]))
        for i, block in enumerate(generator.up_blocks)
    ]
    hooks.append(
        generator.final.register_forward_pre_hook(lambda _m, inputs: seen.__setitem__("gen_final_in", inputs[0]))
    )
    prediction = generator.decode(features, io["source"], dense)
    for hook in hooks:
        hook.remove()
    assert set(seen) == {"gen_up0_in", "gen_up1_in", "gen_final_in"}
    for key, value in seen.items():
        close(value, debug[key], atol=2e-5)
    close(prediction, debug["gen_prediction"], atol=2e-5)


def test_end_to_end(name):
    """From pictures to pictures, all frames in one batch."""
    io = tensors(f"{name}/io.npz")
    animator = release_animator(name)
    source = animator.encode_source(io["source"])
    frames = animator.drive(source, animator.estimate_motion(io["driving"]))
    close(frames, io["abs_prediction"], atol=1e-4)
