"""Checkpoint files: exact, whole or not at all, and refused in one line when they are not ours."""

import errno
import json
import os
import pickle
from dataclasses import replace

import pytest
import torch
from golden import close
from safetensors.torch import load_file, save_file
from tiny import CONFIG, tiny_animator

from mtanimate.checkpoints.file import (
    FORMAT,
    read_checkpoint,
    read_metadata,
    read_tensors,
    verify_checkpoint,
    write_checkpoint,
)
from mtanimate.config import BackgroundConfig, to_mapping
from mtanimate.errors import InputError, MTAnimateError


@pytest.fixture
def written(tmp_path):
    """A good checkpoint file and the network in it."""
    animator = tiny_animator()
    path = tmp_path / "good.safetensors"
    write_checkpoint(path, animator, CONFIG, {"steps": 12, "licence": "MIT"})
    return path, animator


def rewrite(path, tensors=None, **metadata):
    """The file with other tensors or metadata (None: without that entry)."""
    about = {**read_metadata(path), **metadata}
    tensors = load_file(path) if tensors is None else tensors
    save_file(tensors, path, {key: value for key, value in about.items() if value is not None})


def refused(path):
    with pytest.raises(InputError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


# Round trips


def test_round_trip_is_exact(written):
    path, animator = written
    read = read_checkpoint(path)
    state = read.animator.state_dict()
    assert state.keys() == animator.state_dict().keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in animator.state_dict().items())
    assert read.config == CONFIG
    assert read.about == {"steps": "12", "licence": "MIT"}


def test_read_network_is_ready_to_use(written):
    path, animator = written
    read = read_checkpoint(path).animator
    assert not read.training
    assert not any(parameter.requires_grad for parameter in read.parameters())
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = animator.eval().estimate_motion(picture).keypoints
    assert torch.equal(read.estimate_motion(picture).keypoints, expected)


def test_half_precision_halves_the_file_and_rounds(written, tmp_path):
    path, animator = written
    half = tmp_path / "half.safetensors"
    write_checkpoint(half, animator, CONFIG, {}, half=True)
    assert half.stat().st_size < 0.6 * path.stat().st_size
    state = read_checkpoint(half).animator.state_dict()
    for name, tensor in animator.state_dict().items():
        assert state[name].dtype == tensor.dtype
        close(state[name], tensor, atol=1e-7, rtol=2**-11)
    assert any(not torch.equal(state[name], tensor) for name, tensor in animator.state_dict().items())


def test_metadata_is_read_without_the_weights(written):
    path, _ = written
    metadata = read_metadata(path)
    assert metadata["format"] == FORMAT
    assert json.loads(metadata["config"]) == to_mapping(CONFIG)
    assert metadata["about.steps"] == "12"


def test_a_background_predictor_is_part_of_the_file(tmp_path):
    config = replace(CONFIG, model=replace(CONFIG.model, background=BackgroundConfig(4, 8, 2)))
    animator = type(tiny_animator())(config.model)
    write_checkpoint(tmp_path / "bg.safetensors", animator, config, {})
    assert read_checkpoint(tmp_path / "bg.safetensors").animator.background_predictor is not None


# Broken and foreign files


def test_missing_file(tmp_path):
    assert "no checkpoint" in refused(tmp_path / "none.safetensors")


def test_folder(tmp_path):
    refused(tmp_path)


@pytest.mark.parametrize("fraction", [0.9, 0.5, 0.001])
def test_truncated_file(written, fraction):
    path, _ = written
    content = path.read_bytes()
    path.write_bytes(content[: int(fraction * len(content))])
    assert "not a whole safetensors file" in refused(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x00", b"<html>404 Not Found</html>", pickle.dumps({"a": 1}), b"\xff" * 64],
    ids=["empty", "one byte", "web page", "pickle", "noise"],
)
def test_other_files(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    assert "not a whole safetensors file" in refused(path)


def test_pytorch_file_is_not_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "trap"),)

    path = tmp_path / "model.safetensors"
    torch.save(Trap(), path)
    refused(path)
    assert not (tmp_path / "trap").exists()


def test_foreign_safetensors(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    assert "no mtanimate checkpoint" in refused(path)


def test_format_of_another_version(written):
    path, _ = written
    rewrite(path, format="mtanimate-99")
    assert "no mtanimate checkpoint" in refused(path)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(written, number):
    path, _ = written
    tensors = load_file(path)
    tensors["generator.final.bias"][1] = number
    rewrite(path, tensors)
    assert "not finite" in refused(path)


@pytest.mark.parametrize("kind", [torch.uint8, torch.bool, torch.complex64])
def test_weights_that_are_no_fractions(written, kind):
    path, _ = written
    tensors = load_file(path)
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point())
    rewrite(path, tensors | {name: torch.zeros(tensors[name].shape, dtype=kind)})
    assert name in refused(path)


@pytest.mark.parametrize("config", ["[" * 100_000, '{"model": ' + '{"estimator": ' * 5000, '{"model": ' + "9" * 5000])
def test_a_configuration_that_cannot_be_read(written, config):
    path, _ = written
    rewrite(path, config=config)
    refused(path)


def test_all_mismatches_are_listed(written):
    path, _ = written
    tensors = load_file(path)
    del tensors["generator.final.bias"]
    tensors["dense_motion.mask.bias"] = torch.zeros(9)
    tensors["spare.weight"] = torch.zeros(1)
    rewrite(path, tensors)
    message = refused(path)
    assert "generator.final.bias is missing" in message
    assert "dense_motion.mask.bias is (9,), not (5,)" in message
    assert "spare.weight is not known" in message


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"modle": {}}, "did you mean 'model'"),
        ({"model": {"resolution": "big"}}, "model.resolution"),
        ([1], "expected a mapping"),
    ],
)
def test_configuration_of_another_version(written, config, said):
    path, _ = written
    rewrite(path, config=json.dumps(config))
    with pytest.raises(InputError, match=said):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "config",
    [None, "{", '{"model": {"num_keypoints": -3}}', '{"model": {"estimator": {"backbone": {"widths": [1, 2]}}}}'],
    ids=["none", "no JSON", "negative size", "two widths"],
)
def test_configuration_that_makes_no_network(written, config):
    path, _ = written
    rewrite(path, config=config)
    refused(path)


def test_half_precision_refuses_what_does_not_fit(tmp_path):
    animator = tiny_animator()
    animator.generator.first.norm.running_var[0] = 1e6
    with pytest.raises(MTAnimateError):
        write_checkpoint(tmp_path / "half.safetensors", animator, CONFIG, {}, half=True)


# Interrupted writes


@pytest.mark.skipif(os.name != "posix", reason="a POSIX file's mode")
def test_others_may_read_it_as_any_new_file(written, tmp_path):
    (tmp_path / "new").touch()
    assert written[0].stat().st_mode == (tmp_path / "new").stat().st_mode


def test_an_interrupted_write_leaves_the_old_file(written, monkeypatch):
    path, _ = written
    before = path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(MTAnimateError, match=r"cannot write the checkpoint '.*': No space left"):
        write_checkpoint(path, tiny_animator(1), CONFIG, {})
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_writing_into_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(MTAnimateError, match="cannot write the checkpoint"):
        write_checkpoint(tmp_path / "no" / "file.safetensors", tiny_animator(), CONFIG, {})


def test_writing_again_replaces(written):
    path, animator = written
    write_checkpoint(path, tiny_animator(1), CONFIG, {})
    found = read_checkpoint(path).animator.state_dict()["motion_estimator.head.weight"]
    assert not torch.equal(found, animator.state_dict()["motion_estimator.head.weight"])


# Checksums


def test_a_checkpoint_as_it_was_written_verifies(written):
    path, _ = written
    assert verify_checkpoint(path) == ""


def test_one_changed_weight_is_noticed(written):
    path, _ = written
    tensors = load_file(path)
    tensors["generator.final.bias"][1] += 1e-6
    rewrite(path, tensors)
    assert "not those that were written" in verify_checkpoint(path)
    read_checkpoint(path)  # nothing else would tell


def test_an_older_file_without_a_checksum_says_so(written):
    path, _ = written
    rewrite(path, weights_sha256=None)
    assert "no checksum" in verify_checkpoint(path)


def test_tensors_kept_for_another_layout_are_no_part_of_the_network(written):
    path, animator = written
    write_checkpoint(path, animator, CONFIG, {}, kept={"pos_embedding": torch.arange(3.0)})
    assert torch.equal(read_tensors(path)["kept.pos_embedding"], torch.arange(3.0))
    assert read_checkpoint(path).animator.state_dict().keys() == animator.state_dict().keys()
    assert verify_checkpoint(path) == ""
