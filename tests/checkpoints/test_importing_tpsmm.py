"""TPSMM's checkpoints: recognised, measured, refused in one line, or ours, to the bit."""

import os
from dataclasses import replace

import pytest
import torch
from foreign import TPSMM, checkpoint, described, refused, weights, write
from golden import checkpoint_file, close, document, fixture, tensors
from tpsmm_networks import SMALL, recipe, write_small

from mtanimate.checkpoints import conversion
from mtanimate.checkpoints.conversion import export_checkpoint, import_checkpoint
from mtanimate.checkpoints.file import read_checkpoint
from mtanimate.checkpoints.fitting import unfit
from mtanimate.config import BackgroundConfig, ModelConfig, load_preset
from mtanimate.models.tpsmm import spline_motion

CODES = {"identity_width": 0, "pose_width": 0}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The user's cache: an empty folder."""
    monkeypatch.setenv("MTANIMATE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("name", SMALL)
def test_a_fixture_is_read_gives_its_tools_numbers_and_comes_back_to_the_bit(name, tmp_path):
    path = write_small(tmp_path, name)
    imported = import_checkpoint(path, "mine", str(fixture(f"{name}/config.yaml")))
    assert imported.config == replace(SMALL[name], resolution=256)  # its configuration has no size
    assert imported.left_out == ["optimizer"]
    io, animator = tensors(f"{name}/io.npz"), read_checkpoint(imported.file).animator
    encoded = animator.encode_source(io["source"], spline_motion(io["kp_source"]))
    driven = animator.drive(encoded, spline_motion(io["kp_driving"]))
    close(driven, io["abs_prediction"], atol=document(f"{name}/info.json")["suggested_atol_float32"]["abs_prediction"])
    exported = export_checkpoint("mine", "tpsmm", tmp_path / "back.pth.tar")
    mine, theirs = weights(exported.file), weights(path)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(tensor, mine[key]) and tensor.dtype == mine[key].dtype for key, tensor in theirs.items())
    assert torch.load(exported.file, weights_only=True)["epoch"] == 99
    assert import_checkpoint(exported.file, "again", str(exported.configuration)).config == imported.config


@pytest.mark.parametrize("name", SMALL)
def test_the_fixtures_own_file_has_the_formulas_weights(name):
    theirs = weights(checkpoint_file(name))
    mine = recipe(SMALL[name], document(f"{name}/info.json"))
    own = {key: tensor for key, tensor in theirs.items() if not key.endswith("down.weight")}
    assert own.keys() == {key for key in mine if not key.startswith("kp_detector.")}
    assert all(torch.equal(tensor, mine[key]) for key, tensor in own.items())
    assert "without its keypoint detector" in refused(checkpoint_file(name))


def test_the_full_size_layout(tmp_path, monkeypatch):
    """No entry is missing and none is left over; the file's name says which published checkpoint it is."""
    monkeypatch.setattr(conversion, "_try", lambda path, animator: None)  # test_tpsmm.py runs it at full size
    layout = document("tpsmm_vox_layout.json")
    content = {part: described(entries, seed) for seed, (part, entries) in enumerate(layout.items())}
    torch.save(content | {"optimizer_avd": {}}, tmp_path / "vox.pth.tar")
    imported = import_checkpoint(tmp_path / "vox.pth.tar")
    assert imported.name == "tpsmm-vox"
    wanted = load_preset("tpsmm").model
    assert imported.config == replace(wanted, estimator=replace(wanted.estimator, identity_width=128, pose_width=128))
    assert imported.parameters == 24_737_283 + 37_941_397 + 11_227_812 + 11_188_998 + 2_583_652
    assert imported.left_out == ["optimizer_avd"]


VARIANTS = {
    "one map of occlusion": replace(TPSMM, dense_motion=replace(TPSMM.dense_motion, multi_occlusion=False)),
    "masks at half size": replace(TPSMM, dense_motion=replace(TPSMM.dense_motion, scale_factor=0.5, num_blocks=3)),
    "no background, shape and pose in one": replace(
        TPSMM, background=None, estimator=replace(TPSMM.estimator, **CODES)
    ),
    "one spline": replace(TPSMM, num_keypoints=5),
    "another size": replace(TPSMM, resolution=128),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_read_off_names_and_shapes(variant, tmp_path):
    path, config = write(tmp_path, "tpsmm", VARIANTS[variant])
    assert import_checkpoint(path, "mine", str(config)).config == VARIANTS[variant]


def test_what_main_training_leaves_out_is_not_missed(tmp_path):
    path, config = write(tmp_path, "tpsmm")
    content = torch.load(path, weights_only=True)
    del content["bg_predictor"], content["avd_network"], content["epoch"]
    torch.save(content, path)
    found = import_checkpoint(path, config=str(config)).config
    assert found == replace(TPSMM, background=None, estimator=replace(TPSMM.estimator, **CODES))


def test_only_its_own_networks_go_into_its_layout():
    full = load_preset("tpsmm").model
    assert unfit(full, "tpsmm") == ""
    assert unfit(load_preset("tpsmm-ted").model, "tpsmm") == ""
    assert "tpsmm" in unfit(full, "fomm")
    assert "tpsmm" in unfit(full, "release")
    assert "motion-transformer" in unfit(ModelConfig(), "tpsmm")
    mixed = replace(load_preset("vox-release").model, background=BackgroundConfig(resnet=True))
    assert "background" in unfit(mixed, "release")
    several = replace(load_preset("fomm").model.dense_motion, multi_occlusion=True)
    assert "multi_occlusion" in unfit(replace(load_preset("fomm").model, dense_motion=several), "fomm")
    assert "full width" in unfit(TPSMM, "tpsmm")
    assert "generator" in unfit(replace(full, generator=load_preset("small").model.generator), "tpsmm")
    assert "black_outside" in unfit(
        replace(full, dense_motion=replace(full.dense_motion, black_outside=False)), "tpsmm"
    )


# Files that are damaged, or traps


def test_a_pickle_that_would_run_something_is_refused_by_name(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    for legacy in (False, True):
        path = tmp_path / "x.pth"
        torch.save(checkpoint(TPSMM, "tpsmm") | {"best": Trap()}, path, _use_new_zipfile_serialization=not legacy)
        assert "mkdir" in refused(path)
    assert not (tmp_path / "ran").exists()


CHANGES = {
    "dense_motion_network.maps.weight": torch.zeros(8, 27, 7, 7),  # of other splines than the keypoints are
    "kp_detector.fg_encoder.layer3.0.conv1.weight": torch.zeros(3, 3, 3, 3),
    "avd_network.decoder.9.bias": torch.zeros(3),
    "inpainting_network.resblock.5.conv1.weight": None,
    "dense_motion_network.up.0.conv.weight": None,
    "bg_predictor.bg_encoder.fc.weight": torch.full((6, 32), float("nan")),
    "kp_detector.fg_encoder.bn1.running_var": torch.full((4,), -1.0),  # gives values that are not finite
    "kp_detector.spare": torch.zeros(2),
}


@pytest.mark.parametrize("entry", CHANGES)
def test_what_does_not_fit_is_named(entry, tmp_path, cache):
    path, config = write(tmp_path, "tpsmm")
    content = torch.load(path, weights_only=True)
    part, _, name = entry.partition(".")
    if CHANGES[entry] is None:
        del content[part][name]
    else:
        content[part][name] = CHANGES[entry]
    torch.save(content, path)
    message = refused(path, config=str(config))
    assert entry in message or "not finite" in message
    assert not (cache / "checkpoints").exists()
