"""Small files that would become large are refused before they do: in a process that has little room, and at once."""

import io
import json
import lzma
import subprocess
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny import CONFIG, MODEL, tiny_animator

from mtanimate.animation.motion_sequence import load_motion
from mtanimate.checkpoints.file import FORMAT, read_checkpoint, write_checkpoint
from mtanimate.checkpoints.pickles import read_pickle
from mtanimate.config import (
    BACKBONES,
    Config,
    GeneratorConfig,
    HeatmapEstimatorConfig,
    HRNetConfig,
    MotionTransformerConfig,
    load_preset,
    preset_names,
    to_mapping,
    within_limits,
)
from mtanimate.data.packing import PackedFaces
from mtanimate.errors import InputError
from mtanimate.models.animator import outline_network
from mtanimate.tensors import read_weights
from mtanimate.training.checkpointing import _read as read_state
from mtanimate.training.checkpointing import make_animator

# Tensors of torch files, each of which would take gigabytes where it is copied.
ROW = torch.ones(1000)


def _repeating():
    return {"generator": {"a": ROW[:1].expand(1_000_000_000)}}


def _shared():
    return {"generator": {f"{number}": ROW for number in range(100)}}


def _sparse():
    return {"generator": {"a": torch.sparse_coo_tensor(torch.zeros(2, 1), torch.ones(1), (10**6, 10**6))}}


def _without_numbers():
    return {"generator": {"a": torch.empty(10**12, device="meta")}}


def _itself():
    content = {"generator": {"a": ROW[:1].expand(1_000_000_000)}}
    content["again"] = content
    return content


def _nested():
    content = _repeating()
    for _ in range(40):
        content = {"a": [content]}
    return content


TENSORS = [_repeating, _shared, _sparse, _without_numbers, _itself, _nested]


@pytest.mark.parametrize("make", TENSORS)
@pytest.mark.parametrize("modern", [True, False])
def test_tensors_are_counted_as_what_they_become(tmp_path, make, modern):
    path = tmp_path / "a.pth"
    torch.save(make(), path, _use_new_zipfile_serialization=modern)
    for read in (read_pickle, lambda path: read_weights(path, "weights", "get others"), read_state):
        with pytest.raises(InputError, match=r"a\.pth") as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_tied_weights_and_parts_of_tensors_are_read(tmp_path):
    whole = torch.arange(1000.0)
    content = {"generator": {"a": whole, "b": whole, "c": whole[::2], "d": torch.zeros(0), "e": torch.tensor(5)}}
    content["itself"] = content
    torch.save(content, tmp_path / "a.pth")
    assert torch.equal(read_pickle(tmp_path / "a.pth")["generator"]["c"], whole[::2])


@pytest.mark.parametrize("read", [lambda path: read_weights(path, "weights", "get others"), read_state])
def test_an_archive_that_unpacks_is_refused(tmp_path, read):
    whole = io.BytesIO()
    torch.save({"a": torch.zeros(1_000_000)}, whole)
    with zipfile.ZipFile(whole) as archive, zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in archive.namelist():
            packed.writestr(name, archive.read(name))
    with pytest.raises(InputError, match="unpacks"):
        read(tmp_path / "a.pt")


# Networks


WIDE = replace(MODEL, resolution=256, generator=replace(MODEL.generator, block_expansion=16_384, max_features=16_384))
DEEP = replace(BACKBONES["hrnet_small"], stage3_modules=256, stage3_blocks=(256, 256, 256))
NETWORKS = {
    "pixels": replace(MODEL, resolution=16_384),
    "channels at full size": WIDE,
    "blocks": replace(MODEL, estimator=replace(MODEL.estimator, backbone=DEEP)),
    "tokens": replace(MODEL, resolution=1024, estimator=replace(MODEL.estimator, patch_size=1, scale_factor=1.0)),
    "masks": replace(
        MODEL, resolution=1024, num_keypoints=1000, dense_motion=replace(MODEL.dense_motion, scale_factor=1.0)
    ),
    "heat maps": replace(
        MODEL,
        resolution=4096,
        estimator=HeatmapEstimatorConfig(scale_factor=1.0, block_expansion=64),
        generator=GeneratorConfig(block_expansion=1),
        dense_motion=replace(MODEL.dense_motion, scale_factor=1 / 64),
    ),
}


@pytest.mark.parametrize("model", NETWORKS.values(), ids=NETWORKS)
def test_a_network_that_no_machine_has_room_for_is_refused(model):
    with pytest.raises(InputError, match="here: model"):
        within_limits(model, "here")


def test_known_networks_are_within_limits():
    for name in preset_names():
        model = load_preset(name).model
        assert within_limits(model, name) == model
        assert within_limits(replace(model, resolution=512), name).resolution == 512


MANY = replace(MODEL, estimator=MotionTransformerConfig(backbone=HRNetConfig(widths=()), dim=8192, layers=2))


def test_a_network_of_too_many_weights_is_refused_before_it_is_built(tmp_path, monkeypatch):
    within_limits(MANY, "it")  # each size is in range
    with pytest.raises(InputError, match="parameters"):
        outline_network(MANY)
    with pytest.raises(InputError, match="parameters"):
        make_animator(replace(CONFIG, model=MANY), None)
    metadata = {"format": FORMAT, "config": json.dumps(to_mapping(Config(model=MANY)))}
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", metadata)
    with pytest.raises(InputError, match=r"a\.safetensors.*parameters"):
        read_checkpoint(tmp_path / "a.safetensors")


# Arrays


def _npz(path, **members):
    """members: bytes of arrays, header first."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def _array(array, claims=None):
    """The array as a file, whose header claims another shape."""
    whole = io.BytesIO()
    header = np.lib.format.header_data_from_array_1_0(array)
    np.lib.format.write_array_header_1_0(whole, header | ({"shape": claims} if claims else {}))
    return whole.getvalue() + array.tobytes()


def _motion(path, frames=6, texts=None, **arrays):
    """A file of motion; arrays: bytes, in the place of what is right."""
    text = {"format": "mtanimate-motion-2", "fps": "25", "checkpoint": "", "source": "", "times": "null"} | (
        texts or {}
    )
    right = {
        "keypoints": np.zeros((frames, MODEL.num_keypoints, 2), np.float32),
        "affine": np.zeros((frames, MODEL.num_keypoints, 2, 2), np.float32),
        "lost": np.array([0], np.int64),
        "about": np.array(json.dumps(text)),
    }
    return _npz(path, **{name: arrays.get(name) or _array(array) for name, array in right.items()})


HUGE = (10**10, MODEL.num_keypoints, 2)
LOST = [np.zeros(3), np.array([6]), np.array([-1]), np.zeros((1, 1), np.int64), np.zeros(7, np.int64)]
MOTION = {
    "keypoints": {"keypoints": _array(np.zeros((6, MODEL.num_keypoints, 2), np.float32), HUGE)},
    "text": {"about": _array(np.array("{}"), (10**11,))},
    "kind": {"keypoints": _array(np.zeros((6, MODEL.num_keypoints, 2), np.complex64))},
    **{f"lost {number}": {"lost": _array(array)} for number, array in enumerate(LOST)},
    "many times": {"texts": {"times": json.dumps(["0"] * 1000)}},
    "clocks": {"texts": {"times": json.dumps([f"{n}/{10**37 + n}" for n in range(6)])}},
    "backwards": {"texts": {"times": json.dumps(["0", "2", "1", "3", "4", "5"])}},
    "late": {"texts": {"times": json.dumps(["0", "1", "2", "3", "4", "9" * 30])}},
    "rate": {"texts": {"fps": "1e999999999"}},
    "not text": {"texts": {"fps": 25}},
}


@pytest.mark.parametrize("wrong", MOTION.values(), ids=MOTION)
def test_motion_that_claims_more_than_there_is_is_refused(tmp_path, wrong):
    path = _motion(tmp_path / "a.npz", **wrong)
    with pytest.raises(InputError, match=r"a\.npz"):
        load_motion(path, "", MODEL)


def test_motion_as_it_is_written_by_hand_is_read(tmp_path):
    times = ["0", "1/30000", "1/30000", "2", "1001/300", "9"]
    sequence = load_motion(_motion(tmp_path / "a.npz", texts={"times": json.dumps(times)}), "", MODEL)
    assert (len(sequence), sequence.lost) == (6, [0])


def test_faces_that_unpack_to_more_than_their_frames_are_refused(tmp_path):
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9, "lc": 0, "pb": 0}]
    data = np.frombuffer(lzma.compress(bytes(5_000_000), lzma.FORMAT_RAW, filters=filters), np.uint8)
    members = {"reference": np.zeros((478, 3), np.int16), "digests": np.array(["a"], "S64"), "counts": np.array([2])}
    members |= {"ends": np.array([len(data)]), "data": data}
    faces = PackedFaces(_npz(tmp_path / "faces.npz", **{name: _array(each) for name, each in members.items()}))
    with pytest.raises(InputError, match=r"faces\.npz"):
        faces("a", 2)


# A process of little room


LITTLE = """
import resource, sys
sys.path[:0] = sys.argv[1:3]
from pathlib import Path
import test_bombs as bombs, torch
from mtanimate.errors import InputError
folder = Path(sys.argv[3])
readers = {
    "a.pth": bombs.read_pickle,
    "a.pt": bombs.read_state,
    "a.npz": lambda path: bombs.load_motion(path, "", bombs.MODEL),
    "a.safetensors": bombs.read_checkpoint,
}
taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + (1 << 29),) * 2)
for name, read in readers.items():
    try:
        content = read(folder / name)
    except InputError:
        print(name, "refused")
    else:
        print(name, "read")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a limit of memory as Linux has it")
def test_in_little_memory_they_are_refused_all_the_same(tmp_path):
    torch.save(_repeating(), tmp_path / "a.pth")
    torch.save(_shared() | {"config": {}, "clips": "", "optimizer": {}, "step": 1, "pairs": 1}, tmp_path / "a.pt")
    _motion(tmp_path / "a.npz", **MOTION["keypoints"])
    write_checkpoint(tmp_path / "b.safetensors", tiny_animator(), Config(model=MODEL), {})
    metadata = {"format": FORMAT, "config": json.dumps(to_mapping(Config(model=MANY)))}
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", metadata)
    here = __file__.rpartition("test_bombs")[0]
    done = subprocess.run(
        [sys.executable, "-c", LITTLE, here, f"{here}..", tmp_path], capture_output=True, text=True, timeout=120
    )
    said = [f"{name} refused" for name in ("a.pth", "a.pt", "a.npz", "a.safetensors")]
    assert done.stdout.splitlines() == said, done.stderr
