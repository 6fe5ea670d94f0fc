"""Several processes train as one: the same pairs, the same losses, and all stop together."""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lives import Life, load_all, log, write_settings
from processes import children, gone
from tiny import tiny_config
from torch.distributed import run as launcher
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from mtanimate.data.loading import EndlessEpochs
from mtanimate.errors import InputError
from mtanimate.training.distribution import first_host, run_workers

# The order of the data


@given(
    entries=st.integers(1, 9), repeats=st.integers(1, 4), seed=st.integers(0, 99), count=st.integers(1, 4),
    parts=st.integers(1, 3), each=st.integers(1, 3), start=st.integers(0, 40),
)  # fmt: skip
def test_workers_share_every_epoch(entries, repeats, seed, count, parts, each, start):
    """Each epoch has each entry `repeats` times, no pair twice, none left out, however many share them."""
    batch_size = count * parts * each
    steps = 2 * entries * repeats // batch_size + 2

    def drawn(rank, count, parts, start):
        options = {"batch_size": batch_size, "start": start, "rank": rank, "count": count, "parts": parts}
        batches = iter(EndlessEpochs(entries, repeats, seed, **options))
        return [[next(batches) for _ in range(parts)] for _ in range(steps)]

    whole = [pair for (batch,) in drawn(0, 1, 1, 0) for pair in batch]
    assert [number for number, _ in whole] == list(range(steps * batch_size))
    epoch = entries * repeats
    for begin in (0, epoch):
        entries_of_epoch = sorted(entry for _, entry in whole[begin : begin + epoch])
        assert entries_of_epoch == sorted(list(range(entries)) * repeats)
    shares = [drawn(rank, count, parts, 0) for rank in range(count)]
    together = [pair for step in range(steps) for share in shares for batch in share[step] for pair in batch]
    assert together == whole
    assert all(len(batch) == each for share in shares for step in share for batch in step)
    resumed = [pair for (batch,) in drawn(0, 1, 1, start) for pair in batch]
    known = [pair for pair in whole if pair[0] >= start]
    assert resumed[: len(known)] == known


def test_epochs_differ():
    batches = iter(EndlessEpochs(20, 1, 0, batch_size=20, start=0, rank=0, count=1, parts=1))
    first, second = ([entry for _, entry in next(batches)] for _ in range(2))
    assert first != second


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("localhost", "localhost"),
        ("gpu1,gpu2", "gpu1"),
        ("gpu[07-09,12],cpu1", "gpu07"),
        ("gpu[3,5-9]", "gpu3"),
        ("node-a-[001-128]", "node-a-001"),
        ("rack[0-3]n[1-8]", "rack0n1"),
        ("a.cluster.org", "a.cluster.org"),
    ],
)
def test_the_first_of_slurms_hosts(nodes, first):
    assert first_host(nodes) == first


def test_no_host_is_said():
    with pytest.raises(InputError, match="MASTER_ADDR"):
        first_host("")


# Two as one


STEPS = 10


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """Every phase, both directions, terms over the whole batch, batch statistics, a running mean."""
    config = tiny_config(
        steps=STEPS, equivariance_steps=3, warmup_steps=3, ema=0.9, precision="fp32", checkpoint_every=50,
        picture_every=50, milestones=(), validation_clips=1, data={"cache_gib": 0.1},
        loss={
            "both_directions": True, "anchor": 1.0, "equivariance_affine": 1.0, "perceptual": 1.0,
            "features": "efficientnet_lite0", "scales": (0.5,),
        },
    )  # fmt: skip
    return write_settings(tmp_path_factory.mktemp("settings") / "tiny.yaml", config)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, videos, settings):
    folder = tmp_path_factory.mktemp("alone") / "run"
    assert Life(folder, double=True, dataset=settings, data=videos).end() == 0
    return folder


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


def torchrun(rank: int) -> dict[str, str]:
    """What torchrun tells each of two workers."""
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    return {"MASTER_ADDR": "127.0.0.1", **{name: str(number) for name, number in numbers.items()}}


def slurm(rank: int) -> dict[str, str]:
    """What srun tells each of two tasks of a job on one node."""
    return {
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_TASKS_PER_NODE": "2",
        "SLURM_JOB_ID": "7",
    }


def two(folder, launcher, **options) -> list[int]:
    """Exit codes of two workers."""
    port = {"MASTER_PORT": str(free_port())}
    lives = [Life(folder, environment=launcher(rank) | port, **options) for rank in (0, 1)]
    return [life.end() for life in lives]


def assert_same_losses(first: Path, second: Path, *, to: int) -> None:
    """All terms and gradient norms, from the first step on."""
    one, other = (
        [dict(entry, validation_error=0, validation_repeating=0) for entry in log(run)] for run in (first, second)
    )
    assert [entry["step"] for entry in other] == list(range(1, to + 1))
    for here, there in zip(one, other, strict=False):
        assert there == pytest.approx(here, rel=1e-8)


def test_two_workers_train_as_one(tmp_path, videos, settings, alone):
    """In float64, where rounding does not grow to something within ten steps: all terms, weights, statistics."""
    folder = tmp_path / "run"
    assert two(folder, torchrun, double=True, dataset=settings, data=videos) == [0, 0]
    assert_same_losses(alone, folder, to=STEPS)
    one, other = log(alone)[-1], log(folder)[-1]
    assert {"anchor", "perceptual", "pixel", "equivariance_keypoints", "equivariance_affine"} < other.keys()
    assert other["validation_error"] == pytest.approx(one["validation_error"], rel=1e-6)
    states = [torch.load(run / "state" / "last.pt", weights_only=True) for run in (alone, folder)]
    for part in ("model", "ema"):
        for name, tensor in states[0][part].items():
            torch.testing.assert_close(states[1][part][name], tensor, rtol=1e-6, atol=1e-6)
    assert states[0]["pairs"] == states[1]["pairs"]


def test_float32_differs_by_rounding_alone(tmp_path, videos, settings):
    """The step of each phase from the same weights; from there on rounding grows."""
    for phase in ([], ["training.equivariance_steps=0"], ["training.equivariance_steps=0", "training.warmup_steps=0"]):
        changed = {"dataset": settings, "data": videos, "settings": ["training.steps=1", *phase]}
        one, other = tmp_path / f"one{len(phase)}" / "run", tmp_path / f"two{len(phase)}" / "run"
        one.parent.mkdir()
        other.parent.mkdir()
        assert Life(one, **changed).end() == 0
        assert two(other, torchrun, **changed) == [0, 0]
        first, second = log(one)[0], log(other)[0]
        names = [name for name in first if name not in ("gradient_norm", "validation_error")]  # kinks: see below
        assert {name: second[name] for name in names} == pytest.approx({name: first[name] for name in names}, rel=1e-4)
        # The flat parts of the pictures are predicted all but exactly: the sign of their error is chance.
        assert second["gradient_norm"] == pytest.approx(first["gradient_norm"], rel=0.03)


def test_a_run_goes_on_with_another_number_of_workers(tmp_path, videos, settings, alone):
    """Begun by SLURM with two, gone on with alone."""
    folder = tmp_path / "run"
    options = {"double": True, "dataset": settings, "data": videos}
    assert two(folder, slurm, settings=["training.steps=5"], **options) == [0, 0]
    assert_same_losses(alone, folder, to=5)
    assert Life(folder, settings=["training.steps=8"], **options).end() == 0
    assert_same_losses(alone, folder, to=8)


# Ends


def launched(out: Path, settings: Path, videos: Path) -> tuple[subprocess.Popen, list[int]]:
    """Two workers of PyTorch's launcher, as `--gpus 2` starts them, some steps on; and their process numbers."""
    code = "import sys; from mtanimate.training.distribution import run_workers; sys.exit(run_workers(2, sys.argv[1:]))"
    options = ["--dataset", settings, "--data", videos, "--out", out, "--device", "cpu", "--steps", 100000]
    options += ["--checkpoint-every", 2]
    process = subprocess.Popen(
        [sys.executable, "-c", code, "train", *map(str, options)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (out / "state" / "last.pt").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    started = children(process.pid)
    return process, sorted(one for one in started if b"mtanimate" in Path(f"/proc/{one}/cmdline").read_bytes())


@pytest.mark.parametrize(
    ("ends", "code"), [([-9, 1], 137), ([-9, -15], 137), ([1, -15], 143), ([2, 1], 2), ([2, -15], 2), ([1, 1], 1)]
)
def test_the_code_is_that_of_the_worker_that_ended_first(ends, code, monkeypatch):
    """The others end because of it: with 1, or by the launcher's SIGTERM."""
    failed = ChildFailedError.__new__(ChildFailedError)
    failed.failures = {rank: SimpleNamespace(exitcode=end) for rank, end in enumerate(ends)}

    def run(options):
        raise failed

    monkeypatch.setattr(launcher, "run", run)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    try:
        assert run_workers(2, []) == code
    finally:
        logging.disable(logging.NOTSET)


@pytest.mark.skipif(sys.platform != "linux", reason="finds the launcher's children in Linux's /proc")
@pytest.mark.parametrize(
    ("to", "code"),
    [("one", 137), *(pytest.param(*ending, marks=pytest.mark.slow) for ending in (("all", 143), ("launcher", -9)))],
)
def test_workers_end_together(tmp_path, videos, settings, to, code):
    """SIGTERM to launcher and workers, as batch systems send it, stops and saves; one that is killed ends all, and so
    does the launcher."""
    process, workers = launched(tmp_path / "run", settings, videos)
    try:
        assert len(workers) == 2
        for worker in {"all": workers, "one": workers[1:], "launcher": [process.pid]}[to]:
            os.kill(worker, signal.SIGTERM if to == "all" else signal.SIGKILL)
        if to == "all":
            process.terminate()
        _, stderr = process.communicate(timeout=60)
    except BaseException:
        for each in (*workers, process.pid):
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        raise
    assert process.returncode == code, stderr
    assert "Traceback" not in stderr
    assert all(gone(worker) for worker in workers)
    assert load_all(tmp_path / "run") >= 2
    last = stderr.splitlines()[-1]
    if to != "one":
        step = log(tmp_path / "run")[-1]["step"]
        assert last == f"mtanimate: stopped at step {step}, saved: the same command goes on"
        assert stderr.count("saved: the same") == 1
        assert torch.load(tmp_path / "run" / "state" / "last.pt", weights_only=True)["step"] == step
    else:
        assert last.startswith("mtanimate: another worker of this run ended: ")
