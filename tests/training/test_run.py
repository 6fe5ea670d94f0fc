"""A run stops, goes on exactly, and leaves what it says it leaves."""

import json
import signal
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import yaml
from golden import close
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import CONFIG, MODEL, assert_equal, checkpoint, make_run, tiny_animator, tiny_config, train, weights

from mtanimate.checkpoints.file import read_checkpoint
from mtanimate.config import Config, from_mapping
from mtanimate.errors import InputError, Interrupted
from mtanimate.training import checkpointing as keeping
from mtanimate.training.metrics import RunLog

# Stopping and going on


@pytest.mark.parametrize("ema", [0.9, pytest.param(0.0, marks=pytest.mark.slow)])  # none: in test_detail.py, too
def test_stopped_and_resumed_equals_not_stopped(tmp_path, videos, ema):
    options = {"steps": 6, "ema": ema, "warmup_steps": 3}
    whole = make_run(tmp_path / "whole", videos, **options)
    train(whole)

    def stop(report):
        if report.step == 4:
            signal.raise_signal(signal.SIGTERM)

    stopped = make_run(tmp_path / "parts", videos, **options)
    with pytest.raises(Interrupted, match="stopped at step 5, saved: the same command goes on") as caught:
        stopped.train(stop)
    assert caught.value.exit_code == 143
    resumed = make_run(tmp_path / "parts", videos, **options)
    torch.manual_seed(99)  # the state brings its own
    assert resumed.resume()
    assert resumed.state.step == 5
    train(resumed)
    assert_equal(weights(whole), weights(resumed))
    assert_equal(checkpoint(tmp_path / "whole", 6), checkpoint(tmp_path / "parts", 6))
    assert resumed.state.pairs == whole.state.pairs == 24
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")


def test_the_state_is_saved_between_checkpoints(tmp_path, videos, monkeypatch):
    """As seconds pass, without a validation; a run that is killed goes on from there, as if nothing had been."""
    now = [0.0]
    monkeypatch.setattr(keeping, "time", SimpleNamespace(monotonic=lambda: now[0]))
    options = {"steps": 8, "checkpoint_every": 100, "save_every_seconds": 25.0, "validation_clips": 1}
    run, saved = make_run(tmp_path / "run", videos, **options), []
    monkeypatch.setattr(run.checkpointer, "score", lambda: pytest.fail("validated"))

    def pass_ten_seconds(report):
        file = tmp_path / "run" / "state" / "last.pt"
        saved.append(torch.load(file, weights_only=True)["step"] if file.exists() else 0)
        now[0] += 10
        if report.step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.train(pass_ten_seconds)
    assert saved == [0, 0, 0, 4, 4, 4, 7]
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []
    again, whole = (make_run(tmp_path / name, videos, **options) for name in ("run", "whole"))
    assert again.resume()
    assert again.state.step == 7
    train(again)
    train(whole)
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


def test_terms_are_logged_with_and_without_their_weights(tmp_path, videos):
    logs = {}
    for pixel in (10, 20):
        train(make_run(tmp_path / str(pixel), videos, steps=1, log_every=1, loss={"pixel": pixel}))
        (logs[pixel],) = map(json.loads, (tmp_path / str(pixel) / "log.jsonl").read_text("utf-8").splitlines())
    first, second = logs[10], logs[20]
    assert second["pixel"] == pytest.approx(2 * first["pixel"])
    assert first["pixel_unweighted"] == pytest.approx(first["pixel"] / 10)
    assert second["pixel_unweighted"] == pytest.approx(first["pixel_unweighted"])
    assert first["loss"] == pytest.approx(first["pixel"] + first["equivariance_keypoints"])


@pytest.mark.parametrize(
    "line", [b'{"step": "9"}', b'{"step": null}', b"[1]", b"\xff\xfe", b'{"step": 1', b"[" * 100_000, b'{"step": [9]}']
)
def test_a_line_that_is_no_line_of_the_log_is_forgotten(tmp_path, line):
    good = b'{"step": 1, "loss": 0.5}'
    (tmp_path / "log.jsonl").write_bytes(good + b"\n" + line + b"\n" + good + b"\n")
    RunLog(tmp_path, 2, tensorboard=False)
    assert (tmp_path / "log.jsonl").read_bytes().splitlines() == [good, good]


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_a_number_that_json_has_not_is_null(tmp_path, value):
    run_log = RunLog(tmp_path, 0, tensorboard=False)
    run_log.write({"step": 1, "gradient_norm": value, "loss": 0.5})
    (line,) = (tmp_path / "log.jsonl").read_text("utf-8").splitlines()
    entry = json.loads(line, parse_constant=pytest.fail)
    assert entry == {"step": 1, "gradient_norm": None, "loss": 0.5}


def losses(folder):
    """(step, loss) of every line of the log."""
    entries = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(entry["step"], entry["loss"]) for entry in entries]


def test_signals_are_as_before_after_a_run(tmp_path, videos):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    train(make_run(tmp_path, videos, steps=1))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_lines_of_steps_that_were_lost_are_dropped(tmp_path, videos):
    """A run that was killed between two saves takes those steps again."""
    run = make_run(tmp_path, videos, steps=4, checkpoint_every=2)
    train(run)
    expected = losses(tmp_path)
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 5, "loss": 1}\n{"step": 6, "lo')
    again = make_run(tmp_path, videos, steps=4)
    again.resume()
    train(again)
    assert losses(tmp_path) == expected


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
    run.checkpointer.state_file.parent.mkdir(parents=True)
    run.checkpointer.state_file.write_bytes(content)
    with pytest.raises(InputError, match=r"last\.pt") as caught:
        run.resume()
    assert "\n" not in str(caught.value)


def test_a_state_of_other_settings_is_refused_by_name_unless_it_is_asked_for(tmp_path, videos):
    train(make_run(tmp_path, videos, steps=1))
    other = make_run(tmp_path, videos, steps=1, learning_rate=0.5, log_every=7)
    with pytest.raises(InputError, match=r"other settings \(training.learning_rate: 0.001 -> 0.5\)"):
        other.resume()
    said = []
    other = make_run(tmp_path, videos, steps=1, learning_rate=0.5, said=said)
    assert other.resume(other.checkpointer.state_file)
    assert said == ["changed: training.learning_rate: 0.001 -> 0.5"]


def test_a_state_of_other_clips_is_refused(tmp_path, videos):
    train(make_run(tmp_path / "run", videos, steps=1))
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "other.mp4").symlink_to(videos / "one.mp4")
    with pytest.raises(InputError, match=r"clips: 2 \(\w+\) -> 1 \(\w+\)"):
        make_run(tmp_path / "run", tmp_path / "videos", steps=1).resume()


def test_the_state_of_another_network_is_refused(tmp_path, videos, monkeypatch):
    train(make_run(tmp_path, videos, steps=1))
    monkeypatch.setattr("tiny.CONFIG", replace(CONFIG, model=replace(MODEL, num_keypoints=6)))
    other = make_run(tmp_path, videos)
    for file in (None, other.checkpointer.state_file):
        with pytest.raises(InputError, match=r"another network \(model.num_keypoints: 4 -> 6\)"):
            other.resume(file)


# What a run leaves


def test_the_run_folder(tmp_path, videos):
    path, reports = train(make_run(tmp_path, videos, steps=5, log_every=2, picture_every=2, keep=2))
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "checkpoints",
        "config.yaml",
        "log.jsonl",
        "pictures",
        "state",
    ]
    written = from_mapping(Config, yaml.safe_load((tmp_path / "config.yaml").read_text()))
    assert written == tiny_config(steps=5, log_every=2, picture_every=2, keep=2)
    kept = sorted(file.name for file in (tmp_path / "checkpoints").iterdir())
    assert kept == ["best.safetensors", "step-0000004.safetensors", "step-0000005.safetensors"]
    assert path.name == kept[-1]
    assert sorted(file.name for file in (tmp_path / "pictures").iterdir()) == ["0000002.png", "0000004.png"]
    assert [file.name for file in (tmp_path / "state").iterdir()] == ["last.pt"]
    entries = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries] == [2, 4, 5]
    assert [report.step for report in reports] == [1, 2, 3, 4, 5]
    for entry in entries:
        assert entry["loss"] == pytest.approx(entry["pixel"] + entry["equivariance_keypoints"])
        assert entry["samples"] == 4 * entry["step"]
        assert entry["samples_per_second"] > 0
        assert 0 < entry["data_wait"] < 1
    mean = sum(report.losses["pixel"] for report in reports[:2]) / 2
    assert entries[0]["pixel"] == pytest.approx(mean)


def test_the_best_checkpoint_has_the_lowest_validation_error(tmp_path, videos):
    run = make_run(tmp_path, videos, steps=8, checkpoint_every=1, learning_rate=5e-3, keep=100)
    train(run)
    errors = {}
    for file in (tmp_path / "checkpoints").glob("step-*"):
        about = read_checkpoint(file).about
        errors[file] = float(about["validation_error"])
        assert errors[file] == pytest.approx(
            run.checkpointer.validation(read_checkpoint(file).animator).error, abs=1e-5
        )
    best = read_checkpoint(tmp_path / "checkpoints" / "best.safetensors")
    assert float(best.about["validation_error"]) == min(errors.values())
    assert run.state.best == pytest.approx(min(errors.values()), abs=1e-5)
    assert len(set(errors.values())) > 2
    logged = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in logged if "validation_error" in entry] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_tensorboard_gets_the_same_numbers_and_the_pictures(tmp_path, videos):
    train(make_run(tmp_path, videos, steps=3, picture_every=2, tensorboard=True))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    logged = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    for name in ("loss", "pixel", "gradient_norm"):
        shown = [(event.step, event.value) for event in events.Scalars(name)]
        assert shown == [(entry["step"], pytest.approx(entry[name], rel=1e-6)) for entry in logged]
    assert [event.step for event in events.Images("scene")] == [2]


def test_tensorboard_that_is_not_installed_is_named(tmp_path, videos, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match=r"pip install 'mtanimate\[tensorboard\]'"):
        train(make_run(tmp_path, videos, steps=1, tensorboard=True))


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
    assert_equal(run.trainer.animator.motion_estimator.backbone.state_dict(), state)


def test_a_backbone_file_of_another_network_is_refused(tmp_path, videos):
    file = tmp_path / "hrnet.pth"
    torch.save({"conv1.weight": torch.zeros(1)}, file)
    for path in (file, tmp_path / "none.pth"):
        with pytest.raises(InputError) as caught:
            make_run(tmp_path / "run", videos, backbone_file=str(path))
        assert "\n" not in str(caught.value)


def test_init_from_another_network_is_refused_in_one_line(tmp_path, videos, monkeypatch):
    path, _ = train(make_run(tmp_path / "first", videos, steps=1))
    monkeypatch.setattr("tiny.CONFIG", replace(CONFIG, model=replace(MODEL, num_keypoints=6)))
    with pytest.raises(InputError, match="has another network") as caught:
        make_run(tmp_path / "second", videos, init=path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("size", "parts"), [(4, 3), (1, 2)])
def test_a_batch_that_cannot_be_shared_is_refused(tmp_path, videos, size, parts):
    with pytest.raises(InputError, match="cannot be shared evenly"):
        make_run(tmp_path, videos, batch_size=size, accumulate=parts)


def test_epochs_count_pairs_of_all_clips(tmp_path, videos):
    run = make_run(tmp_path, videos, steps=0, epochs=3, batch_size=7)
    assert run.steps == 129  # 2 clips x 150 pairs x 3 epochs / 7, rounded up


# The run's own cache


def test_frames_of_the_first_clips_are_kept_while_they_fit_and_for_a_resume(tmp_path, videos):
    """Two clips of 16 frames of 64 x 64; room for one and a half."""
    told = []
    run = make_run(tmp_path, videos, data={"cache_gib": 24 * 3 * 64 * 64 / 2**30})
    run.cache(lambda done, total: told.append((done, total)))
    assert [clip.path.name for clip in run.dataset.raw.entries] == ["one.mp4"]
    assert told == [(1, 2)]
    assert (tmp_path / "cache" / "frames.bin").stat().st_size == 16 * 3 * 64 * 64
    before = (tmp_path / "cache" / "frames.bin").stat().st_mtime_ns
    again = make_run(tmp_path, videos, data={"cache_gib": 1.0})
    again.cache()
    assert len(again.dataset.raw.entries) == 2
    third = make_run(tmp_path, videos, data={"cache_gib": 1.0})
    third.cache()
    assert len(third.dataset.raw.entries) == 2
    assert (tmp_path / "cache" / "frames.bin").stat().st_mtime_ns > before


def test_without_room_nothing_is_kept(tmp_path, videos):
    run = make_run(tmp_path, videos)
    run.cache()
    assert run.dataset.raw.cache is None
    assert not (tmp_path / "cache").exists()
