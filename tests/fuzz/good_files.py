"""Small good files of every kind, which the cases damage: made by the product itself, and kept for all cases."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

_X264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-preset", "ultrafast", "-threads", "1")
VIDEOS = {
    "clip.mp4": (*_X264, "-c:a", "aac", "-movflags", "+faststart"),
    "fragments.mp4": (*_X264, "-an", "-movflags", "frag_keyframe+empty_moov"),
    "clip.mov": ("-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-c:a", "pcm_s16le"),
    "clip.mkv": (*_X264, "-c:a", "flac"),
    "clip.webm": ("-c:v", "libvpx", "-deadline", "realtime", "-threads", "1", "-c:a", "libopus"),
    "clip.avi": ("-c:v", "mpeg4", "-c:a", "mp3"),
    "clip.ts": ("-c:v", "mpeg2video", "-c:a", "mp2"),
    "clip.gif": ("-an",),
    "clip.png": ("-an", "-f", "apng"),
    "clip.flv": ("-c:v", "flv1", "-an"),
}
PICTURES = ("picture.png", "picture.jpg", "picture.webp", "picture.tiff", "picture.bmp", "picture.gif", "moving.webp")


def good(folder: Path, name: str) -> Path:
    """The good file, or folder, `name` in `folder`; made when it is first asked for."""
    path = folder / name
    if not path.exists():
        folder.mkdir(exist_ok=True)
        _MAKERS[name](path)
    return path


def _video(path: Path) -> None:
    import imageio_ffmpeg

    source = ["-f", "lavfi", "-i", "testsrc2=size=64x64:rate=10:duration=0.8"]
    sound = ["-f", "lavfi", "-i", "sine=duration=0.8"]
    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-nostdin", *source, *sound]
    subprocess.run([*ffmpeg, "-fflags", "+bitexact", *VIDEOS[path.name], path], check=True)


def _picture(path: Path) -> None:
    from PIL import Image

    frames = [Image.fromarray(frame) for frame in _frames(4)]
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"  # turned by 90 degrees
    if path.name == "moving.webp":
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)
    elif path.suffix in (".bmp", ".gif"):
        frames[0].save(path)
    else:
        frames[0].save(path, exif=exif)


def _frames(count: int) -> np.ndarray:
    from tiny import moving_square

    return moving_square(count, 0.3)


def _checkpoint(path: Path) -> None:
    from dataclasses import replace

    from tiny import CONFIG, MODEL

    from mtanimate.checkpoints.file import write_checkpoint
    from mtanimate.config import BackgroundConfig
    from mtanimate.models.animator import Animator

    models = {
        "tiny.safetensors": MODEL,
        "background.safetensors": replace(MODEL, background=BackgroundConfig(4, 8, 1)),
    }
    model = models[path.name]
    write_checkpoint(path, Animator(model), replace(CONFIG, model=model), {"steps": 0, "licence": "none"})


def _command(line: str, out: str, *needs: str) -> Callable[[Path], None]:
    """Makes a file by a command, which is run where the good files are, and writes `out`."""

    def make(path: Path) -> None:
        for name in needs:
            good(path.parent, name)
        before = Path.cwd()
        os.chdir(path.parent)
        try:
            assert run_here([*line.split(), "--quiet"]) == 0
        finally:
            os.chdir(before)
        (path.parent / out).rename(path)

    return make


def run_here(arguments: list[str]) -> int:
    """The command, as `python -m mtanimate` runs it, up to its exit code."""
    from mtanimate.cli import main

    sys.argv = ["mtanimate", *arguments]
    try:
        main()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    return 0


def _clips(path: Path) -> None:
    from tiny import write_video

    for number, name in enumerate(("train/a#0", "train/b#0", "train/c#0", "test/d#0")):
        write_video(path / f"{name}.mp4", _frames(4 + number))


def _foreign(path: Path) -> None:
    """Another tool's checkpoint, `theirs.pth.tar`, and its `config.yaml`."""
    import foreign

    path.mkdir()
    foreign.write(path, path.name)


def _graph(path: Path) -> None:
    """A graph of ONNX that adds a weight to its input."""
    import onnx
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", 3]) for name in ("source", "y")]
    weights = helper.make_tensor("w", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0])
    graph = helper.make_graph([helper.make_node("Add", ["source", "w"], ["y"])], "g", values[:1], values[1:], [weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def _state(path: Path) -> None:
    shutil.copy(good(path.parent, "run") / "state" / "last.pt", path)


# Commands of which much is made, and read.
TINY = "--checkpoint ./tiny.safetensors"
CENTRED = "--crop none --driving-crop none"
TRAIN = "train --steps 1 --batch-size 2 --workers 0 --device cpu --set loss.perceptual=0 --set loss.pixel=10"
TRAIN += " --set data.cache_gib=0 --init ./tiny.safetensors --out out"
EVALUATE = f"eval --detector none --metrics l1 --workers 1 --device cpu {TINY} --out out"
PREPARE = "data prepare --out out --size 64 --workers 1"
CACHE = "data cache --resolution 64"

_KEEP = f"animate --source picture.png --driving clip.gif {CENTRED} {TINY} --overwrite --out out.mp4 --save-motion out"
_FOR_MOTION = ("picture.png", "clip.gif", "tiny.safetensors")
_MAKERS: dict[str, Callable[[Path], None]] = {
    **dict.fromkeys(VIDEOS, _video),
    **dict.fromkeys(PICTURES, _picture),
    **dict.fromkeys(("tiny.safetensors", "background.safetensors"), _checkpoint),
    "fomm": _foreign,
    "release": _foreign,
    "tpsmm": _foreign,
    "clips": _clips,
    "graph.onnx": _graph,
    "run": _command(f"{TRAIN} --dataset clips", "out", "clips", "tiny.safetensors"),
    "state.pt": _state,
    "evaluation": _command(f"{EVALUATE} --dataset clips", "out", "clips", "tiny.safetensors"),
    "cache": _command(f"{CACHE} clips --out out", "out", "clips"),
    "motion.npz": _command(f"{_KEEP}.npz", "out.npz", *_FOR_MOTION),
    "motion.safetensors": _command(f"{_KEEP}.safetensors", "out.safetensors", *_FOR_MOTION),
}
