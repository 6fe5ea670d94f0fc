"""What a run may go on with, and from: settings, clips, states, checkpoints."""

import os
import shutil
import sys
from dataclasses import replace

import pytest
import torch
from lives import log, write_settings
from tiny import checkpoint, make_run, tiny_animator, tiny_config

from mtanimate.checkpoints.file import write_checkpoint
from mtanimate.errors import InputError
from mtanimate.training.train import plan, train


@pytest.fixture(scope="session")
def finished(tmp_path_factory, videos):
    """A run of two steps, and how `train` got it."""
    folder = tmp_path_factory.mktemp("finished")
    path = write_settings(folder / "tiny.yaml", tiny_config(steps=2, precision="fp32"))
    given = {"dataset": path, "data": videos, "out": folder / "run", "device": "cpu"}
    train(**given)
    return given


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"settings": ["training.learning_rate=0.01"]}, "training.learning_rate: 0.001 -> 0.01"),
        ({"settings": ["training.seed=4", "loss.pixel=2"]}, "loss.pixel: 10.0 -> 2.0; training.seed: 0 -> 4"),
        ({"settings": ["model.num_keypoints=6"]}, "is of another network (model.num_keypoints: 4 -> 6"),
        ({"resume": "none"}, "holds a run already"),
        ({"resume": "nowhere.pt"}, "no such file"),
    ],
)
def test_other_settings_are_refused_by_name(finished, change, said):
    state = finished["out"] / "state" / "last.pt"
    before = state.read_bytes()
    with pytest.raises(InputError) as caught:
        train(**finished, **change)
    assert said in str(caught.value)
    assert state.read_bytes() == before


def test_other_clips_are_refused(finished, videos, tmp_path):
    shutil.copy(videos / "one.mp4", tmp_path / "other.mp4")
    with pytest.raises(InputError, match=r"other settings \(clips: 2 \(.*\) -> 1 \("):
        train(**{**finished, "data": tmp_path})


def test_a_named_state_allows_all_but_the_network(finished, videos, tmp_path):
    shutil.copy(videos / "one.mp4", tmp_path / "other.mp4")
    state = finished["out"] / "state" / "last.pt"
    given = {**finished, "data": tmp_path, "out": tmp_path / "run", "resume": state}
    lines = []
    changes = ["training.learning_rate=0.01", "training.steps=3"]
    assert train(**given, settings=changes, log=lines.append)["steps"] == 3
    assert {line.split(":")[1].strip() for line in lines if line.startswith("changed")} == {
        "training.learning_rate",
        "training.steps",
        "clips",
    }
    with pytest.raises(InputError, match="another network"):
        train(**given, settings=["model.num_keypoints=6"])


@pytest.mark.parametrize("schedule", ["cosine", "milestones"])
def test_what_other_steps_do_to_the_learning_rate_is_said(finished, tmp_path, schedule):
    """At two of two steps the cosine is at its end, and the milestone passed; at two of eight neither is."""
    changes = [f"training.schedule={schedule}", "training.milestones=[0.9]"]
    given = {**finished, "out": tmp_path / "run", "resume": "auto"}
    lines = []
    train(**given, settings=[*changes, "training.steps=2"])
    train(**given, settings=[*changes, "training.steps=2"], log=lines.append)
    assert not any(line.startswith("changed") for line in lines)
    train(**given, settings=[*changes, "training.steps=8"], log=lines.append)
    (line,) = [line for line in lines if line.startswith("changed")]
    assert line.startswith("changed: training.steps: 2 -> 8: ")
    new, old = (0.00085, 0) if schedule == "cosine" else (0.001, 0.0001)
    assert line.endswith(f"goes on at {new:.2g}, not {old:.2g}")


def test_steps_may_grow(finished, tmp_path):
    shutil.copytree(finished["out"], tmp_path / "run")
    assert train(**{**finished, "out": tmp_path / "run"}, settings=["training.steps=3"])["steps"] == 3
    assert [entry["step"] for entry in log(tmp_path / "run")] == [1, 2, 3]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("training: {steps: many}", "training.steps: expected a whole number, not 'many'"),
        ("training: {stepz: 3}", "unknown setting 'training.stepz'; did you mean 'steps'?"),
        ("preset: smal", "no preset 'smal'; did you mean 'small'?"),
        ("training: [", "is no YAML"),
        ("- 3", "expected settings"),
    ],
)
def test_a_file_of_settings_is_checked_first(tmp_path, videos, text, said):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        train(path, data=videos, out=tmp_path / "run", device="cpu")
    assert said in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_file_may_build_on_a_preset(tmp_path, videos):
    path = tmp_path / "mine.yaml"
    path.write_text("preset: small\ntraining: {steps: 7}\n")
    planned = plan(path, data=videos)
    assert planned.config.training.steps == 7
    assert planned.config.model == plan(videos).config.model
    with pytest.raises(InputError, match="cannot read the configuration"):
        plan(tmp_path / "none.yaml", data=videos)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["training.freeze=[motion_estimator]", "training.equivariance_steps=2"], "training.equivariance_steps"),
        (["loss.equivariance_keypoints=0", "training.equivariance_steps=2"], "training.equivariance_steps"),
        (["training.freeze=[motion_estimator,dense_motion]", "training.warmup_steps=2"], "training.warmup_steps"),
        (["loss.equivariance_keypoints=0", "loss.pixel=0"], "every loss has weight 0"),
        (["training.freeze=[motion_estimator,dense_motion,generator]"], "nothing is left to train"),
    ],
)
def test_what_trains_nothing_is_refused(finished, tmp_path, changes, said):
    with pytest.raises(InputError, match=said):
        train(**{**finished, "out": tmp_path / "run"}, settings=changes)


def test_frozen_parts_keep_weights_and_statistics_of_the_checkpoint_they_begin_from(finished, tmp_path):
    """In every phase; what is not frozen changes."""
    file = tmp_path / "begin.safetensors"
    animator = tiny_animator(seed=3)
    write_checkpoint(file, animator, tiny_config(), {})
    changes = ["training.steps=3", "training.equivariance_steps=1", "training.warmup_steps=1"]
    frozen = ["training.freeze=[dense_motion,backbone]"]
    train(**{**finished, "out": tmp_path / "run"}, init=file, settings=[*changes, *frozen])
    start, end = animator.state_dict(), checkpoint(tmp_path / "run", 3)
    changed = {name for name in start if not torch.equal(start[name], end[name])}
    assert not [name for name in changed if name.startswith(("dense_motion.", "motion_estimator.backbone."))]
    assert any(name.startswith("generator.") and name.endswith("running_mean") for name in changed)
    assert any(name.startswith("motion_estimator.") for name in changed)


def test_init_of_another_network_is_refused(finished, tmp_path):
    other = replace(tiny_config().model, num_keypoints=6)
    config = replace(tiny_config(), model=other)
    write_checkpoint(tmp_path / "other.safetensors", type(tiny_animator())(other), config, {})
    with pytest.raises(InputError, match="has another network"):
        train(**{**finished, "out": tmp_path / "run"}, init=tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    "change",
    [{"best": torch.zeros(3)}, {"step": "2"}, {"pairs": None}, {"torch": torch.zeros(3)}, {"cuda": 1}],
    ids=str,
)
def test_a_state_of_other_values_is_refused(finished, tmp_path, change):
    state = torch.load(finished["out"] / "state" / "last.pt", weights_only=True)
    torch.save(state | change, tmp_path / "state.pt")
    with pytest.raises(InputError, match=r"state\.pt"):
        train(**{**finished, "out": tmp_path / "run", "resume": str(tmp_path / "state.pt")})


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names of files are always text here")
def test_clips_may_have_names_that_are_no_text(videos, tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    for number, clip in enumerate(sorted(videos.iterdir())):
        shutil.copy(clip, os.fsencode(folder / f"{number}") + b"caf\xe9.mp4")
    make_run(tmp_path / "run", folder)
