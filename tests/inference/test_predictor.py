"""A network at work: what fails on the way is noticed and mended, backgrounds can stand still."""

import subprocess
import sys
from dataclasses import replace
from threading import Barrier, Thread

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import CONFIG, MODEL, tiny_animator

import mtanimate
from mtanimate.animation.retargeting import RelativeTransfer
from mtanimate.checkpoints.file import write_checkpoint
from mtanimate.config import BackgroundConfig
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.inference import engine
from mtanimate.inference.engine import PreparedNetwork
from mtanimate.inference.predictor import Predictor
from mtanimate.models.animator import Animator


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """These tests count calls of the network, and `test_threads.py` shares frames among threads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 1)
        yield


@pytest.fixture
def pictures():
    return torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def spoiled(animator, value, monkeypatch):
    """The generator's output is `value` everywhere under autocast, as where half precision overflows."""
    render = animator.render

    def broken(source, motion, background=None):
        rendering = render(source, motion, background)
        if torch.is_autocast_enabled("cpu"):
            return replace(rendering, prediction=torch.full_like(rendering.prediction, value))
        return rendering

    monkeypatch.setattr(animator, "render", broken)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_a_batch_that_half_precision_spoils_is_computed_again(value, pictures, monkeypatch):
    animator = tiny_animator().eval()
    expected = Predictor(animator, "fp32", print)
    source = expected.encode(pictures[:1])
    motion = expected.estimate(pictures)
    wanted = expected.drive(source, motion)
    said = []
    spoiled(animator, value, monkeypatch)
    predictor = Predictor(animator, "bf16", said.append)
    driven = predictor.drive(predictor.encode(pictures[:1]), motion)
    torch.testing.assert_close(driven, wanted, atol=1e-5, rtol=0)
    predictor.drive(predictor.encode(pictures[:1]), motion)
    assert predictor.precision == "fp32"
    assert len(said) == 1  # once


def test_motion_that_half_precision_spoils_is_read_again(pictures, monkeypatch):
    animator = tiny_animator().eval()
    estimate = animator.estimate_motion
    wanted = estimate(pictures.float() / 255)

    def broken(frames):
        motion = estimate(frames)
        return replace(motion, affine=motion.affine * float("nan")) if torch.is_autocast_enabled("cpu") else motion

    monkeypatch.setattr(animator, "estimate_motion", broken)
    said = []
    read = Predictor(animator, "fp16", said.append).estimate(pictures)
    torch.testing.assert_close(read.affine, wanted.affine, atol=1e-5, rtol=0)
    assert "fp16 gave values that are not finite" in said[0]


def test_keypoints_do_not_tremble_in_bf16(pictures):
    """bf16 has eight bits: the estimator stays in float32 with it."""
    read = [Predictor(tiny_animator().eval(), precision, print).estimate(pictures) for precision in ("fp32", "bf16")]
    assert torch.equal(read[0].keypoints, read[1].keypoints)


def test_a_black_source_may_stay_black(pictures, monkeypatch):
    animator = tiny_animator().eval()
    spoiled(animator, 0.0, monkeypatch)
    predictor = Predictor(animator, "bf16", lambda line: None)
    predictor.drive(predictor.encode(torch.zeros_like(pictures[:1])), predictor.estimate(pictures))
    assert predictor.precision == "bf16"


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_locked_background_is_the_sources(share, pictures, monkeypatch):
    """share: of every pixel that the masks give to the background."""
    animator = tiny_animator().eval()
    dense_motion = animator.dense_motion.forward

    def masked(*arguments):
        dense = dense_motion(*arguments)
        masks = torch.zeros_like(dense.masks)
        masks[:, 0], masks[:, 1] = share, 1 - share
        return replace(dense, masks=masks)

    monkeypatch.setattr(animator.dense_motion, "forward", masked)
    predictor = Predictor(animator, "fp32", print)
    source, motion = predictor.encode(pictures[:1]), predictor.estimate(pictures)
    moved, locked = predictor.drive(source, motion), predictor.drive(source, motion, lock=True)
    expected = (pictures[:1].float() / 255).expand(4, -1, -1, -1) if share else moved
    torch.testing.assert_close(locked, expected, atol=1e-5, rtol=0)


# One failure after the other. Faults are put into modules by hooks, which a copy of the network has, too.


def faulty(animator, *, motion=(), flow=(), half=True):
    """Calls of the estimator and of the mask predictor, from 0 on, whose results are not finite; half: calls in half
    precision alone are counted."""
    counts = {"motion": 0, "flow": 0}

    def spoil(what, calls, broken):
        def hook(module, inputs, result):
            if half and not torch.is_autocast_enabled("cpu"):
                return result
            counts[what] += 1
            return broken(result) if counts[what] - 1 in calls else result

        return hook

    def no_motion(result):
        return replace(result, keypoints=result.keypoints * torch.nan)

    def no_flow(result):
        return replace(result, flow=result.flow * torch.nan)

    animator.motion_estimator.register_forward_hook(spoil("motion", motion, no_motion))
    animator.dense_motion.register_forward_hook(spoil("flow", flow, no_flow))
    return animator


def performed(animator, precision, pictures, said):
    """Two faces, driven by twelve frames that are read in batches of four after the first face was encoded."""
    predictor = Predictor(animator, precision, said.append)
    first = predictor.encode(pictures[:1])
    frames = pictures.repeat(3, 1, 1, 1).split(4)
    motions = [predictor.estimate(batch) for batch in frames]
    second = predictor.encode(pictures[1:2])
    return [predictor.drive(face, motion) for motion in motions for face in (first, second)], predictor


@pytest.mark.parametrize("where", [{"motion": [3]}, {"motion": [4]}, {"flow": [0]}, {"flow": [1]}, {"flow": [3]}])
def test_half_precision_that_fails_late_leaves_nothing_half_behind(where, pictures):
    """Call 3 of the estimator is the third batch, 4 the second face; of the mask predictor 1 is the second face."""
    said = []
    wanted, _ = performed(tiny_animator().eval(), "fp32", pictures, said)
    found, predictor = performed(faulty(tiny_animator().eval(), **where), "fp16", pictures, said)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=0.02, rtol=0)  # of noise, by motion read in fp16
    assert predictor.precision == "fp32"
    assert len(said) == 1


@pytest.mark.parametrize("fails", [[0], [1], [0, 1, 2], [2]])
def test_frames_that_float32_spoils_show_the_one_before(fails, pictures):
    """Batches of one frame; before the first that is whole, the source is shown."""
    said = []
    predictor = Predictor(faulty(tiny_animator().eval(), flow=fails, half=False), "fp32", said.append)
    plain = Predictor(tiny_animator().eval(), "fp32", pytest.fail)
    source, other = predictor.encode(pictures[:1]), plain.encode(pictures[:1])
    shown = pictures[0].float() / 255
    for number, picture in enumerate(pictures):
        motion = plain.estimate(picture[None])
        found, whole = predictor.drive(source, motion), plain.drive(other, motion)
        shown = shown if number in fails else whole[0]
        torch.testing.assert_close(found[0], shown)
    assert len(said) == 1
    assert "not finite" in said[0]


@pytest.mark.parametrize("exact", [False, True])
def test_a_frame_within_a_batch_shows_the_one_before(exact, pictures):
    """Where edges are repeated, a flow that is not finite reads the corner: without occlusion the result is finite."""
    model = replace(MODEL, dense_motion=replace(MODEL.dense_motion, occlusion=not exact, exact_sampling=exact))
    predictor = Predictor(Animator(model).eval(), "fp32", lambda line: None)
    source, motion = predictor.encode(pictures[:1]), predictor.estimate(pictures)
    whole = predictor.drive(source, motion)
    keypoints = motion.keypoints.clone()
    keypoints[2] = torch.nan
    motion = replace(motion, keypoints=keypoints)
    torch.testing.assert_close(predictor.drive(source, motion), whole[[0, 1, 1, 3]])


def test_a_background_that_half_precision_spoils_is_predicted_again(pictures):
    animator = Animator(replace(MODEL, background=BackgroundConfig(4, 8, 2))).eval()
    animator.background_predictor.register_forward_hook(
        lambda module, inputs, result: result * torch.nan if torch.is_autocast_enabled("cpu") else result
    )
    said = []
    found = []
    for precision in ("bf16", "fp32"):
        predictor = Predictor(animator, precision, said.append)
        found.append(predictor.predict_background(predictor.encode(pictures[:1]), pictures))
    torch.testing.assert_close(*found)
    assert len(said) == 1


# Memory


def small_memory(animator, most):
    """As on a GPU that has room for so many frames at once. Returns the network and the sizes it was given."""
    sizes = []

    def hook(module, inputs):
        sizes.append(len(inputs[-1] if isinstance(inputs[-1], torch.Tensor) else inputs[2]))
        if sizes[-1] > most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    animator.motion_estimator.register_forward_pre_hook(hook)
    animator.dense_motion.register_forward_pre_hook(hook)
    return animator, sizes


@pytest.fixture(scope="module")
def many():
    return torch.randint(0, 256, (11, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@settings(max_examples=15, deadline=None)
@given(size=st.integers(1, 12), most=st.integers(1, 12), moving=st.booleans(), lock=st.booleans())
def test_what_does_not_fit_is_computed_in_parts(size, most, moving, lock, many):
    plain = Predictor(tiny_animator().eval(), "fp32", pytest.fail, batch_size=20)
    animator, sizes = small_memory(tiny_animator().eval(), most)
    said = []
    predictor = Predictor(animator, "fp32", said.append, batch_size=size)
    results = []
    for one in (plain, predictor):
        source = one.encode(many if moving else many[:1])
        results.append(one.drive(source, one.estimate(many), lock=lock))
    torch.testing.assert_close(*results, atol=1e-5, rtol=0)
    tries, allowed = 0, min(size, len(many))
    while allowed > most:
        tries, allowed = tries + 1, allowed // 2
    assert len(said) == tries
    assert predictor.batch_size == size
    assert max(sizes) <= max(size, 1)


def test_memory_that_ends_late_and_half_precision_that_fails_in_the_parts(pictures):
    """The third batch does not fit; a half of it is not finite in half precision; the rest goes on in float32, in
    halves."""
    said = []
    wanted, _ = performed(tiny_animator().eval(), "fp32", pictures, said)
    animator = faulty(tiny_animator().eval(), motion=[4])
    calls = []

    def hook(module, inputs):
        calls.append(len(inputs[0]))
        if len(calls) >= 4 and calls[-1] > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    animator.motion_estimator.register_forward_pre_hook(hook)
    found, predictor = performed(animator, "fp16", pictures, said)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=0.02, rtol=0)  # of noise, by motion read in fp16
    assert predictor.precision == "fp32"
    assert len(said) == 2
    assert "4 frames at once: going on with 2" in said[0]


def test_one_frame_that_does_not_fit_is_an_error_of_one_line(pictures):
    animator, _ = small_memory(tiny_animator().eval(), 0)
    with pytest.raises(MTAnimateError, match="--device cpu"):
        Predictor(animator, "fp32", print).estimate(pictures)


def test_other_errors_are_not_taken_for_a_lack_of_memory(pictures):
    animator = tiny_animator().eval()

    def fail(module, inputs):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    animator.motion_estimator.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="illegal"):
        Predictor(animator, "fp32", pytest.fail).estimate(pictures)


# Threads that share a network


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_network_is_prepared_once_by_whoever_comes_first(precision, pictures, monkeypatch):
    """Both threads are there before either may begin, and each folding of norms waits for the other thread's for a
    moment: without a lock both would be inside."""
    plain = Predictor(tiny_animator().eval(), precision, pytest.fail)
    wanted = plain.drive(plain.encode(pictures[:1]), plain.estimate(pictures))
    inside, begin, entered = Barrier(2), Barrier(2), []
    fold = engine.fold_batch_norms

    def folding(network):
        entered.append(network)
        with pytest.raises(Exception):  # noqa: B017, PT011 - a broken barrier: nobody else comes
            inside.wait(0.5)
        return fold(network)

    monkeypatch.setattr(engine, "fold_batch_norms", folding)
    shared, found = PreparedNetwork(tiny_animator().eval()), []

    def perform():
        begin.wait(10)
        predictor = Predictor(shared, precision, pytest.fail)
        found.append(predictor.drive(predictor.encode(pictures[:1]), predictor.estimate(pictures)))

    threads = [Thread(target=perform) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(entered) == 1
    for one in found:
        torch.testing.assert_close(one, wanted, atol=1e-5, rtol=0)
    assert len(found) == 2


def test_a_job_after_one_that_fell_back_begins_in_half_precision_again(pictures):
    shared = PreparedNetwork(faulty(tiny_animator().eval(), motion=[0]))
    said = []
    first = Predictor(shared, "fp16", said.append)
    first.estimate(pictures)
    second = Predictor(shared, "fp16", said.append)
    motion = second.estimate(pictures)
    torch.testing.assert_close(motion.keypoints, first.estimate(pictures).keypoints, atol=5e-3, rtol=0)
    assert (first.precision, second.precision) == ("fp32", "fp16")
    assert len(said) == 1


# From a checkpoint to a call


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A network that predicts backgrounds, too."""
    config = replace(CONFIG, model=replace(MODEL, background=BackgroundConfig(4, 8, 2)))
    torch.manual_seed(0)
    animator = Animator(config.model).eval()
    torch.nn.init.normal_(animator.background_predictor.fc.weight, std=0.3)
    file = tmp_path_factory.mktemp("checkpoint") / "a.safetensors"
    write_checkpoint(file, animator, config, {"steps": 0})
    return file


def photos(count, height, width):
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def load(checkpoint, **options):
    return mtanimate.Predictor.load(str(checkpoint), device="cpu", precision="fp32", **options)


def test_a_source_is_set_once_and_predicted_often(checkpoint):
    predictor, plain = load(checkpoint), mtanimate.load(str(checkpoint), "cpu")
    picture, driving = photos(1, 64, 64)[0], photos(5, 64, 64)
    predictor.set_source(picture)
    predicted = [predictor.predict(part) for part in (driving[:3], driving[3:])]
    images = [torch.from_numpy(given).permute(0, 3, 1, 2).float() / 255 for given in (picture[None], driving)]
    with torch.no_grad():
        background = plain.predict_background(images[0], images[1])
        wanted = plain.drive(plain.encode_source(images[0]), plain.estimate_motion(images[1]), background)
    found = np.concatenate(predicted)
    assert (found.dtype, found.shape) == (np.uint8, (5, 64, 64, 3))
    assert np.abs(found / 255 - wanted.permute(0, 2, 3, 1).numpy()).max() < 0.01
    predictor.set_source(driving[1])
    assert (predictor.predict(driving[:3]) != predicted[0]).any()


def test_motion_that_was_retargeted_is_applied_as_it_is(checkpoint):
    predictor = load(checkpoint)
    driving = photos(3, 48, 80)
    predictor.set_source(photos(1, 96, 64)[0])
    rest, motion = predictor.source.motion, predictor.read_motion(driving)
    moved = predictor.predict(RelativeTransfer(motion, reference=motion[:1]).onto(rest, rest))
    still = predictor.predict(rest)
    assert np.abs(moved[:1].astype(int) - still).max() <= 1  # the reference frame is the source at rest
    assert (moved[1:] != still).any()


def test_no_source_is_said(checkpoint):
    with pytest.raises(InputError, match="set_source"):
        load(checkpoint).predict(photos(1, 64, 64))


def test_importing_the_package_imports_no_torch():
    code = (
        "import sys, mtanimate; assert 'torch' not in sys.modules; mtanimate.Predictor; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="Predicter"):
        mtanimate.Predicter  # noqa: B018
