"""Which device is taken: Apple's GPU only where it computes what networks need."""

import pytest
import torch
from foreign import FOMM
from tiny import MODEL, tiny_animator
from torch.utils._python_dispatch import TorchDispatchMode

from mtanimate import devices
from mtanimate import doctor as diagnosis
from mtanimate.devices import choose_device, mps_fault, out_of_memory
from mtanimate.errors import InputError
from mtanimate.metrics.measures import METRICS, measure
from mtanimate.models.animator import Animator


@pytest.fixture
def mac(monkeypatch):
    """A machine with Metal and without CUDA, whose PyTorch samples as `sampled` says: a CPU's function, changed."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    sampled = devices._sampled
    mps_fault.cache_clear()

    def with_metal(change):
        def sample(device, padding, exact, training):
            result = sampled("cpu", padding, exact, training)
            return change(result, padding, training) if device == "mps" else result

        monkeypatch.setattr(devices, "_sampled", sample)

    yield with_metal
    mps_fault.cache_clear()


def no_border(result, padding, training):  # PyTorch before 2.13
    if padding == "border":
        raise RuntimeError("MPS: Unsupported Border padding mode")
    return result


def no_gradient(result, padding, training):
    if training:
        raise NotImplementedError("The operator 'aten::grid_sampler_2d_backward' is not currently implemented for MPS")
    return result


def wrong(result, padding, training):
    return result + 0.01 * (padding == "border")


def nothing(result, padding, training):  # PyTorch 2.4
    raise RuntimeError("User specified an unsupported autocast device_type 'mps'")


def whole(result, padding, training):
    return result + 1e-6


@pytest.mark.parametrize(
    ("change", "inference", "training"),
    [
        (no_border, "cpu", "cpu"),
        (no_gradient, "mps", "cpu"),
        (wrong, "cpu", "cpu"),
        (nothing, "cpu", "cpu"),
        (whole, "mps", "mps"),
    ],
)
def test_metal_is_taken_where_it_computes_what_is_needed(change, inference, training, mac):
    mac(change)
    for wanted, trains in ((inference, False), (training, True)):
        said = []
        assert choose_device("auto", said.append, training=trains).type == wanted
        assert len(said) == (wanted == "cpu")
        if wanted == "mps":
            assert choose_device("mps", training=trains).type == "mps"
        else:
            with pytest.raises(InputError, match="grid_sample"):
                choose_device("mps", training=trains)
        assert choose_device("cpu").type == "cpu"


@pytest.mark.parametrize(("change", "device"), [(no_border, "cpu"), (no_gradient, "mps"), (whole, "mps")])
def test_doctor_says_what_was_found(change, device, mac):
    mac(change)
    detail = diagnosis._device().detail
    assert detail.startswith(device)
    assert ("grid_sample" in detail) == (change is not whole)


def test_a_build_that_has_no_metal_fails_the_trial(monkeypatch):
    """The real thing, on whatever machine this is."""
    if torch.backends.mps.is_available():
        pytest.skip("it has")
    mps_fault.cache_clear()
    assert "grid_sample" in mps_fault(False)
    mps_fault.cache_clear()


def test_without_metal_nothing_is_tried(monkeypatch):
    monkeypatch.setattr(devices, "mps_fault", None)
    if not torch.cuda.is_available() and not torch.backends.mps.is_available():
        assert choose_device("auto", pytest.fail).type == "cpu"


class NoDoubles(TorchDispatchMode):
    """As on Apple's GPU, for which `meta` stands: there is no float64."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for one in result if isinstance(result, tuple | list) else [result]:
            if isinstance(one, torch.Tensor) and one.device.type == "meta" and one.dtype == torch.float64:
                raise TypeError(f"{function}: Cannot convert a MPS Tensor to float64 dtype")
        return result


@pytest.mark.parametrize("config", [MODEL, FOMM], ids=["ours", "FOMM"])
def test_a_network_has_no_doubles_on_the_device(config):
    animator = Animator(config).eval().to("meta")
    side = config.resolution
    pictures = torch.empty(2, 3, side, side, device="meta")
    with torch.inference_mode(), NoDoubles():
        source = animator.encode_source(pictures[:1])
        assert animator.drive(source, animator.estimate_motion(pictures)).shape == pictures.shape


class OnMetal(torch.Tensor):
    """A CPU's tensor that says it lies on Apple's GPU, and refuses float64 there; `cpu()` makes it a plain one."""

    @property
    def device(self):
        return torch.device("mps")

    def cpu(self):
        return self.as_subclass(torch.Tensor)

    def double(self):
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64.")


def test_pictures_on_metal_are_measured():
    truth, generated = (torch.rand(2, 3, 32, 32) for _ in range(2))
    names = [name for name, metric in METRICS.items() if metric.needs == "pixels"]
    wanted = measure(names, truth, generated, None, None)
    found = measure(names, truth.as_subclass(OnMetal), generated.as_subclass(OnMetal), None, None)
    assert [sums[0] for sums in found.values()] == pytest.approx([sums[0] for sums in wanted.values()])


def test_keypoints_on_metal_have_a_size():
    from mtanimate.models.motion import Motion, movement_scale

    motion = tiny_animator().eval().estimate_motion(torch.rand(1, 3, 64, 64))
    there = Motion(motion.keypoints.detach().as_subclass(OnMetal), motion.affine.detach())
    assert movement_scale(there, there) == 1


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
    ],
)
def test_a_lack_of_memory_is_told_from_other_errors(error, memory):
    assert out_of_memory(error) == memory
