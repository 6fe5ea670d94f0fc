"""FOMM's keypoint detector and Monkey-Net's. Numbers of whole networks are in test_importing.py."""

from dataclasses import replace

import pytest
import torch
from golden import close, document, recipe_weights, tensors

from mtanimate.checkpoints.layouts import computed, from_layout, to_layout
from mtanimate.config import HeatmapEstimatorConfig, load_preset
from mtanimate.models.animator import Animator
from mtanimate.models.keypoint_detector import KeypointDetector
from mtanimate.models.motion import movement_scale, transfer_relative

TINY = HeatmapEstimatorConfig(block_expansion=8, max_features=16, num_blocks=2)


def picture(seed=0):
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("changes", "parameters"),
    [({}, 14_215_368), ({"name": "monkey-net"}, 14_146_728), ({"shared_affine": True}, 14_153_592)],
)
def test_parameters_at_full_size(changes, parameters):
    with torch.device("meta"):
        detector = KeypointDetector(replace(HeatmapEstimatorConfig(), **changes), 10)
    assert sum(parameter.numel() for parameter in detector.parameters()) == parameters


@pytest.mark.parametrize("name", ["fomm", "monkey-net"])
def test_a_new_network_begins_with_the_identity(name):
    motion = KeypointDetector(replace(TINY, name=name), 5).eval()(picture())
    assert motion.keypoints.shape == (2, 5, 2)
    close(motion.affine, torch.eye(2).expand(2, 5, 2, 2))
    assert motion.kind == "parts"


@pytest.mark.parametrize("padding", [0, 3])
def test_a_keypoint_is_where_its_heat_map_is(padding):
    """The rim of a map without padding, too, lies on -1 and 1."""
    detector = KeypointDetector(replace(TINY, padding=padding), 2).eval()

    class Corners(torch.nn.Module):
        def forward(self, features):
            size = features.shape[2] - 6 + 2 * padding
            logits = torch.zeros(len(features), 2, size, size)
            logits[:, 0, 0, -1] = logits[:, 1, -1, 0] = 100
            return logits

    detector.heatmap_head = Corners()
    close(detector(picture()).keypoints[0], torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))


def test_temperature_sharpens():
    detector = KeypointDetector(TINY, 5).eval()
    features, heatmaps, _ = detector.detect(picture())
    logits = detector.heatmap_head(features)
    close(heatmaps.log(), logits / 0.1 - (logits / 0.1).logsumexp(dim=(2, 3), keepdim=True), atol=1e-4)
    detector.config = replace(TINY, temperature=0.01)
    assert (detector.detect(picture())[1].amax(dim=(2, 3)) > heatmaps.amax(dim=(2, 3))).all()


def test_matrices_are_averages_by_the_heat_map():
    detector = KeypointDetector(TINY, 3).eval()
    torch.nn.init.normal_(detector.affine_head.weight, std=0.1)
    image = picture()
    features, heatmaps, _ = detector.detect(image)
    maps = detector.affine_head(features)
    wanted = torch.zeros(2, 3, 4)
    for batch in range(2):
        for part in range(3):
            for entry in range(4):
                wanted[batch, part, entry] = (heatmaps[batch, part] * maps[batch, 4 * part + entry]).sum()
    close(detector(image).affine, wanted.view(2, 3, 2, 2))


def test_one_set_of_maps_serves_all_parts():
    detector = KeypointDetector(replace(TINY, shared_affine=True), 3).eval()
    assert detector.affine_head.out_channels == 4
    assert detector(picture()).affine.shape == (2, 3, 2, 2)


def test_the_full_size_network():
    """`fomm_full_recipe`: one frame, relative, scale adapted, by weights that are a formula of their names."""
    about, io = document("fomm_full_recipe.json"), tensors("fomm_full_recipe.npz")
    model = load_preset("fomm").model
    animator = Animator(model)
    theirs = to_layout(animator.state_dict(), "fomm")
    weights = {}
    for part in ("generator", "kp_detector"):
        shapes = {k.removeprefix(f"{part}."): t.shape for k, t in theirs.items() if k.startswith(f"{part}.")}
        drawn = recipe_weights(shapes, part, *(about[f"recipe_{name}"] for name in ("seed", "gain", "overrides")))
        weights |= {f"{part}.{name}": tensor for name, tensor in drawn.items()}
    assert computed(model, "fomm").keys() & weights.keys() == set()
    animator.load_state_dict(from_layout(weights, animator.state_dict(), "fomm"))
    animator.eval().requires_grad_(False)
    source, driving = animator.estimate_motion(io["source"]), animator.estimate_motion(io["driving"])
    close(source.keypoints, io["kp_source_value"])
    close(source.affine, io["kp_source_jacobian"])
    close(driving.keypoints, io["kp_driving_value"])
    moved = transfer_relative(source, driving[1:2], driving[:1], movement_scale(source, driving[:1]))
    close(moved.keypoints, io["kp_reladapt_value"])
    rendering = animator.render(animator.encode_source(io["source"], source), moved)
    close(rendering.motion.flow, io["deformation"], atol=1e-4)
    close(rendering.motion.occlusion, io["occlusion_map"], atol=1e-4)
    close(rendering.motion.masks.mean(dim=(2, 3)).squeeze(), io["mask_mean_per_channel"].squeeze(), atol=1e-5)
    close(rendering.prediction, io["prediction"], atol=1e-4)
