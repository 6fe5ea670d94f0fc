"""Kills, full disks, numbers that are not finite, broken clips: what a run survives, and how it says so."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lives import Life, assert_same_end, differing, load_all, log, write_settings
from tiny import make_run, moving_square, tiny_config, weights, write_video

from mtanimate.checkpoints.file import read_checkpoint, write_checkpoint
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.training.run import StopRequest
from mtanimate.training.train import train
from mtanimate.video import write_image

STEPS = 12


def wide_config(**training):
    """All phases, a running mean, a checkpoint at every step."""
    return tiny_config(
        steps=STEPS, equivariance_steps=3, warmup_steps=3, ema=0.9, precision="fp32", picture_every=5, milestones=(),
        **{"checkpoint_every": 1, "validation_clips": 1, "data": {"cache_gib": 0.1}} | training,
    )  # fmt: skip


@pytest.fixture(scope="session")
def settings(tmp_path_factory):
    return write_settings(tmp_path_factory.mktemp("settings") / "tiny.yaml", wide_config())


@pytest.fixture(scope="session")
def whole(tmp_path_factory, videos, settings):
    """A run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert Life(folder, dataset=settings, data=videos).end() == 0
    return folder


# Kills


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_kills_change_nothing(kills, tmp_path, videos, settings):
    """Half at random moments, half between two operations on files, where a state would break."""
    chance = random.Random(kills)
    folder, whole = tmp_path / "run", tmp_path / "whole"
    endless = {"dataset": settings, "data": videos, "settings": ["training.steps=1000"]}
    for number in range(kills):
        if number % 2:
            life = Life(folder, at_event=chance.randint(1, 40), **endless)
        else:
            life = Life(folder, **endless)
            assert life.began.wait(60)
            life.process.join(chance.uniform(0, 0.2))
            life.kill()
        assert life.end() == -signal.SIGKILL
        load_all(folder)
    steps = max(torch.load(folder / "state" / "last.pt", weights_only=True)["step"], 6) + 2
    for run in (folder, whole):
        assert Life(run, dataset=settings, data=videos, settings=[f"training.steps={steps}"]).end() == 0
    assert [entry["step"] for entry in log(folder)] == list(range(1, steps + 1))
    assert_same_end(whole, folder)


def test_a_decoding_process_that_is_killed_is_said(tmp_path, videos, settings):
    life = Life(tmp_path / "run", dataset=settings, data=videos, workers=1, settings=["training.steps=10000"])
    assert life.began.wait(60)
    children = Path(f"/proc/{life.process.pid}/task/{life.process.pid}/children")
    if not children.exists():
        life.kill()
        pytest.skip("finds the decoding process in Linux's /proc")
    decoding = int(children.read_text().split()[0])
    os.kill(decoding, signal.SIGKILL)
    assert life.end() == 1
    assert life.said()[-1].startswith("a process that decodes was ended")
    assert load_all(tmp_path / "run") > 2


@pytest.mark.parametrize("error", [ConnectionResetError(104, "Connection reset by peer"), EOFError()], ids=repr)
def test_a_decoding_process_that_is_killed_while_its_batch_is_fetched_is_said(tmp_path, videos, monkeypatch, error):
    def fetch(loader):
        raise error

    monkeypatch.setattr("mtanimate.data.loading.DataLoader.__iter__", fetch)
    with pytest.raises(MTAnimateError, match="a process that decodes was ended"):
        make_run(tmp_path, videos).train()


def test_too_little_shared_memory_is_said(tmp_path, videos, settings):
    """As in a container: a batch that finds no room must not be waited for."""
    run = f"{sys.executable} -m mtanimate train --dataset {settings} --data {videos} --out {tmp_path}/run --workers 1"
    small = "mount -t tmpfs -o size=160k tmpfs /dev/shm"
    if (
        shutil.which("unshare") is None
        or subprocess.run(["unshare", "-m", "sh", "-c", small], capture_output=True).returncode
    ):
        pytest.skip("needs the right to mount a small /dev/shm")
    command = ["unshare", "-m", "sh", "-c", f"{small}; exec {run} --device cpu --set data.cache_gib=0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    assert "shared memory" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


# Signals


def test_a_second_sigterm_changes_nothing_and_a_second_ctrl_c_ends():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stop.signal == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


# Full disks


def test_no_room_for_the_state(tmp_path, videos, settings, whole):
    """No file may grow beyond 700 kB: training goes on, and says what it could not save."""
    pytest.importorskip("resource")
    folder = tmp_path / "run"
    life = Life(folder, dataset=settings, data=videos, limit=700_000)
    assert life.end() == 1
    lines = life.said()
    for step in range(1, STEPS):
        assert sum(line.startswith(f"not saved at step {step}: cannot write the run's state") for line in lines) == 1
    assert lines[-1].startswith("cannot write the run's state")
    assert list((folder / "state").iterdir()) == []
    assert load_all(folder) > 0
    assert Life(folder, dataset=settings, data=videos).end() == 0
    assert_same_end(whole, folder)


def test_no_room_for_the_state_between_checkpoints(tmp_path, videos, settings):
    pytest.importorskip("resource")
    often = ["training.save_every_seconds=0.001", "training.checkpoint_every=50", f"training.steps={STEPS}"]
    life = Life(tmp_path / "run", dataset=settings, data=videos, limit=700_000, settings=often)
    assert life.end() == 1
    lines = life.said()
    for step in range(1, STEPS):
        assert sum(line.startswith(f"not saved at step {step}: ") and "in 0.001 s" in line for line in lines) == 1


def test_no_room_for_the_log(tmp_path, videos, settings):
    """The log is cut at a whole line, and training goes on."""
    pytest.importorskip("resource")
    options = {"dataset": settings, "data": videos, "settings": ["data.cache_gib=0", "training.steps=24"]}
    life = Life(tmp_path / "run", limit=4000, **options)
    assert life.end() == 1
    steps = [entry["step"] for entry in log(tmp_path / "run")]
    assert steps == list(range(1, len(steps) + 1))
    assert any(line.startswith(f"not written at step {len(steps) + 1}: ") for line in life.said())
    assert (tmp_path / "run" / "log.jsonl").read_text("utf-8").endswith("}\n")


def test_no_room_for_anything(tmp_path, videos, settings):
    pytest.importorskip("resource")
    life = Life(tmp_path / "run", dataset=settings, data=videos, limit=1000)
    assert life.end() == 1
    assert life.said()[-1].startswith("cannot write in the cache")
    options = {"dataset": settings, "data": videos, "settings": ["data.cache_gib=0"]}
    life = Life(tmp_path / "run", limit=1000, **options)
    assert life.end() == 2
    assert "--out: cannot write in" in life.said()[-1]


@pytest.fixture
def disk(tmp_path):
    """A file system of 2 MiB, and of the 384 KiB that the frames of both clips take."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if shutil.which("mount") is None or mount("-t", "tmpfs", "-o", "size=2448k", "tmpfs", folder):
        pytest.skip("needs the right to mount a small tmpfs")
    yield folder
    subprocess.run(["umount", folder], check=True)


def mount(*arguments) -> int:
    return subprocess.run(["mount", *map(str, arguments)], capture_output=True).returncode


def test_a_full_disk(disk, videos, settings, whole):
    """One state and its checkpoints fit, no second: that one stays whole, and the run goes on from it."""
    folder = disk / "run"
    life = Life(folder, dataset=settings, data=videos)
    assert life.end() == 1
    lines = life.said()
    assert sum(line.startswith("not saved at step") for line in lines) > STEPS // 2
    assert lines[-1].startswith("cannot write")
    assert load_all(folder) >= 2
    assert torch.load(folder / "state" / "last.pt", weights_only=True)["step"] >= 1
    assert [entry["step"] for entry in log(folder)] == list(range(1, STEPS + 1))
    assert mount("-o", "remount,size=40m", disk) == 0
    life = Life(folder, dataset=settings, data=videos)
    assert life.end() == 0
    assert any(line.startswith("resuming at step") for line in life.said())
    assert_same_end(whole, folder)


def test_out_is_a_file(tmp_path, videos, settings):
    (tmp_path / "run").touch()
    with pytest.raises(InputError, match="--out: cannot write in"):
        train(settings, data=videos, out=tmp_path / "run", device="cpu")


def test_an_older_state_does_not_delete_the_checkpoint_it_makes(tmp_path, videos):
    """Three later checkpoints are there; the one of step 3 is new, and stays."""
    run = make_run(tmp_path, videos, steps=2, keep=3)
    run.train()
    for step in (10, 20, 30):
        shutil.copy(
            tmp_path / "checkpoints" / "step-0000002.safetensors",
            tmp_path / "checkpoints" / f"step-{step:07d}.safetensors",
        )
    again = make_run(tmp_path, videos, steps=3, keep=3)
    assert again.resume()
    assert read_checkpoint(again.train()).about["steps"] == "3"


def test_a_best_checkpoint_that_could_not_be_written_is_tried_again(tmp_path, videos, monkeypatch):
    from mtanimate.training import checkpointing as keeping

    run = make_run(tmp_path, videos, steps=2, checkpoint_every=1)

    def full(path, *arguments):
        if run.state.step == 1:
            raise MTAnimateError("full")
        write_checkpoint(path, *arguments)

    monkeypatch.setattr(keeping, "write_checkpoint", full)
    monkeypatch.setattr(run.checkpointer, "score", lambda: keeping.Score(error=float(run.state.step), first_frame=1.0))
    run.train()
    assert (tmp_path / "checkpoints" / "best.safetensors").exists()


# Numbers that are not finite


def poisoned(run, steps):
    """The run, with a NaN in one colour of the batches of these steps (from 1)."""
    loaded = run._load

    def load():
        for number, batch in enumerate(loaded(), start=1):
            if number in steps:
                batch.recipe.colour[0, 0, 0, 0] = float("nan")
            yield batch

    run._load = load
    return run


def test_a_step_that_is_not_finite_changes_nothing(tmp_path, videos):
    lines = []
    run = poisoned(make_run(tmp_path, videos, steps=4, ema=0.9, checkpoint_every=1, said=lines), {3})
    states = {}

    def remember(at):
        states[at.step] = torch.load(tmp_path / "state" / "last.pt", weights_only=True) if at.step != 3 else None
        states[at.step, "now"] = (
            json.loads(json.dumps(at.losses)),
            weights(run),
            optimizer(run),
            weights_of(run.trainer.ema),
        )

    run.train(remember)
    for part in (1, 2, 3):
        assert differing(states[2, "now"][part], states[3, "now"][part]) == []
        assert differing(states[3, "now"][part], states[4, "now"][part]) != []
    told = [line for line in lines if "not finite" in line]
    assert len(told) == 1
    assert told[0].startswith("step 3 skipped: equivariance_keypoints, pixel not finite (clips ")
    assert ".mp4" in told[0]
    third = log(tmp_path)[2]
    assert third["loss"] is None
    assert third["skipped_steps"] == 1
    assert run.state.step == 4
    assert not (tmp_path / "checkpoints" / "step-0000003.safetensors").exists()


def weights_of(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def optimizer(run):
    state = run.trainer.optimizer.state_dict()["state"]
    return {number: {name: tensor.clone() for name, tensor in values.items()} for number, values in state.items()}


def test_a_gradient_that_is_not_finite_changes_nothing(tmp_path, videos):
    lines = []
    run = make_run(tmp_path, videos, steps=1, said=lines)
    next(run.trainer.animator.generator.parameters()).register_hook(lambda gradient: gradient / 0)
    before = weights(run)
    run.train()
    assert differing(before, weights(run)) == []
    assert any(line.startswith("step 1 skipped: the gradient not finite (clips ") for line in lines)


def test_a_step_that_overflows_in_half_precision_changes_nothing_but_the_scale(tmp_path, videos):
    """It is no fault: the scale of gradients is found by such steps. Batch statistics and running mean stay, too."""
    lines = []
    run = make_run(tmp_path, videos, steps=3, ema=0.9, checkpoint_every=50, run_precision="fp16", said=lines)
    parameter = next(run.trainer.animator.generator.parameters())
    parameter.register_hook(lambda gradient: gradient / 0 if run.state.step == 1 else gradient)
    states = {}

    def remember(at):
        states[at.step] = (weights(run), optimizer(run), weights_of(run.trainer.ema))
        states[at.step, "scale"] = run.trainer.scaler.get_scale()

    run.train(remember)
    for part in range(3):
        assert differing(states[1][part], states[2][part]) == []
        assert differing(states[2][part], states[3][part]) != []
    assert states[2, "scale"] == states[1, "scale"] / 2
    assert not any("not finite" in line for line in lines)
    second = log(tmp_path)[1]
    assert (second["loss"], second["skipped_steps"]) == (None, 1)


def test_nine_bad_steps_in_a_row_and_the_run_goes_on(tmp_path, videos):
    run = poisoned(make_run(tmp_path, videos, steps=22), {*range(2, 11), *range(12, 21)})
    run.train()
    losses = [entry["loss"] for entry in log(tmp_path)]
    assert [loss is None for loss in losses] == [step in (*range(2, 11), *range(12, 21)) for step in range(1, 23)]


def test_ten_bad_steps_in_a_row_end_the_run(tmp_path, videos):
    run = poisoned(make_run(tmp_path, videos, steps=30, checkpoint_every=1), range(3, 30))
    with pytest.raises(MTAnimateError, match="the last 10 steps, to step 12, were not finite") as caught:
        run.train()
    assert caught.value.exit_code == 1
    assert torch.load(tmp_path / "state" / "last.pt", weights_only=True)["step"] == 2
    again = make_run(tmp_path, videos, steps=4)
    assert again.resume()
    again.train()
    assert all(entry["loss"] is not None for entry in log(tmp_path))
    assert [entry["step"] for entry in log(tmp_path)] == [1, 2, 3, 4]


# Clips


@pytest.fixture(scope="session")
def damaged(tmp_path_factory, videos):
    """Two good clips and five that are not."""
    folder = tmp_path_factory.mktemp("damaged")
    for name in ("one.mp4", "two.mp4"):
        shutil.copy(videos / name, folder / name)
    content = (videos / "one.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(content[: len(content) // 2])
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("not a video\n" * 100)
    write_video(folder / "short.mp4", moving_square(1, 0.3))
    for number, size in enumerate((64, 64, 32)):
        (folder / "frames").mkdir(exist_ok=True)
        write_image(folder / "frames" / f"{number}.png", np.full((size, size, 3), 40 * number, np.uint8))
    return folder


def test_broken_clips_are_skipped_and_named_once(tmp_path, damaged):
    """The same with and without decoding processes."""
    path = write_settings(tmp_path / "tiny.yaml", wide_config(data={}, checkpoint_every=50))
    given = {"dataset": path, "data": damaged, "settings": ["training.steps=12"]}
    for processes in (0, 2):
        place = tmp_path / str(processes)
        place.mkdir()
        life = Life(place / "run", workers=processes, **given)
        assert life.end() == 0
        skipped = json.loads((place / "result.json").read_text())["skipped"]
        lines = [line.removeprefix("skipped: ") for line in life.said() if line.startswith("skipped: ")]
        assert sorted(lines) == skipped
        for name in ("cut.mp4", "empty.mp4", "text.mp4", "short.mp4", "frames"):
            assert sum(f"/{name}" in line for line in skipped) == 1, name
        assert len(skipped) == 5
        assert_same_end(tmp_path / "0" / "run", place / "run")


def test_nothing_but_broken_clips(tmp_path, damaged):
    for name in ("cut.mp4", "text.mp4"):
        (tmp_path / "clips").mkdir(exist_ok=True)
        shutil.copy(damaged / name, tmp_path / "clips" / name)
    path = write_settings(tmp_path / "tiny.yaml", wide_config())
    for processes in (0, 1):
        life = Life(tmp_path / "run", dataset=path, data=tmp_path / "clips", workers=processes)
        assert life.end() == 2
        assert life.said()[-1].startswith("50 clips in a row could not be read; the last: ")
