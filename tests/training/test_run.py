"""A run stops, goes on exactly, and leaves what it says it leaves."""

import json
from dataclasses import replace

import pytest
import torch
import yaml
from golden import close
from tiny import CONFIG, MODEL, assert_equal, checkpoint, make_run, tiny_animator, train, weights

from mtanimate.checkpoints.file import read_checkpoint
from mtanimate.config import Config, from_mapping
from mtanimate.data.clips import find_clips
from mtanimate.data.pairs import PairSampler
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.training.run import Run

# Stopping and going on


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_stopped_and_resumed_equals_not_stopped(tmp_path, videos, ema):
    options = {"steps": 6, "ema": ema, "warmup_steps": 3, "log_every": 1}
    whole = make_run(tmp_path / "whole", videos, **options)
    train(whole)

    def stop(report):
        if report.step == 4:
            raise KeyboardInterrupt

    stopped = make_run(tmp_path / "parts", videos, **options)
    with pytest.raises(KeyboardInterrupt):
        stopped.train(stop)
    resumed = make_run(tmp_path / "parts", videos, **options)
    torch.manual_seed(99)  # the state brings its own
    assert resumed.resume()
    assert resumed.state.step == 4
    train(resumed)
    assert_equal(weights(whole), weights(resumed))
    assert_equal(checkpoint(tmp_path / "whole", 6), checkpoint(tmp_path / "parts", 6))
    assert resumed.state.samples == whole.state.samples
    steps = [json.loads(line)["step"] for line in (tmp_path / "parts" / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_a_finished_run_takes_no_more_steps(tmp_path, videos):
    train(make_run(tmp_path, videos, steps=2))
    again = make_run(tmp_path, videos, steps=2)
    assert again.resume()
    before = weights(again)
    _, reports = train(again)
    assert reports == []
    assert_equal(before, weights(again))


def test_nothing_to_resume(tmp_path, videos):
    assert not make_run(tmp_path, videos).resume()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no state",
        b"PK\x03\x04broken",
    ],
)
def test_a_broken_state_is_refused(tmp_path, videos, content):
    run = make_run(tmp_path, videos)
    run.state_file.parent.mkdir(parents=True)
    run.state_file.write_bytes(content)
    with pytest.raises(InputError, match="cannot resume from") as caught:
        run.resume()
    assert "\n" not in str(caught.value)


def test_the_state_of_another_network_is_refused(tmp_path, videos):
    train(make_run(tmp_path, videos, steps=1))
    other = make_run(tmp_path, videos)
    other.state.model = torch.nn.Linear(2, 2)
    with pytest.raises(InputError, match="cannot resume from"):
        other.resume()


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_state(tmp_path, videos):
    train(make_run(tmp_path, videos, steps=2))
    state = tmp_path / "state" / "last.pt"
    before = state.read_bytes()
    run = make_run(tmp_path, videos, steps=4)
    run.resume()
    with torch.no_grad():
        run.animator.generator.final.bias.fill_(float("nan"))
    with pytest.raises(MTAnimateError, match=r"the loss is nan at step 3: .*is kept"):
        train(run)
    assert state.read_bytes() == before
    assert not (tmp_path / "checkpoints" / "step-0000003.safetensors").exists()


# What a run leaves


def test_the_run_folder(tmp_path, videos):
    path, reports = train(make_run(tmp_path, videos, steps=5))
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "checkpoints",
        "config.yaml",
        "log.jsonl",
        "pictures",
        "state",
    ]
    written = from_mapping(Config, yaml.safe_load((tmp_path / "config.yaml").read_text()))
    assert written == replace(CONFIG, training=replace(CONFIG.training, steps=5))
    names = [f"step-{step:07d}.safetensors" for step in (2, 4, 5)]
    assert sorted(file.name for file in (tmp_path / "checkpoints").iterdir()) == names
    assert path.name == names[-1]
    assert sorted(file.name for file in (tmp_path / "pictures").iterdir()) == ["0000002.png", "0000004.png"]
    assert [file.name for file in (tmp_path / "state").iterdir()] == ["last.pt"]
    entries = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries] == [2, 4, 5] == [report.step for report in reports]
    for entry in entries:
        assert entry["loss"] == pytest.approx(entry["pixel"] + entry["equivariance_keypoints"])
        assert entry["samples"] == 4 * entry["step"]
        assert entry["samples_per_second"] > 0


def test_the_checkpoint_tells_its_origin(tmp_path, videos):
    run = make_run(tmp_path, videos, steps=1)
    path, _ = train(run)
    read = read_checkpoint(path)
    assert read.config == run.config
    expected = {"steps": "1", "samples": "4", "identities": "2", "clips": "2"}
    assert expected.items() <= read.about.items()
    assert_equal(read.animator.state_dict(), weights(run))


def test_checkpoints_hold_the_running_mean(tmp_path, videos):
    for name, ema in (("plain", 0.0), ("mean", 0.75)):
        train(make_run(tmp_path / name, videos, steps=2, checkpoint_every=1, ema=ema))
    first, second = (checkpoint(tmp_path / "plain", step) for step in (1, 2))
    assert_equal(checkpoint(tmp_path / "mean", 1), first)
    for name, tensor in checkpoint(tmp_path / "mean", 2).items():
        if tensor.is_floating_point():
            close(tensor, 0.75 * first[name] + 0.25 * second[name], atol=1e-6)


def test_init_begins_from_a_checkpoint(tmp_path, videos):
    path, _ = train(make_run(tmp_path / "first", videos, steps=1))
    begun = make_run(tmp_path / "second", videos, init=path, seed=5)
    assert_equal(weights(begun), checkpoint(tmp_path / "first", 1))
    assert begun.state.step == 0


def test_a_backbone_begins_from_weights_in_a_file(tmp_path, videos):
    state = tiny_animator(seed=3).motion_estimator.backbone.state_dict()
    file = tmp_path / "hrnet.pth"
    torch.save({**state, "classifier.weight": torch.zeros(2)}, file)
    run = make_run(tmp_path / "run", videos, backbone_file=str(file))
    assert_equal(run.animator.motion_estimator.backbone.state_dict(), state)


def test_a_backbone_file_of_another_network_is_refused(tmp_path, videos):
    file = tmp_path / "hrnet.pth"
    torch.save({"conv1.weight": torch.zeros(1)}, file)
    for path in (file, tmp_path / "none.pth"):
        with pytest.raises(InputError) as caught:
            make_run(tmp_path / "run", videos, backbone_file=str(path))
        assert "\n" not in str(caught.value)


def test_init_from_another_network_is_refused_in_one_line(tmp_path, videos):
    path, _ = train(make_run(tmp_path / "first", videos, steps=1))
    config = replace(CONFIG, model=replace(MODEL, num_keypoints=6))
    sampler = PairSampler(find_clips(videos, "train"), 64, config.data)
    with pytest.raises(InputError) as caught:
        Run(tmp_path / "second", config, sampler, torch.device("cpu"), path)
    assert "\n" not in str(caught.value)


def test_epochs_count_pairs_of_all_clips(tmp_path, videos):
    run = make_run(tmp_path, videos, steps=0, epochs=3, batch_size=7)
    assert run.steps == 129  # 2 clips x 150 pairs x 3 epochs / 7, rounded up
