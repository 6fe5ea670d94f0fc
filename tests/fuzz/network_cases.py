"""Checkpoints, exported folders and motion: other headers, other bytes, pickles that call functions."""

import hashlib
import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any

import mutations
from bench import Bench
from good_files import CENTRED, EVALUATE, TINY, TRAIN


def checkpoints(bench: Bench) -> list[str]:
    """Of ours: safetensors."""
    content = bench.content(bench.random.choice(["tiny.safetensors", "background.safetensors"]))
    length = struct.unpack_from("<Q", content)[0]
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    choice = bench.random.choice([0, 1, 1, 1, 1, 2, 3, 4, 5])
    if choice == 0:
        content = mutations.damaged(content, bench.random)
    elif choice == 5:  # numbers that are none, or huge
        number = struct.pack("<f", bench.random.choice([float("nan"), float("inf"), 3e38, -3e38, 1e-40]))
        start = 4 * bench.random.randrange(len(data) // 4 - 99)
        content = content[: 8 + length] + data[:start] + number * 99 + data[start + 4 * 99 :]
    else:
        text = json.dumps(_other_header(header, choice, bench.random)).encode()
        content = struct.pack("<Q", len(text)) + text + data
    bench.write("bad.safetensors", content)
    bench.take("tiny.safetensors", "picture.png", "clip.gif", "clips")
    bad = "--checkpoint ./bad.safetensors"
    lines = {
        "checkpoints show ./bad.safetensors": 2,
        "checkpoints verify ./bad.safetensors": 2,
        f"animate --source picture.png --driving clip.gif {CENTRED} {bad} --out out.mp4": 4,
        f"attention --image picture.png --crop none --layer 1 {bad} --out out.png": 1,
        "checkpoints export ./bad.safetensors --layout fomm --out out.pth.tar": 1,
        "checkpoints export ./bad.safetensors --layout release --out out.pth.tar": 1,
        f"{TRAIN} --dataset clips".replace("tiny", "bad"): 1,
        f"{EVALUATE} --dataset clips".replace("tiny", "bad"): 1,
    }
    return bench.random.choices(list(lines), list(lines.values()))[0].split()


def _other_header(header: Any, choice: int, random: Random) -> Any:
    if choice == 1:
        config = json.loads(header["__metadata__"]["config"])
        header["__metadata__"]["config"] = json.dumps(mutations.other_tree(config, random))
    elif choice == 2:
        name = random.choice(list(header))
        header[name] = mutations.other_tree(header[name], random)
    elif choice == 3:
        header["__metadata__"]["about.licence"] = random.choice(["\x1b[31m", "a\nb" * 99, "é\u202e"])
        header = mutations.other_tree(header, random)
    else:
        for name in random.sample(sorted(set(header) - {"__metadata__"}), 3):
            header[name]["dtype"] = random.choice(["F64", "I64", "BOOL", "F8_E4M3", "BF16", "I32", "U8", "C64"])
    return header


def pickles(bench: Bench) -> list[str]:
    """Torch files: of other tools, of a run, of a backbone."""
    which = bench.random.choice(["fomm", "release", "tpsmm", "state.pt"])
    content = bench.content("state.pt" if which == "state.pt" else f"{which}/theirs.pth.tar")
    choice = bench.random.randrange(4)
    if choice == 0:
        content = mutations.damaged(content, bench.random)
    elif choice == 1:
        content = _with_other_parts(content, bench.random)
    else:
        content = _saved(_other_state(content, bench), bench.random)
    bench.write("bad.pth.tar", content)
    if which == "state.pt":
        bench.take("tiny.safetensors", "clips")
        what = bench.random.choice(["--resume bad.pth.tar"] * 3 + ["--set training.backbone_file=bad.pth.tar"])
        return f"{TRAIN} --dataset clips {what}".split()
    bench.take(which)
    config = bench.random.choice([f"--config {which}/config.yaml"] * 4 + ["--config vox-cpk", ""])
    return f"checkpoints import bad.pth.tar {config}".split()


def _with_other_parts(content: bytes, random: Random) -> bytes:
    """A zip archive whose entries hold other bytes, have other names, are packed or missing."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = random.choice([name for name in parts if name.endswith("data.pkl")] * 20 + list(parts))
    method, choice = zipfile.ZIP_STORED, random.randrange(6)
    if choice == 0:
        del parts[name]
    elif choice == 1:
        parts[f"{name}/../../../outside/made"] = parts.pop(name)
    elif choice == 2:
        method = zipfile.ZIP_DEFLATED
        parts[name] += bytes(50_000_000)
    else:
        parts[name] = mutations.damaged(parts[name], random)
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", method) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return whole.getvalue()


def _other_state(content: bytes, bench: Bench) -> Any:
    import torch

    state = torch.load(io.BytesIO(content), weights_only=True)
    for _ in range(bench.random.choice([1, 1, 2])):
        owner: Any = state
        key = bench.random.choice(list(owner))
        while isinstance(owner[key], dict) and owner[key] and bench.random.random() < 0.8:
            owner = owner[key]
            key = bench.random.choice(list(owner))
        owner[key] = bench.random.choice(_odd_values(owner[key], str(bench.outside / "made")))
    return state


class Calling:
    """Its pickle calls a function where it is read."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def _odd_values(value: Any, made: str) -> list[Any]:
    import torch

    odd: list[Any] = [Calling(os.mkdir, made), Calling(os.system, f"mkdir '{made}'"), Calling(io.open, made, "w")]
    odd += [Calling(eval, f"__import__('os').mkdir({made!r})"), Calling(torch.hub.load, made, "made")]
    odd += [torch.zeros(1).expand(10**9), torch.zeros(0), torch.zeros(2, 2).to_sparse(), torch.empty(3, device="meta")]
    odd += [torch.zeros(3, dtype=torch.complex64), torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.quint8)]
    odd += [[], {}, None, "text", float("nan"), 10**400, {1: 2}, {("a",): [torch.zeros(1)]}, "\x1b[31m", -1, True, b"b"]
    if isinstance(value, torch.Tensor):
        odd += [value[None], value.flatten()[:1], value.double(), value.half(), value.long(), value * float("nan")]
        odd += [value.float() * 1e30, torch.nn.Parameter(value.float()), value.float() * 1e38]
    return odd


def _saved(state: Any, random: Random) -> bytes:
    import torch

    whole = io.BytesIO()
    kind = random.randrange(5)
    try:
        torch.save([state] if kind == 0 else state, whole, _use_new_zipfile_serialization=kind != 1)
    except Exception:  # some are beyond torch's old format
        return pickle.dumps({"generator": 1})
    return whole.getvalue()


def manifests(bench: Bench) -> list[str]:
    """Exported folders: another manifest, other graphs whose SHA-256 is right."""
    from tiny import MODEL

    from mtanimate.inference.manifest import Manifest, graphs_of

    backend = bench.random.choice(["onnx", "onnx", "openvino", "torch"])
    xml = b'<?xml version="1.0"?><net name="a" version="11"><layers/></net>'
    graph = xml if backend == "openvino" else bench.content("graph.onnx")
    if bench.random.random() < 0.4:
        graph = mutations.damaged(graph, bench.random)
    names = [name for graph in graphs_of(MODEL) for name in graph.files(backend)]
    for name in names:
        bench.write(f"folder/{name}", graph)
    files = dict.fromkeys(names, hashlib.sha256(graph).hexdigest())
    Manifest(backend, "fp32", "default", "0" * 64, MODEL, {}, {}, files).write(bench.work / "folder")
    if bench.random.random() < 0.7:
        bench.damage_json("folder/manifest.json")
    bench.take("picture.png", "clip.gif")
    runtime = bench.random.choice(["", "", "--backend torch", "--backend openvino"])
    animate = f"animate --source picture.png --driving clip.gif {CENTRED} --out out.mp4"
    return f"{animate} --checkpoint folder/ {runtime}".split()


def motion(bench: Bench) -> list[str]:
    bad = bench.random.choice(["motion.npz", "motion.safetensors"])
    content = bench.content(bad)
    if bench.random.random() < 0.3:
        content = mutations.damaged(content, bench.random)
    elif bad == "motion.npz":
        content = _other_npz(content, bench.random)
    else:
        content = _other_safetensors(content, bench.random)
    bench.write(bad, content)
    bench.take("picture.png", "tiny.safetensors")
    modes = ["", "", "--smooth 0.3", "--mode absolute", "--reference-frame 3", "--strength 2", "--background lock"]
    animate = f"animate --source picture.png --crop none {TINY} --out out.mp4"
    return f"{animate} --motion {bad} {bench.random.choice(modes)}".split()


def _other_npz(content: bytes, random: Random) -> bytes:
    import numpy as np

    arrays = dict(np.load(io.BytesIO(content)))
    arrays["about"] = np.array(json.dumps(mutations.other_tree(json.loads(str(arrays["about"])), random)))
    if random.random() < 0.6:
        arrays[random.choice(list(arrays))] = random.choice(_odd_arrays(arrays["keypoints"]))
    whole = io.BytesIO()
    np.savez(whole, allow_pickle=True, **arrays)
    return whole.getvalue()


def _other_safetensors(content: bytes, random: Random) -> bytes:
    from safetensors.numpy import load, save

    length = struct.unpack_from("<Q", content)[0]
    arrays, about = load(content), json.loads(content[8 : 8 + length])["__metadata__"]
    other = mutations.other_tree(about, random)
    about = {str(key): str(value) for key, value in other.items()} if isinstance(other, dict) else {}
    if random.random() < 0.6:
        arrays[random.choice(list(arrays))] = random.choice(_odd_arrays(arrays["keypoints"]))
    try:
        return save(arrays, about)
    except Exception:  # safetensors has no such numbers, or no such text
        return mutations.damaged(content, random)


def _odd_arrays(array: Any) -> list[Any]:
    import numpy as np

    odd = [np.zeros(0), np.zeros((0, 4, 2)), array[:1], array[:, :1], array[None], array * np.nan, array * 1e30]
    odd += [array.astype(kind) for kind in ("c16", "f2", ">f4", "M8[s]", "?", "U", "i8")]
    odd += [np.array(None), np.array([{}]), np.array("text"), np.arange(9**4), np.array([2**63 - 1, -(2**63)])]
    return [*odd, array * 1e5]
