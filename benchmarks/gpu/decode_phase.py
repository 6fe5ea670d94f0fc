"""decord on the GPU against ffmpeg through a pipe: frames a second, and whether the frames are the same."""

import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gpu.phase import Phase, make_clip
from mtanimate.errors import MTAnimateError
from mtanimate.video import VideoReader
from mtanimate.video.ffmpeg import encoders

# Name -> encoder and its options: of several for a format, the first that this ffmpeg has counts.
CLIPS = {
    "H.264": [("libx264", ["-preset", "veryfast"])],
    "HEVC": [("libx265", ["-preset", "ultrafast", "-tag:v", "hvc1", "-x265-params", "log-level=error"])],
    "VP9": [("libvpx-vp9", ["-deadline", "realtime", "-cpu-used", "8", "-row-mt", "1", "-b:v", "4M"])],
    "AV1": [("libsvtav1", ["-preset", "12"]), ("libaom-av1", ["-usage", "realtime", "-cpu-used", "8", "-b:v", "4M"])],
}
MATRICES = {"BT.601": "smpte170m", "BT.709": "bt709"}
ROUNDING = 2  # of 255: between two decoders' ways from 4:2:0 to RGB


def run(phase: Phase) -> None:
    for name, choices in CLIPS.items():
        there = [(encoder, options) for encoder, options in choices if encoder in encoders()]
        if not there:
            phase.put(f"not measured: this ffmpeg has no {' or '.join(encoder for encoder, _ in choices)}", name)
            continue
        encoder, options = there[0]
        phase.attempt(partial(compare, phase, name, ["-c:v", encoder, *options]), name)
    encode = ["-c:v", "libx264", "-preset", "veryfast"]
    for name, matrix in MATRICES.items():
        tagged = ["-vf", f"scale=out_color_matrix={matrix}", "-colorspace", matrix, "-color_primaries", matrix]
        phase.attempt(partial(compare, phase, name, [*tagged, "-color_trc", matrix, *encode]), f"H.264 tagged {name}")
    if phase.rehearsing:
        phase.cannot("decord decodes on the CPU here", "decoding on a GPU")


def compare(phase: Phase, name: str, options: list[str]) -> dict[str, Any]:
    """Raises MTAnimateError, in the decoder's words, where the GPU does not decode."""
    size, seconds = ("320x192", 0.5) if phase.rehearsing else ("1280x720", 6)
    path = make_clip(phase.temp / f"{name}.mp4", size, seconds, *options)
    piped, pipe_speed = all_frames(VideoReader(path))
    reader = VideoReader(path, gpu=not phase.rehearsing)
    if reader.decoder_note:
        raise MTAnimateError(reader.decoder_note)
    picked, decord_speed = numbered_frames(path) if phase.rehearsing else all_frames(reader)
    difference = np.abs(picked.astype(np.int16) - piped)
    return {
        "decord_frames_per_second": round(decord_speed, 1),
        "pipe_frames_per_second": round(pipe_speed, 1),
        "largest_difference": int(difference.max()),
        "mean_difference": round(float(difference.mean()), 3),
        "equal_within_rounding": round(float((difference <= ROUNDING).mean()), 5),
        "mean_of_each_channel": (picked.mean(axis=(0, 1, 2)) - piped.mean(axis=(0, 1, 2))).round(2).tolist(),
    }


def all_frames(reader: VideoReader) -> tuple[np.ndarray, float]:
    """In order, and frames a second."""
    started = time.perf_counter()
    frames = np.concatenate(list(reader.batches(32)))
    return frames, len(frames) / (time.perf_counter() - started)


def numbered_frames(path: Path) -> tuple[np.ndarray, float]:
    """As `all_frames`, picked by decord on the CPU: the GPU's stand-in."""
    started = time.perf_counter()
    reader = VideoReader(path)
    frames = reader.frames(range(reader.frame_count))
    return frames, len(frames) / (time.perf_counter() - started)
