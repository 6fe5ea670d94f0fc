"""`mtanimate train` as a user runs it, interrupts it, and uses what it made."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from commands import moving_disc
from forks import Running, run
from lives import differing, load_all, log, write_settings
from tiny import tiny_config

from mtanimate.video import VideoWriter

ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}  # the same sums each time, and no waiting on a busy machine
SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "talking-heads" / "train"


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Ten clips of five people: real ones where they are at hand."""
    folder = tmp_path_factory.mktemp("clips")
    real = sorted(SHARED.glob("*.mp4"))[:10]
    for number in range(10):
        path = folder / f"p{number // 2}__{number % 2:02d}.mp4"
        if len(real) == 10:
            path.symlink_to(real[number])
        else:
            with VideoWriter(path, fps=25, width=64, height=64) as writer:
                writer.write(moving_disc(12 + number))
    return folder


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    config = tiny_config(steps=4, precision="fp32", checkpoint_every=2, ema=0.5, validation_clips=2)
    return write_settings(tmp_path_factory.mktemp("settings") / "tiny.yaml", config)


def steps_taken(folder: Path) -> int:
    file = folder / "log.jsonl"
    return file.read_text("utf-8").count("\n") if file.exists() else 0


def test_ten_clips_to_an_animation(clips, settings, media, tmp_path):
    options = ["--dataset", settings, "--data", clips, "--out", tmp_path / "run", "--device", "cpu", "--json"]
    trained = run("train", *options, env=ONE_THREAD)
    assert trained.returncode == 0, trained.stderr
    result = json.loads(trained.stdout)
    assert result["steps"] == 4
    assert result["skipped"] == []
    done = run(
        "animate", "--source", media / "face.png", "--driving", media / "silent.mp4",
        "--out", tmp_path / "o.mp4", "--checkpoint", result["checkpoint"], "--device", "cpu",
        env=ONE_THREAD,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "o.mp4").stat().st_size > 1000


ENDINGS = [(signal.SIGKILL, 1), (signal.SIGINT, 2), (signal.SIGTERM, 0), (signal.SIGKILL, 0), (signal.SIGINT, 0)]


@pytest.mark.skipif(os.name != "posix", reason="signals to a process group")
@pytest.mark.parametrize("endings", [ENDINGS[:2], pytest.param(ENDINGS, marks=pytest.mark.slow)], ids=len)
def test_a_command_that_is_killed_interrupted_and_ended_goes_on(clips, settings, tmp_path, endings):
    """Each time the same command, but for the decoding processes: at its end as if nothing had been."""
    steps = 8 * len(endings)
    options = ["train", "--dataset", settings, "--data", clips, "--device", "cpu", "--steps", steps]
    options += ["--checkpoint-every", 3]
    folder = tmp_path / "run"
    for number, processes in endings:
        before = steps_taken(folder)
        with Running(*options, "--out", folder, "--workers", processes, env=ONE_THREAD) as running:
            wait_for_steps(folder, before + 4, running)
            end = os.killpg if number == signal.SIGINT else os.kill
            end(running.process.pid, number)
            done = running.end(60)
        if number == signal.SIGKILL:
            assert done.returncode == -number, done.stderr
        else:
            assert done.returncode == 128 + number, done.stderr
            step = log(folder)[-1]["step"]
            assert done.stderr.splitlines()[-1] == f"mtanimate: stopped at step {step}, saved: the same command goes on"
            assert "Traceback" not in done.stderr
        wait_for_the_group_to_end(running.process.pid)
    assert run(*options, "--out", folder, env=ONE_THREAD).returncode == 0
    assert run(*options, "--out", tmp_path / "whole", env=ONE_THREAD).returncode == 0
    assert log(folder) == log(tmp_path / "whole")
    assert [entry["step"] for entry in log(folder)] == list(range(1, steps + 1))
    states = [torch.load(each / "state" / "last.pt", weights_only=True) for each in (folder, tmp_path / "whole")]
    for state in states:
        del state["best"]  # where it was interrupted it was validated, too
    assert differing(*states) == []
    load_all(folder)


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_two_commands_do_not_train_in_one_folder(clips, settings, tmp_path):
    """The second leaves the first one's folder as it is; when that was killed, the same command takes over."""
    folder = tmp_path / "run"
    command = ["train", "--dataset", settings, "--data", clips, "--device", "cpu", "--steps", 100_000, "--out", folder]
    half_written = folder / "state" / ".last-mtanimate-0123abcd-1-1-0123abcd.pt"  # another machine's, long ago
    with Running(*command, "--checkpoint-every", 3, env=ONE_THREAD) as first:
        wait_for_steps(folder, 4, first)
        half_written.touch()
        os.utime(half_written, (0, 0))
        second = run(*command, env=ONE_THREAD)
        assert half_written.exists()
        assert first.process.is_alive()
        first.process.kill()
    assert second.returncode == 1
    assert second.stderr.splitlines()[-1] == (
        f"mtanimate: --out: another training is at work in '{folder}': wait for its end, or choose another folder"
    )
    before = steps_taken(folder)
    with Running(*command, "--checkpoint-every", 3, env=ONE_THREAD) as third:
        wait_for_steps(folder, before + 4, third)
        third.process.terminate()
        done = third.end(60)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert not half_written.exists()


def wait_for_steps(folder: Path, count: int, running: Running) -> None:
    deadline = time.monotonic() + 120
    while steps_taken(folder) < count and running.process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)


def wait_for_the_group_to_end(group: int) -> None:
    """Decoding processes notice within seconds that the main one was killed. Fails where one is left."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    os.killpg(group, signal.SIGKILL)
    raise AssertionError("a process was left behind")


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        (["--gpus", "1000"], 2, "--gpus 1000: PyTorch sees"),
        (["--data", "empty"], 2, "no videos"),
        (["--set", "training.freeze=[hands]"], 2, "training.freeze: 'hands' is not one of"),
        (["--init", "missing.safetensors"], 2, "missing.safetensors"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(clips, settings, tmp_path, changes, code, said):
    (tmp_path / "empty").mkdir()
    options = ["--dataset", settings, "--data", clips, "--out", tmp_path / "run", *changes]
    done = run("train", *options, cwd=tmp_path)
    assert done.returncode == code
    assert said in done.stderr.splitlines()[-1]
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()
