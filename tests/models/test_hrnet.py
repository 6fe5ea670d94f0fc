"""The backbone: layouts, numbers of timm's HRNet, and its fusion written out."""

import pytest
import torch
from golden import close, document, fixture, recipe_weights, tensors
from safetensors.torch import load_file
from torch.nn import functional as F

from mtanimate.config import BACKBONES, HRNetConfig
from mtanimate.errors import InputError
from mtanimate.models.hrnet import HighResolutionModule, HRNet, load_imagenet_weights

TINY = HRNetConfig(
    widths=(4, 8, 16),
    stem_width=16,
    layer1_width=4,
    layer1_blocks=2,
    stage2_blocks=(2, 2),
    stage3_modules=2,
    stage3_blocks=(2, 2, 2),
)


def randomise(module, seed=0):
    """Norm statistics and weights far from their start, so that nothing cancels."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=generator)
            tensor.copy_(torch.exp(0.3 * noise) if name.endswith("running_var") else 0.3 * noise)
    return module.eval().requires_grad_(False)


def batch_norm(x, state, name):
    keys = ("running_mean", "running_var", "weight", "bias")
    mean, variance, weight, bias = (state[f"{name}.{key}"].view(1, -1, 1, 1) for key in keys)
    return (x - mean) / torch.sqrt(variance + 1e-5) * weight + bias


@pytest.mark.parametrize(
    ("backbone", "count"), [("hrnet_w32", 7_685_632), ("hrnet_w48", 16_705_824), ("stem", 325_056)]
)
def test_parameter_counts(backbone, count):
    with torch.device("meta"):
        network = HRNet(BACKBONES[backbone])
    assert sum(parameter.numel() for parameter in network.parameters()) == count


@pytest.mark.parametrize(("backbone", "channels"), [("hrnet_w32", 32), ("hrnet_w48", 48), ("stem", 256)])
def test_output_is_a_quarter_of_the_size(backbone, channels):
    with torch.device("meta"):
        network = HRNet(BACKBONES[backbone])
    features = network(torch.empty(2, 3, 64, 96, device="meta"))
    assert network.out_channels == channels
    assert features.shape == (2, channels, 16, 24)


def test_fusion_written_out():
    """Each output: ReLU of the sum of all branches, brought to its size and width."""
    module = randomise(HighResolutionModule((2, 3, 4), (1, 2, 1), outputs=3))
    state = module.state_dict()
    generator = torch.Generator().manual_seed(1)
    shapes = [(2, 2, 16, 24), (2, 3, 8, 12), (2, 4, 4, 6)]
    inputs = [torch.randn(shape, generator=generator) for shape in shapes]

    def conv_norm(x, conv, norm, **options):
        return batch_norm(F.conv2d(x, state[f"{conv}.weight"], **options), state, norm)

    branches = []
    for b, count in enumerate((1, 2, 1)):
        x = inputs[b]
        for k in range(count):
            prefix = f"branches.{b}.{k}"
            y = F.relu(conv_norm(x, f"{prefix}.conv1", f"{prefix}.bn1", padding=1))
            x = F.relu(conv_norm(y, f"{prefix}.conv2", f"{prefix}.bn2", padding=1) + x)
        branches.append(x)

    def path(i, j):
        x, prefix = branches[j], f"fuse_layers.{i}.{j}"
        if j > i:
            x = conv_norm(x, f"{prefix}.0", f"{prefix}.1")
            return x.repeat_interleave(2 ** (j - i), dim=2).repeat_interleave(2 ** (j - i), dim=3)
        for step in range(i - j):
            x = conv_norm(x, f"{prefix}.{step}.0", f"{prefix}.{step}.1", stride=2, padding=1)
            x = F.relu(x) if step < i - j - 1 else x
        return x

    outputs = module(inputs)
    assert len(outputs) == 3
    for i, output in enumerate(outputs):
        close(output, F.relu(path(i, 0) + path(i, 1) + path(i, 2)), atol=1e-5, rtol=1e-4)


def test_last_module_has_the_highest_resolution_only():
    names = HRNet(TINY).state_dict()
    assert any(name.startswith("stage3.0.fuse_layers.2") for name in names)
    assert any(name.startswith("stage3.1.fuse_layers.0.2") for name in names)
    assert not any(name.startswith(("stage3.1.fuse_layers.1", "stage3.1.fuse_layers.2")) for name in names)


def test_imagenet_weights_load_and_what_lies_beyond_is_left_aside():
    state = randomise(HRNet(TINY), seed=5).state_dict()
    network = HRNet(TINY)
    load_imagenet_weights(network, {**state, "stage4.0.branches.0.0.conv1.weight": torch.zeros(1)})
    assert network.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_imagenet_weights_with_a_hole_are_refused():
    state = dict(HRNet(TINY).state_dict())
    del state["stage2.0.branches.1.0.bn2.running_var"]
    with pytest.raises(InputError, match=r"stage2\.0\.branches\.1\.0\.bn2\.running_var is missing"):
        load_imagenet_weights(HRNet(TINY), state)


def test_imagenet_weights_of_another_width_are_refused():
    with pytest.raises(InputError, match=r"conv1\.weight is missing or has another shape"):
        load_imagenet_weights(HRNet(TINY), HRNet(HRNetConfig(widths=(8, 16, 32))).state_dict())


@pytest.mark.parametrize("width", ["w32", "w48"])
def test_names_and_shapes_are_those_of_timm(width):
    """All but the last module's fusion into the two lower resolutions."""
    layout = document(f"hrnet_{width}_layout.json")["state_dict"]
    theirs = {name: tuple(entry["shape"]) for name, entry in layout.items()}
    with torch.device("meta"):
        network = HRNet(BACKBONES[f"hrnet_{width}"])
    ours = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    unused = ("stage3.3.fuse_layers.1.", "stage3.3.fuse_layers.2.")
    assert ours == {name: shape for name, shape in theirs.items() if not name.startswith(unused)}
    assert any(name.startswith(unused[0]) for name in theirs)


def test_tiny_trunk_stage_by_stage():
    arrays = tensors("hrnet_tiny.npz")
    network = HRNet(TINY).eval().requires_grad_(False)
    load_imagenet_weights(network, load_file(fixture("hrnet_tiny.safetensors")))
    seen = {}
    modules = {
        "stem1": network.bn1,
        "stem2": network.bn2,
        "layer1": network.layer1,
        "transition1_0": network.transition1[0],
        "transition1_1": network.transition1[1],
        "stage2": network.stage2[0],
        "transition2_2": network.transition2[2],
    }
    for key, module in modules.items():
        module.register_forward_hook(lambda _m, _i, out, key=key: seen.__setitem__(key, out))
    seen["stage3_0"] = network(arrays["input"])
    seen["stage2_0"], seen["stage2_1"] = seen.pop("stage2")
    seen["stem1"], seen["stem2"] = F.relu(seen["stem1"]), F.relu(seen["stem2"])
    assert seen.keys() == arrays.keys() - {"input", "stage3_1", "stage3_2"}
    for key, value in seen.items():
        close(value, arrays[key], atol=2e-5, rtol=0)


def test_full_width_trunk():
    recipe, arrays = document("hrnet_w32_recipe.json"), tensors("hrnet_w32_recipe.npz")
    network = HRNet(BACKBONES["hrnet_w32"])
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    shapes["stage3.3.fuse_layers.2.1.0.1.bias"] = (128,)
    state = recipe_weights(
        shapes,
        recipe["recipe_prefix"],
        recipe["recipe_seed"],
        recipe["recipe_gain"],
        recipe["recipe_overrides"],
    )
    for name, first in recipe["examples_first_values"].items():
        close(state[name].flatten()[:3], torch.tensor(first), atol=0, rtol=1e-6)
    load_imagenet_weights(network, state)
    seen = {}
    network.layer1.register_forward_hook(lambda _m, _i, out: seen.__setitem__("layer1", out))
    network.stage2[0].register_forward_hook(lambda _m, _i, out: seen.__setitem__("stage2", out))
    with torch.no_grad():
        close(network.eval()(arrays["input"]), arrays["stage3_0"], atol=1e-4, rtol=0)
    for key, value in (("layer1", seen["layer1"]), ("stage2_1", seen["stage2"][1])):
        statistics = torch.stack([value.mean(), value.std(correction=0)])
        close(statistics, arrays[f"{key}_mean_std"], atol=1e-5)
