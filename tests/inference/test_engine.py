"""The engine computes what the network computes, in less arithmetic."""

import copy
import json
import time
from dataclasses import replace

import pytest
import torch
from foreign import FOMM, RELEASE, TPSMM
from golden import close
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import MODEL, tiny_animator
from torch import nn
from torch.nn import functional as F

from mtanimate.config import BackgroundConfig, load_preset
from mtanimate.inference import engine
from mtanimate.inference.engine import fastest_precision, fold_batch_norms, prepare
from mtanimate.inference.fast_convolutions import FewOutputsConv, UpsampledConv, WinogradConv
from mtanimate.models.animator import Animator
from mtanimate.models.face_points import COUNT, canonical_points
from mtanimate.models.motion import Motion

NETWORKS = {
    "paper": MODEL,
    "release": RELEASE,
    "fomm": FOMM,
    "no occlusion": replace(FOMM, dense_motion=replace(FOMM.dense_motion, occlusion=False)),
    "heads as large as the picture": replace(FOMM, estimator=replace(FOMM.estimator, padding=3)),
    "tpsmm": TPSMM,
    "several maps of occlusion": replace(
        MODEL,
        dense_motion=replace(MODEL.dense_motion, multi_occlusion=True),
        generator=replace(MODEL.generator, num_down_blocks=3),
    ),
    "background": replace(MODEL, background=BackgroundConfig(4, 8, 2)),
    "small": replace(load_preset("small").model, resolution=128),
    "face": replace(load_preset("face").model, resolution=128),
}


def network(name):
    torch.manual_seed(0)
    animator = Animator(NETWORKS[name])
    for key, buffer in animator.named_buffers():
        if key.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
    return animator.eval().requires_grad_(False)


def driven(animator, side=64):
    pictures = torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(1))
    source = animator.encode_source(pictures[:1])
    background = animator.predict_background(pictures[:1], pictures)
    rendering = animator.render(source, animator.estimate_motion(pictures), background)
    return rendering.prediction, rendering.motion.flow


@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_pictures(name):
    animator = network(name)
    side = 128 if name in ("small", "face") else 64
    with torch.inference_mode():
        exact = driven(animator, side)
        names = {type(module).__name__ for module in prepare(animator, "fp32").modules()}
        fast = driven(animator, side)
    assert "UpBlock" not in names
    assert {"WinogradConv", "UpsampledConv", "FewOutputsConv"} <= names
    for one, other in zip(fast, exact, strict=True):
        close(one, other, atol=2e-5)


def test_preparing_again_changes_nothing():
    animator = prepare(network("paper"), "fp32")
    again = prepare(animator, "fp32")
    assert again is animator
    with torch.inference_mode():
        close(driven(again)[0], driven(prepare(network("paper"), "fp32"))[0], atol=0, rtol=0)


def test_half_precision_leaves_the_network_alone():
    animator = network("paper")
    before = copy.deepcopy(animator.state_dict())
    half = prepare(animator, "bf16")
    assert half is not animator
    assert half.generator.first.conv.weight.dtype == torch.bfloat16
    after = animator.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_no_batch_norm_is_left_that_could_be_folded():
    animator = fold_batch_norms(network("release"))
    left = [name for name, module in animator.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(name.endswith("norm1") for name in left)
    assert len(left) == NETWORKS["release"].generator.num_bottleneck_blocks


# Convolutions, at every size


def conv(inputs, outputs, size, bias):
    torch.manual_seed(inputs + outputs)
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=bias).requires_grad_(False)


def picture(channels, height, width):
    return torch.randn(2, channels, height, width, generator=torch.Generator().manual_seed(height + width))


SIZES = {"height": st.integers(1, 19), "width": st.integers(1, 19), "bias": st.booleans()}


@settings(deadline=None, max_examples=40)
@given(**SIZES)
def test_winograd(height, width, bias):
    plain, x = conv(6, 5, 3, bias), picture(6, height, width)
    close(WinogradConv(plain)(x), plain(x), atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(**SIZES)
def test_upsampled(height, width, bias):
    plain, x = conv(6, 5, 3, bias), picture(6, height, width)
    close(UpsampledConv(plain)(x), plain(F.interpolate(x, scale_factor=2.0, mode="nearest")), atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(**SIZES)
def test_few_outputs(height, width, bias):
    plain, x = conv(4, 3, 7, bias), picture(4, height, width)
    close(FewOutputsConv(plain)(x), plain(x), atol=1e-5)


def test_winograd_is_exact_enough_with_many_channels():
    """Its transforms magnify rounding: by a factor of ten at 256 channels, far below what a picture shows."""
    plain, x = conv(256, 256, 3, True), picture(256, 16, 16)
    exact = plain.double()(x.double())
    error = (WinogradConv(plain.float())(x).double() - exact).abs().max() / exact.abs().max()
    assert error < 1e-4


# --precision auto


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """The machine says that it has bf16; how long each precision takes is made up."""
    monkeypatch.setenv("MTANIMATE_CACHE", str(tmp_path))
    monkeypatch.setattr(engine, "has_bf16", lambda device: True)
    calls = []

    def measure(bf16, noise=0.0):
        def drive(animator, precision):
            calls.append(precision)
            result = torch.full((2, 3, 8, 8), 0.5)
            return (result + noise, bf16) if precision == "bf16" else (result, 1.0)

        monkeypatch.setattr(engine, "_drive", drive)
        return calls

    return measure


@pytest.mark.parametrize(("bf16", "noise", "chosen"), [(0.6, 1e-3, "bf16"), (0.95, 1e-3, "fp32"), (0.6, 0.1, "fp32")])
def test_auto_is_what_is_faster_and_good(measured, bf16, noise, chosen):
    calls, said = measured(bf16, noise), []
    assert fastest_precision(tiny_animator().eval(), "abc", said.append) == chosen
    assert f"--precision auto is {chosen}" in said[0]
    before = len(calls)
    assert fastest_precision(tiny_animator().eval(), "abc", said.append) == chosen
    assert len(calls) == before  # once
    assert len(said) == 1


@pytest.mark.parametrize("bf16", [0.6, 1.2])
def test_a_busy_machine_does_not_change_what_is_faster(bf16, measured, monkeypatch):
    """Other work makes either precision up to eight times slower, for a while, and once in the middle of a pair."""
    calls = measured(bf16)
    drive = engine._drive
    load = [1, 1, 8, 8, 1, 1, 1, 8, 3, 3, 5, 5]

    def busy(animator, precision):
        result, seconds = drive(animator, precision)
        return result, seconds * load[len(calls) - 1]

    monkeypatch.setattr(engine, "_drive", busy)
    assert fastest_precision(tiny_animator().eval(), "abc", print) == ("bf16" if bf16 < 1 else "fp32")
    assert len(calls) == len(load)


def test_other_weights_are_measured_anew(measured):
    """Of one architecture, too: how far half precision is off depends on them."""
    measured(0.5)
    assert fastest_precision(tiny_animator().eval(), "abc", print) == "bf16"
    measured(0.5, noise=0.1)
    assert fastest_precision(tiny_animator(1).eval(), "def", print) == "fp32"
    assert fastest_precision(tiny_animator().eval(), "abc", pytest.fail) == "bf16"


def test_a_measurement_expires(measured, monkeypatch, tmp_path):
    calls, now = measured(0.5), time.time()
    monkeypatch.setattr(engine.time, "time", lambda: now)
    fastest_precision(tiny_animator().eval(), "abc", print)
    once = len(calls)
    for days, again in ((29, False), (31, True), (31 + 29, False)):
        monkeypatch.setattr(engine.time, "time", lambda days=days: now + days * 24 * 3600)
        said = []
        fastest_precision(tiny_animator().eval(), "abc", said.append)
        assert bool(said) == again
    assert len(calls) == 2 * once
    assert len(json.loads((tmp_path / "precision.json").read_text())) == 1


@pytest.mark.parametrize("content", ["[", "[]", '{"a": "bf16"}', '{"a": {"measured": "soon"}}', '{"a": null}'])
def test_a_damaged_cache_or_an_older_versions(content, measured, tmp_path):
    measured(0.5)
    (tmp_path / "precision.json").write_text(content)
    assert fastest_precision(tiny_animator().eval(), "abc", print) == "bf16"
    assert fastest_precision(tiny_animator().eval(), "abc", pytest.fail) == "bf16"


def test_an_unwritable_cache(measured, tmp_path, monkeypatch):
    measured(0.5)
    (tmp_path / "file").write_text("")
    said = []
    monkeypatch.setenv("MTANIMATE_CACHE", str(tmp_path / "file"))
    assert fastest_precision(tiny_animator().eval(), "abc", said.append) == "bf16"
    assert "could not be kept" in said[1]


def test_a_real_measurement_leaves_the_network_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setenv("MTANIMATE_CACHE", str(tmp_path))
    monkeypatch.setattr(engine, "has_bf16", lambda device: True)
    animator = tiny_animator().eval()
    before = copy.deepcopy(animator.state_dict())
    assert fastest_precision(animator, "abc", print) in ("bf16", "fp32")
    assert all(torch.equal(tensor, animator.state_dict()[name]) for name, tensor in before.items())


def test_without_bf16_nothing_is_measured(monkeypatch):
    monkeypatch.setattr(engine, "has_bf16", lambda device: False)
    monkeypatch.setattr(engine, "_drive", None)
    assert fastest_precision(tiny_animator().eval(), "abc", print) == "fp32"


def test_half_precision_does_not_move_a_face():
    """What reads coordinates stays in float32: the flow of a face is what it was to a twentieth of a pixel."""
    torch.manual_seed(0)
    animator = Animator(replace(load_preset("face").model, resolution=128)).eval().requires_grad_(False)
    torch.nn.init.normal_(animator.dense_motion.expression2.weight, std=0.1)
    pictures = torch.rand(2, 3, 128, 128)
    source = torch.tensor([[0.1, 0.0]]) + 0.5 * canonical_points()
    matrix = 0.5 * torch.eye(2).expand(1, COUNT, 2, 2)
    motions = [Motion(points[None], matrix, "face") for points in (source, source + 0.02 * torch.randn(COUNT, 2))]
    flows = []
    for precision in ("fp32", "bf16"):
        ready = prepare(copy.deepcopy(animator), precision)
        with torch.inference_mode(), engine.autocast(torch.device("cpu"), precision):
            encoded = ready.encode_source(pictures[:1], motions[0])
            flows.append(ready.render(encoded, motions[1]).motion.flow.float())
    assert (flows[0] - flows[1]).abs().max() * 128 / 2 < 0.05
