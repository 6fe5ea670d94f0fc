"""Frames side by side: the same results as one after the other, whatever fails, and in forked processes."""

import multiprocessing
import os
import subprocess
import sys
import threading

import pytest
import torch
from tiny import tiny_animator

from mtanimate.inference.predictor import Predictor
from mtanimate.inference.threads import frames_at_once, side_by_side


@pytest.fixture(params=[1, 2, 3, 8])
def threads(request, monkeypatch):
    """As many threads as PyTorch says it has."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: request.param)
    return request.param


@pytest.mark.parametrize(("first", "end"), [(0, 1), (0, 2), (3, 10), (5, 21)])
def test_each_frame_once_and_in_order(threads, first, end):
    found = side_by_side(lambda part: list(range(part.start, part.stop)), slice(first, end))
    assert [number for part in found for number in part] == list(range(first, end))
    assert len(found) <= threads


def test_pieces_are_worked_on_at_the_same_time_each_by_one_thread(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    meeting = threading.Barrier(3, timeout=30)

    def work(part):
        meeting.wait()
        return torch.is_inference_mode_enabled(), threading.current_thread().name

    found = side_by_side(work, slice(0, 6))
    assert all(inference for inference, _ in found)
    assert len({name for _, name in found}) == 3


def test_layers_of_a_piece_are_computed_by_its_own_thread():
    """By OpenMP's number of threads, which PyTorch takes; that of the process stays."""
    code = """
import torch
from mtanimate.inference.threads import side_by_side
threads = torch.get_num_threads()
found = side_by_side(lambda part: torch.get_num_threads(), slice(0, 2 * threads))
assert found == [1] * threads, found
assert torch.get_num_threads() == threads == 2
"""
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_error_is_raised_when_all_pieces_have_ended(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    ended = threading.Event()

    def work(part):
        if part.start == 0:
            raise RuntimeError("out of memory")
        ended.wait(0.2)
        ended.set()

    with pytest.raises(RuntimeError, match="out of memory"):
        side_by_side(work, slice(0, 4))
    assert ended.is_set()


def _doubled(part):
    return [2 * number for number in range(part.start, part.stop)]


def _in_child(answers):
    answers.put(side_by_side(_doubled, slice(0, 4)))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
def test_a_forked_process_has_threads_of_its_own(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    expected = side_by_side(_doubled, slice(0, 4))
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=_in_child, args=(answers,))
    child.start()
    assert answers.get(timeout=60) == expected
    child.join(60)
    assert child.exitcode == 0


def test_a_batch_grows_with_the_threads_within_limits(threads):
    assert frames_at_once() == {1: 4, 2: 4, 3: 6, 8: 16}[threads]


# The predictor


@pytest.fixture(scope="module")
def pictures():
    return torch.randint(0, 256, (7, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def driven(predictor, pictures, moving, lock):
    source = predictor.encode(pictures if moving else pictures[:1])
    motion = predictor.estimate(pictures)
    layers = predictor.drive_layers(source, motion, lock=lock)
    return predictor.drive(source, motion, lock=lock), layers.painted, layers.gate


@pytest.mark.parametrize("moving", [False, True])
@pytest.mark.parametrize("lock", [False, True])
def test_frames_are_as_from_one_thread(pictures, moving, lock, monkeypatch):
    animator = tiny_animator().eval()
    wanted = driven(Predictor(animator, "fp32", pytest.fail), pictures, moving, lock)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    found = driven(Predictor(animator, "fp32", pytest.fail), pictures, moving, lock)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


@pytest.mark.parametrize("moving", [False, True])
def test_half_precision_that_fails_on_one_thread_fails_once(pictures, moving, monkeypatch):
    """The whole batch is computed again in float32, and nobody hears of it twice."""
    animator = tiny_animator().eval()
    wanted = driven(Predictor(animator, "fp32", pytest.fail), pictures, moving, False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)

    def spoil(module, inputs, output):
        return torch.full_like(output, torch.nan) if torch.is_autocast_enabled("cpu") else output

    animator.generator.final.register_forward_hook(spoil)
    said = []
    predictor = Predictor(animator, "bf16", said.append)
    found = driven(predictor, pictures, moving, False)
    assert predictor.precision == "fp32"
    assert len(said) == 1
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=0.02, rtol=0)


def test_memory_that_one_thread_lacks(pictures, monkeypatch):
    animator = tiny_animator().eval()
    wanted = Predictor(animator, "fp32", pytest.fail).estimate(pictures)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)

    def full(module, inputs):
        if len(inputs[0]) > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    animator.motion_estimator.register_forward_pre_hook(full)
    said = []
    found = Predictor(animator, "fp32", said.append, batch_size=6).estimate(pictures)
    torch.testing.assert_close(found.keypoints, wanted.keypoints, atol=1e-5, rtol=0)
    assert len(said) == 1
    assert "6 frames at once: going on with 3" in said[0]
