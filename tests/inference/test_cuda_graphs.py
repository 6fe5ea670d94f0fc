"""What is played back is what was recorded, with the inputs of now; a network can be recorded at all."""

import threading
from dataclasses import replace

import pytest
import torch
from elsewhere import elsewhere
from foreign import FOMM, RELEASE, TPSMM
from tiny import MODEL, tiny_animator

from mtanimate.config import BackgroundConfig, load_preset
from mtanimate.inference import cuda_graphs
from mtanimate.inference.cuda_graphs import CapturedNetwork
from mtanimate.inference.engine import prepare
from mtanimate.inference.predictor import Predictor
from mtanimate.models.animator import Animator

VARIANTS = {
    "ours": MODEL,
    "small": load_preset("small").model,
    "vox": load_preset("vox").model,
    "face": load_preset("face").model,
    "release, background": RELEASE,
    "FOMM": FOMM,
    "TPSMM": TPSMM,
    "TPSMM, full size": load_preset("tpsmm").model,
    "MRAA": replace(FOMM, estimator=replace(FOMM.estimator, name="mraa")),
    "background": replace(MODEL, background=BackgroundConfig(4, 8, 2)),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_nothing_is_brought_to_the_device_or_waited_for(name):
    """`meta` is a device without values: what asks for one fails there, as it would in a recording."""
    animator = prepare(Animator(VARIANTS[name]).eval().requires_grad_(False).to("meta"), "fp32")
    side = animator.config.resolution
    pictures = torch.empty(3, 3, side, side, device="meta")
    with torch.inference_mode():
        source = animator.encode_source(pictures[:1])
        background = animator.predict_background(pictures[:1], pictures)
        animator.render(source, animator.estimate_motion(pictures), background)  # tables are kept at the first call
        with elsewhere() as found:
            rendering = animator.render(source, animator.estimate_motion(pictures), background)
    assert rendering.prediction.shape == pictures.shape
    assert not found


class Replayed:
    """A recording's stand-in for machines without a GPU: fixed inputs, and fixed outputs that each call writes over."""

    made: int

    def __init__(self, function, examples, pool) -> None:
        type(self).made += 1
        self.function = function
        self.inputs = [example.clone() for example in examples]
        self.outputs = function(*self.inputs)

    def __call__(self, *inputs):
        for kept, given in zip(self.inputs, inputs, strict=True):
            kept.copy_(given)
        for output, value in zip(self.outputs, self.function(*self.inputs), strict=True):
            output.copy_(value)
        return tuple(output.clone() for output in self.outputs)


@pytest.fixture
def replayed(monkeypatch):
    Replayed.made = 0
    monkeypatch.setattr(cuda_graphs, "CapturedCall", Replayed)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    return Replayed


def pictures(count: int, seed: int) -> torch.Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def agree(animator, recorded, source, driving, backgrounds=False):
    """For a source and driving pictures the one gives what the other does."""
    results = []
    for network in (animator, recorded):
        encoded = network.encode_source(source)
        background = network.predict_background(source, driving) if backgrounds else None
        rendering = network.render(encoded, network.estimate_motion(driving), background)
        results.append([rendering.prediction, rendering.motion.masks, rendering.motion.flow])
        results[-1] += [] if rendering.motion.occlusion is None else [rendering.motion.occlusion]
    for wanted, found in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["ours", "FOMM", "MRAA", "TPSMM", "background"])
@torch.inference_mode()
def test_what_is_played_back_is_of_the_inputs_of_now(name, replayed):
    torch.manual_seed(0)
    animator = Animator(VARIANTS[name]).eval()
    recorded = CapturedNetwork(animator, pytest.fail)
    for seed in range(4):
        agree(animator, recorded, pictures(1, seed), pictures(3, 10 + seed), backgrounds=name == "background")
    assert replayed.made == 2  # the third call of each was the first that paid
    encoded = recorded.encode_source(pictures(1, 0))
    motion = recorded.estimate_motion(pictures(3, 1))
    first = recorded.render(encoded, motion).prediction
    for again in range(5):  # without a background: a recording of its own where there was one
        other = recorded.render(encoded, recorded.estimate_motion(pictures(3, again))).prediction
    assert not torch.equal(first, other)
    torch.testing.assert_close(first, animator.render(encoded, motion).prediction, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_each_size_of_batch_is_recorded_when_it_pays(replayed):
    animator = tiny_animator().eval()
    recorded = CapturedNetwork(animator, pytest.fail)
    for count in (3, 2, 3, 1, 3, 3):
        recorded.estimate_motion(pictures(count, count))
    assert replayed.made == 1
    for seed in range(3):
        many = recorded.encode_source(pictures(2, seed))  # a source for each frame
        recorded.render(many, recorded.estimate_motion(pictures(2, 5)))
    assert replayed.made == 3


@torch.inference_mode()
def test_what_cannot_be_recorded_is_computed(monkeypatch):
    def refuse(*given):
        raise RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later")

    monkeypatch.setattr(cuda_graphs, "CapturedCall", refuse)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    animator, said = tiny_animator().eval(), []
    recorded = CapturedNetwork(animator, said.append)
    for seed in range(5):
        agree(animator, recorded, pictures(1, seed), pictures(2, seed))
    assert len(said) == 1
    assert "CUDA error: out of memory" in said[0]


@pytest.fixture
def gpu():
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU")
    return torch.device("cuda")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_a_performer_on_a_gpu_plays_back(gpu, precision, monkeypatch):
    """Six batches, of which four are played back, against the same network launched kernel by kernel."""
    frames = [(255 * pictures(4, seed)).to(torch.uint8) for seed in range(6)]
    results = []
    for at_once in (2, 100):
        monkeypatch.setattr(cuda_graphs, "_UNCAPTURED", at_once)
        predictor = Predictor(tiny_animator().eval().to(gpu), precision, pytest.fail)
        source = predictor.encode(frames[0][:1])
        results.append([predictor.drive(source, predictor.estimate(batch)) for batch in frames])
        assert len(predictor.network._captured) == (2 if at_once == 2 else 0)
    for played, launched in zip(*results, strict=True):
        torch.testing.assert_close(played, launched, atol=1e-3, rtol=0)


def test_a_gpu_that_others_use_is_recorded_on(gpu):
    """As where two rows of a jobs file are performed at a time."""
    failed: list[str] = []
    busy = threading.Event()

    def other() -> None:
        matrix = torch.rand(512, 512, device=gpu)
        while not busy.is_set():
            matrix = (matrix @ matrix).softmax(dim=1)
            float(matrix.sum())

    def perform(seed: int) -> None:
        predictor = Predictor(tiny_animator(seed).eval().to(gpu), "fp32", failed.append)
        source = predictor.encode((255 * pictures(1, seed)).to(torch.uint8))
        for number in range(6):
            predictor.drive(source, predictor.estimate((255 * pictures(4, number)).to(torch.uint8)))

    threads = [threading.Thread(target=other), *(threading.Thread(target=perform, args=(seed,)) for seed in range(2))]
    for thread in threads:
        thread.start()
    for thread in threads[1:]:
        thread.join()
    busy.set()
    threads[0].join()
    assert not failed
