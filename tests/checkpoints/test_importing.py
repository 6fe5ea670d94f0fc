"""Checkpoints of other tools: recognised, measured, refused in one line, or ours, to the bit."""

import io
import json
import os
import tarfile
import zipfile
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from foreign import FOMM, MODELS, RELEASE, checkpoint, described, refused, weights, write
from golden import checkpoint_file, close, document, fixture, release_checkpoint, tensors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from mtanimate.checkpoints import conversion
from mtanimate.checkpoints.conversion import export_checkpoint, import_checkpoint
from mtanimate.checkpoints.file import read_checkpoint, read_metadata, write_checkpoint
from mtanimate.checkpoints.layouts import PARTS
from mtanimate.checkpoints.pickles import read_pickle
from mtanimate.config import Config, HeatmapEstimatorConfig, load_preset
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.models.animator import Animator
from mtanimate.models.motion import Motion, movement_scale, transfer_relative

OTHERS = ["fomm", "tpsmm"]  # layouts of other tools
SMALL = ["fomm_small", "fomm_small_nojac", "fomm_small_singlejac", "mtia_small", "mtia_small_noskip"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The user's cache: an empty folder."""
    monkeypatch.setenv("MTANIMATE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype, name
        assert torch.equal(tensor, other[name]), name


# The fixtures, imported from the files as they are


def imported_fixture(name):
    return import_checkpoint(checkpoint_file(name), name, str(fixture(f"{name}/config.yaml")))


def motion(io, name):
    keypoints = io[f"kp_{name}_value"]
    affine = io.get(f"kp_{name}_jacobian", torch.eye(2).expand(*keypoints.shape[:2], 2, 2))
    return Motion(keypoints, affine)


@pytest.mark.parametrize("name", SMALL)
def test_an_imported_fixture_gives_the_numbers_of_its_own_tool(name):
    imported = imported_fixture(name)
    animator = read_checkpoint(imported.file).animator
    io = tensors(f"{name}/io.npz")
    source, driving = animator.estimate_motion(io["source"]), animator.estimate_motion(io["driving"])
    for found, wanted in ((source, motion(io, "source")), (driving, motion(io, "driving"))):
        close(found.keypoints, wanted.keypoints)
        close(found.affine, wanted.affine)
    scale = movement_scale(source, driving[:1])
    close(transfer_relative(source, driving, driving[:1]).keypoints, motion(io, "rel").keypoints)
    relative = transfer_relative(source, driving, driving[:1], scale)
    close(relative.keypoints, motion(io, "reladapt").keypoints)
    if "kp_reladapt_jacobian" in io:
        close(relative.affine, io["kp_reladapt_jacobian"], atol=2e-5)
    encoded = animator.encode_source(io["source"])
    background = animator.predict_background(io["source"], io["driving"])
    assert (background is None) == ("bg_params" not in io)
    for mode, moved in (("abs", driving), ("reladapt", relative)):
        check_rendering(io, mode, animator.render(encoded, moved), encoded)
        if background is not None:
            close(background, io["bg_params"])
            check_rendering(io, f"{mode}_bg", animator.render(encoded, moved, background), encoded)


def check_rendering(io, mode, rendering, encoded):
    """Both sheets' tolerances end to end: 1e-5 (FOMM's: up to 2e-5) for maps, 1e-4 for the release's pictures."""
    close(rendering.motion.masks, io[f"{mode}_mask"], atol=2e-5)
    close(rendering.motion.flow, io[f"{mode}_deformation"], atol=2e-5)
    if f"{mode}_occlusion_map" in io:
        close(rendering.motion.occlusion, io[f"{mode}_occlusion_map"], atol=2e-5)
    else:
        assert rendering.motion.occlusion is None
    close(rendering.prediction, io[f"{mode}_prediction"], atol=1e-4)


@pytest.mark.parametrize("name", ["fomm_small", "fomm_small_nojac", "fomm_small_singlejac"])
def test_fomms_pictures_are_within_its_own_tolerance(name):
    imported = imported_fixture(name)
    animator = read_checkpoint(imported.file).animator
    io, tolerances = tensors(f"{name}/io.npz"), document(f"{name}/tolerances.json")
    encoded = animator.encode_source(io["source"])
    driven = animator.drive(encoded, animator.estimate_motion(io["driving"]))
    atol = tolerances["suggested_atol_float32"]["abs_prediction"]
    torch.testing.assert_close(driven, io["abs_prediction"], atol=atol, rtol=0)


@pytest.mark.parametrize("name", ["fomm_small", "fomm_small_nojac", "fomm_small_singlejac"])
def test_in_float64_fomm_is_reproduced_to_the_last_digits(name):
    """What float32 hides, such as another epsilon in a norm, shows here."""
    imported = imported_fixture(name)
    animator = read_checkpoint(imported.file).animator.double()
    io, exact = tensors(f"{name}/io.npz"), tensors(f"{name}/io64.npz")
    frames = [int(frame) for frame in exact["frames"]]
    driving = animator.estimate_motion(io["driving"].double())
    close(driving.keypoints, exact["kp_driving_value"], atol=1e-9)
    encoded = animator.encode_source(io["source"].double())
    close(animator.drive(encoded, driving[frames]), exact["abs_prediction"], atol=1e-9)


@pytest.mark.parametrize("name", SMALL)
def test_a_fixture_comes_back_to_the_bit(name, tmp_path):
    imported = imported_fixture(name)
    exported = export_checkpoint(name, imported.layout, tmp_path / "back.pth.tar")
    assert_same(weights(exported.file), weights(checkpoint_file(name)))
    assert torch.load(exported.file, weights_only=True)["epoch"] == release_checkpoint(name)["epoch"]


# Full-size layouts, with random weights


def full_size(folder, name, parts):
    path = folder / name
    torch.save({part: described(entries, seed) for seed, (part, entries) in enumerate(parts.items())}, path)
    return path


@pytest.fixture
def without_a_try(monkeypatch):
    """Networks of full size are not run, which takes seconds; test_import_command.py has one that is."""
    monkeypatch.setattr(conversion, "_try", lambda path, animator: None)


@pytest.mark.usefixtures("without_a_try")
@pytest.mark.parametrize("name", ["vox-adv-cpk.pth.tar", "mgif-cpk.pth.tar"])  # vox-cpk's is in test_import_command.py
def test_the_full_size_layouts_of_fomm(name, tmp_path):
    layout = document("fomm_vox_layout.json")
    parts = {
        part: {key: (e["dtype"], e["shape"]) for key, e in layout[part].items()}
        for part in ("generator", "kp_detector")
    }
    kind = next(
        key for key in layout if key.startswith("discriminator (vox-adv" if "adv" in name else "discriminator (vox-256")
    )
    parts["discriminator"] = {key: (e["dtype"], e["shape"]) for key, e in layout[kind].items()}
    if "mgif" in name:
        single = layout["mgif-256 (single_jacobian_map) kp_detector differences"]
        parts["kp_detector"] |= {key: (e["dtype"], e["shape"]) for key, e in single.items()}
    imported = import_checkpoint(full_size(tmp_path, name, parts))
    assert imported.config == replace(
        load_preset("fomm").model, estimator=HeatmapEstimatorConfig(shared_affine="mgif" in name)
    )
    assert imported.left_out == ["discriminator"]
    assert imported.parameters == 45_575_391 + (14_215_368 if "mgif" not in name else 14_215_368 - 36 * (35 * 49 + 1))


@pytest.mark.usefixtures("without_a_try")
@pytest.mark.parametrize(
    ("name", "config", "preset"),
    [
        ("voxceleb", "voxceleb1", "vox-release"),  # as mgif's
        ("taichi", "taichi256", "taichi-release"),
        ("ted384", "ted384", "ted-release"),
    ],
)
def test_the_full_size_layouts_of_the_release(name, config, preset, tmp_path):
    layout = document("mtia_release_layout.json")
    parts = {part: layout["layouts"][stored] for part, stored in layout["configs"][config]["parts"].items()}
    imported = import_checkpoint(full_size(tmp_path, f"{name}.pth.tar", parts))
    assert imported.name == name
    assert imported.config == load_preset(preset).model
    background = 6_282_438 if "bg_predictor" in parts else 0
    assert imported.parameters == 45_575_391 + 12_234_310 + background


# Published names, configuration files, or a question


@pytest.mark.parametrize("layout", list(MODELS))
def test_what_shapes_do_not_show_is_asked_for(layout, tmp_path):
    path, config = write(tmp_path, layout)
    asked = refused(path)
    assert "--config" in asked
    assert {"fomm": "temperature", "release": "heads", "tpsmm": "resolution"}[layout] in asked
    imported = import_checkpoint(path, config=str(config))
    assert imported.config == MODELS[layout]
    assert imported.name == "theirs"
    assert imported.left_out == ["discriminator", "optimizer_generator"]
    assert imported.about["epoch"] == 7
    read = read_checkpoint(imported.file)
    assert read.config.model == MODELS[layout]
    assert read.about["origin"] == "theirs.pth.tar"
    assert len(read.about["origin_sha256"]) == 64
    assert "ask whoever made it" in read.about["licence"]


VARIANTS = {
    "without a map of occlusion": ("fomm", replace(FOMM, dense_motion=replace(FOMM.dense_motion, occlusion=False))),
    "one set of matrices": ("fomm", replace(FOMM, estimator=replace(FOMM.estimator, shared_affine=True, padding=3))),
    "no matrices": ("fomm", replace(FOMM, estimator=replace(FOMM.estimator, name="monkey-net", temperature=0.3))),
    "no reduction": ("fomm", replace(FOMM, estimator=replace(FOMM.estimator, scale_factor=1.0))),
    "half size masks": ("fomm", replace(FOMM, dense_motion=replace(FOMM.dense_motion, scale_factor=0.5, num_blocks=3))),
    "one part": ("fomm", replace(FOMM, num_keypoints=1)),
    "no blocks between": ("fomm", replace(FOMM, generator=replace(FOMM.generator, num_down_blocks=0))),
    "no background": ("release", replace(RELEASE, background=None)),
    "no skips": ("release", replace(RELEASE, generator=replace(RELEASE.generator, skips=False))),
    "larger patches": ("release", replace(RELEASE, estimator=replace(RELEASE.estimator, patch_size=8))),
    "two heads": ("release", replace(RELEASE, estimator=replace(RELEASE.estimator, heads=2, mlp_ratio=2))),
    "another size": ("release", replace(RELEASE, resolution=128)),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_read_off_names_and_shapes_and_comes_back(variant, tmp_path):
    layout, model = VARIANTS[variant]
    path, config = write(tmp_path, layout, model)
    imported = import_checkpoint(path, "mine", str(config))
    assert imported.config == model
    exported = export_checkpoint("mine", layout, tmp_path / "back.pth")
    assert_same(weights(exported.file), weights(path))
    again = import_checkpoint(exported.file, "again", str(exported.configuration))
    one, other = (read_checkpoint(file).animator.state_dict() for file in (imported.file, again.file))
    assert_same(one, other)


def test_parts_alone_are_enough(tmp_path):
    content = checkpoint(FOMM, "fomm")
    path, config = write(tmp_path, "fomm")
    torch.save({part: content[part] for part in ("kp_detector", "generator")}, path)
    assert import_checkpoint(path, config=str(config)).left_out == []


def test_a_published_background_predictor_may_have_been_left_out(tmp_path):
    path, config = write(tmp_path, "release")
    content = torch.load(path, weights_only=True)
    del content["bg_predictor"]
    torch.save(content, path)
    assert import_checkpoint(path, config=str(config)).config.background is None


@pytest.mark.parametrize("layout", OTHERS)
def test_files_older_than_batch_counters(layout, tmp_path):
    path, config = write(tmp_path, layout)
    content = torch.load(path, weights_only=True)
    for part in content.keys() & PARTS:
        content[part] = {k: t for k, t in content[part].items() if not k.endswith("num_batches_tracked")}
    torch.save(content, path)
    assert import_checkpoint(path, config=str(config)).config == MODELS[layout]


PREFIXES = ["module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod."]


@pytest.mark.parametrize(("layout", "prefix"), [*(("fomm", prefix) for prefix in PREFIXES), ("tpsmm", "module.")])
def test_what_wrappers_put_before_names_is_taken_off(layout, prefix, tmp_path):
    """DataParallel and torch.compile."""
    path, config = write(tmp_path, layout)
    plain = import_checkpoint(path, "plain", str(config))
    content = torch.load(path, weights_only=True)
    wrapped = {part: {f"{prefix}{name}": t for name, t in content[part].items()} for part in PARTS if part in content}
    torch.save(content | wrapped, path)
    imported = import_checkpoint(path, "wrapped", str(config))
    animators = [read_checkpoint(each.file).animator for each in (plain, imported)]
    assert_same(*(animator.state_dict() for animator in animators))


def of_numpy_1(path):
    """Renames what NumPy 2 writes to what NumPy 1 did."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content.replace(b"numpy._core", b"numpy.core"))


@pytest.mark.parametrize("older", [False, True])
def test_numbers_of_numpy_are_read(tmp_path, older):
    path, config = write(tmp_path, "fomm")
    numbers = {
        **{kind: getattr(np, kind)(3) for kind in ("int8", "uint16", "int64", "float16", "float32", "float64")},
        "big": np.array(3, ">f8")[()],
        "bool": np.bool_(True),
    }
    torch.save(torch.load(path, weights_only=True) | {"epoch": np.int64(9), "best": numbers}, path)
    if older:
        of_numpy_1(path)
    content = read_pickle(path)
    assert content["best"] == dict.fromkeys(numbers, 3) | {"bool": True}
    assert all(type(value) in (int, float, bool) for value in content["best"].values())
    assert import_checkpoint(path, "numbers", str(config)).about["epoch"] == 9


@pytest.mark.parametrize("value", [np.array(["text"])[0:1], np.array([print], object), np.array(print, object).dtype])
def test_what_is_no_number_of_numpy_is_refused(tmp_path, value):
    path, config = write(tmp_path, "fomm")
    torch.save(torch.load(path, weights_only=True) | {"best": value}, path)
    message = refused(path, name="other", config=str(config))
    assert "refused" in message
    assert "numpy" in message


def test_safetensors_are_said_to_be_what_they_are(tmp_path):
    """Another tool's can be read by nothing here; ours needs no import."""
    save_file({"weight": torch.zeros(2)}, tmp_path / "theirs.safetensors")
    message = refused(tmp_path / "theirs.safetensors")
    assert "no mtanimate checkpoint" in message
    assert "--checkpoint" not in message
    with pytest.raises(InputError) as caught:
        read_metadata(tmp_path / "theirs.safetensors")
    assert str(caught.value) == message
    write_checkpoint(tmp_path / "ours.safetensors", Animator(FOMM), Config(model=FOMM), {})
    assert "--checkpoint takes it" in refused(tmp_path / "ours.safetensors")


@pytest.mark.parametrize("layout", OTHERS)
def test_the_old_format_of_torch(layout, tmp_path):
    path, config = write(tmp_path, layout)
    torch.save(torch.load(path, weights_only=True), path, _use_new_zipfile_serialization=False)
    assert import_checkpoint(path, config=str(config)).config == MODELS[layout]


def test_another_position_code_is_said_and_kept(tmp_path):
    path, config = write(tmp_path, "release")
    content = torch.load(path, weights_only=True)
    content["kp_detector"]["transformer.pos_embedding"] += 0.5
    torch.save(content, path)
    imported = import_checkpoint(path, "mine", str(config))
    assert "transformer.pos_embedding is not what this network computes" in imported.remarks[0]
    assert_same(weights(export_checkpoint("mine", "release", tmp_path / "b.pth").file), weights(path))


@pytest.mark.parametrize("layout", OTHERS)
def test_a_configuration_of_another_network_is_refused(layout, tmp_path):
    model = MODELS[layout]
    path, _ = write(tmp_path, layout)
    _, other = write(tmp_path, layout, replace(model, num_keypoints=15), name="other.pth")
    message = refused(path, config=str(other))
    assert f"model.num_keypoints is {model.num_keypoints}, not 15" in message


def test_a_published_name_on_another_network_is_refused(tmp_path):
    path, config = write(tmp_path, "fomm", name="vox-cpk.pth.tar")
    assert "another network than the published 'vox-cpk'" in refused(path)
    assert "'vox-cpk' is a published checkpoint's name" in refused(path, config=str(config))
    assert import_checkpoint(path, "mine", str(config)).config == FOMM


def test_a_name_that_another_tool_published_is_its_own(tmp_path):
    """`taichi` is the Motion Transformer authors'; FOMM's own file is called taichi-cpk."""
    path, config = write(tmp_path, "fomm", name="taichi.pth.tar")
    assert "choose another with --name" in refused(path)
    assert import_checkpoint(path, "mine", str(config)).config == FOMM


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"MODEL": {"DATA_PREPROCESS": True}}, "pictures are not normalised here"),
        ({"MODEL": {"FIX_IMG2MOTION_ATTENTION": True}}, "attention is not masked here"),
        ({"MODEL": {"PATCH_SIZE": [4, 2]}}, "patches are square here"),
        ({"MODEL": {"TRANSFORMER_HEADS": "many"}}, "expected a whole number"),
        ({"MODEL": {"TRANSFORMER_HEADS": 3}}, "cannot be shared by 3 heads"),
        ({"model_params": {"common_params": {"num_channels": 1}}}, "three channels"),
    ],
)
def test_what_the_configuration_asks_for_and_is_not_there(change, said, tmp_path):
    path, config = write(tmp_path, "release")
    values = yaml.safe_load(config.read_text())

    def merge(base, changes):
        for key, value in changes.items():
            if isinstance(value, dict):
                merge(base[key], value)
            else:
                base[key] = value

    merge(values, change)
    config.write_text(json.dumps(values))
    assert said in refused(path, config=str(config))


@pytest.mark.parametrize("layout", OTHERS)
@pytest.mark.parametrize("content", ["", "- 1", "a: [", "model_params: 3", "\\x00"])
def test_other_yaml_files(content, layout, tmp_path):
    path, config = write(tmp_path, layout)
    config.write_text(content)
    assert str(config) in refused(path, config=str(config))


# Names


def test_a_name_that_is_taken(tmp_path):
    path, config = write(tmp_path, "fomm")
    import_checkpoint(path, "mine", str(config))
    assert "there is a checkpoint 'mine' already" in refused(path, name="mine", config=str(config))
    import_checkpoint(path, "mine", str(config), overwrite=True)
    assert "ships" in refused(path, name="face-talking-heads", config=str(config), overwrite=True)


def test_the_name_is_the_files(tmp_path):
    path, config = write(tmp_path, "fomm", name="my own (face).PTH.tar")
    assert import_checkpoint(path, config=str(config)).name == "my-own-face"


# Files that are no checkpoint, or damaged, or traps


def test_a_pickle_that_would_run_something_is_refused_by_name(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    for legacy in (False, True):
        torch.save({"generator": Trap()}, tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy)
        assert "mkdir" in refused(tmp_path / "x.pth")
    assert not (tmp_path / "ran").exists()


def repacked(source, target, change, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, change(entry.filename, old.read(entry)))
    return target


@pytest.mark.parametrize("layout", OTHERS)
def test_a_file_that_claims_more_than_it_holds(layout, tmp_path):
    path, _ = write(tmp_path, layout)
    cut = repacked(path, tmp_path / "cut.pth", lambda name, content: content[:8] if "/data/" in name else content)
    assert "cut.pth" in refused(cut)
    last = sorted(zipfile.ZipFile(path).namelist())[-2]
    one = repacked(path, tmp_path / "one.pth", lambda name, content: content[:0] if name == last else content)
    assert "one.pth" in refused(one)
    packed = repacked(
        path,
        tmp_path / "bomb.pth",
        lambda name, content: bytes(10**5) if "/data/" in name else content,
        zipfile.ZIP_DEFLATED,
    )
    assert "more than the file has" in refused(packed)


def test_a_checkpoint_that_was_unpacked(tmp_path):
    path, _ = write(tmp_path, "fomm")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "unpacked")
    assert "folder" in refused(tmp_path / "unpacked")
    with tarfile.open(tmp_path / "again.pth.tar", "w") as tar:
        tar.add(tmp_path / "unpacked", "archive")
    assert "tar archive" in refused(tmp_path / "again.pth.tar")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"noise" * 99, "no checkpoint"),
        (b"torch.float32", "no checkpoint"),
    ],
)
def test_other_files(content, said, tmp_path):
    (tmp_path / "x.pth").write_bytes(content)
    assert said in refused(tmp_path / "x.pth")


def test_an_archive_of_photos(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("a.jpg", b"x")
    assert "no data.pkl" in refused(tmp_path / "x.pth")


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {"state_dict": {"a": torch.zeros(3)}}, {}])
def test_other_contents(content, tmp_path):
    torch.save(content, tmp_path / "x.pth")
    message = refused(tmp_path / "x.pth")
    assert "unknown network" in message or "holds no checkpoint" in message
    for key in content if isinstance(content, dict) else ():
        assert key in message


def test_weights_that_are_not_finite(tmp_path):
    path, config = write(tmp_path, "fomm")
    content = torch.load(path, weights_only=True)
    content["generator"]["final.bias"][1] = float("nan")
    content["kp_detector"]["kp.bias"][0] = float("inf")
    torch.save(content, path)
    message = refused(path, config=str(config))
    assert "generator.final.bias" in message
    assert "kp_detector.kp.bias" in message


def test_a_network_whose_outputs_are_not_finite(tmp_path, cache):
    path, config = write(tmp_path, "fomm")
    content = torch.load(path, weights_only=True)
    content["generator"]["first.norm.running_var"][:] = -1
    torch.save(content, path)
    assert "nothing was imported" in refused(path, config=str(config))
    assert not (cache / "checkpoints").exists()


def test_every_mismatch_is_listed(tmp_path):
    path, config = write(tmp_path, "fomm")
    content = torch.load(path, weights_only=True)
    for index in range(9):
        content["generator"][f"spare.{index}"] = torch.zeros(2)
    del content["generator"]["final.bias"]
    content["generator"]["bottleneck.r0.conv1.weight"] = torch.zeros(3, 3, 3, 3)
    torch.save(content, path)
    message = refused(path, config=str(config))
    assert all(f"generator.spare.{index} is not known" in message for index in range(9))
    assert "generator.final.bias is missing" in message
    assert "generator.bottleneck.r0.conv1.weight is (3, 3, 3, 3), not (16, 16, 3, 3)" in message


def test_a_missing_entry_that_shows_something(tmp_path):
    path, config = write(tmp_path, "release")
    content = torch.load(path, weights_only=True)
    del content["kp_detector"]["pre_feature.conv1.weight"]
    torch.save(content, path)
    assert "kp_detector.pre_feature.conv1.weight is missing" in refused(path, config=str(config))


def test_no_room(tmp_path, monkeypatch):
    path, config = write(tmp_path, "fomm")
    (tmp_path / "file").touch()
    monkeypatch.setenv("MTANIMATE_CACHE", str(tmp_path / "file"))
    with pytest.raises(MTAnimateError, match="cannot make the folder"):
        import_checkpoint(path, config=str(config))


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Bytes of a checkpoint in both formats."""
    contents = []
    for new in (True, False):
        file = io.BytesIO()
        torch.save({"generator": {"a": torch.arange(20.0)}, "epoch": 1}, file, _use_new_zipfile_serialization=new)
        contents.append(file.getvalue())
    return contents


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_are_read_or_refused(good, data, tmp_path):
    """Nothing but InputError leaves the reader, whatever is in the file."""
    content = bytearray(data.draw(st.sampled_from(good)))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "x.pth"
    path.write_bytes(content[: data.draw(st.sampled_from([len(content), len(content) // 2, 40, len(content) - 5]))])
    with suppress(InputError):
        assert isinstance(read_pickle(path), dict)


def test_an_archive_whose_end_is_damaged_is_refused(good, tmp_path):
    """The number of disks in the locator of the zip64 record: what asks whether a file is an archive fails on it."""
    path, content = tmp_path / "x.pth", bytearray(good[0])
    content[content.index(b"PK\x06\x07") + 16] = 7
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.pth' is a damaged archive \(.*disks"):
        read_pickle(path)
    path.write_bytes(good[0][: len(good[0]) // 2])
    with pytest.raises(InputError, match=r"x\.pth' is a damaged archive"):
        read_pickle(path)


# Export


def test_export_writes_nothing_over(tmp_path):
    path, config = write(tmp_path, "fomm")
    import_checkpoint(path, "mine", str(config))
    export_checkpoint("mine", "fomm", tmp_path / "out.pth.tar")
    with pytest.raises(InputError, match=r"out\.pth\.tar exists already"):
        export_checkpoint("mine", "fomm", tmp_path / "out.pth.tar")
    (tmp_path / "out.pth.tar").unlink()
    with pytest.raises(InputError, match=r"out\.yaml exists already"):
        export_checkpoint("mine", "fomm", tmp_path / "out.pth.tar")
    export_checkpoint("mine", "fomm", tmp_path / "out.pth.tar", overwrite=True)


def test_a_network_that_samples_exactly_stays_here(tmp_path):
    animator = Animator(replace(FOMM, dense_motion=replace(FOMM.dense_motion, exact_sampling=True)))
    file = tmp_path / "exact.safetensors"
    write_checkpoint(file, animator, Config(model=animator.config), {})
    with pytest.raises(InputError, match=r"samples exactly \(model.dense_motion.exact_sampling\)"):
        export_checkpoint(str(file), "fomm", tmp_path / "out.pth.tar")


@pytest.mark.parametrize(
    ("checkpoint", "layout", "said"),
    [
        ("default", "fomm", "its estimator is a Motion Transformer"),
        ("default", "release", "it is the variant `paper`"),
        ("mine", "release", "its estimator is fomm"),
    ],
)
def test_what_a_layout_cannot_hold(checkpoint, layout, said, tmp_path):
    path, config = write(tmp_path, "fomm")
    import_checkpoint(path, "mine", str(config))
    with pytest.raises(InputError, match=said):
        export_checkpoint(checkpoint, layout, tmp_path / "out.pth.tar")
    assert not (tmp_path / "out.pth.tar").exists()
