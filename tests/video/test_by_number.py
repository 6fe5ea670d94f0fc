"""Frame n by its number is the n-th that is shown, whatever the container, the codec and its order of decoding."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest

from mtanimate.video import VideoReader

X265 = "-x265-params log-level=error:bframes={bframes}:keyint={gop}:min-keyint={gop}:scenecut=0"
# Name of the file: how it is encoded, at so many frames from key frame to key frame, of which so many are B-frames.
FORMATS = {
    "h264.mp4": "-c:v libx264 -g {gop} -bf {bframes} -pix_fmt yuv420p",
    "open-h264.mp4": "-c:v libx264 -g {gop} -bf {bframes} -x264-params open-gop=1 -pix_fmt yuv420p",
    "refreshed-h264.mkv": "-c:v libx264 -g {gop} -x264-params intra-refresh=1 -pix_fmt yuv420p",
    "h264.mkv": "-c:v libx264 -g {gop} -bf {bframes} -x264-params open-gop=1 -pix_fmt yuv420p",
    "h264.mov": "-c:v libx264 -g {gop} -bf {bframes} -pix_fmt yuv420p",
    "h264.avi": "-c:v libx264 -g {gop} -bf {bframes} -pix_fmt yuv420p",
    "h264.ts": "-c:v libx264 -g {gop} -bf {bframes} -pix_fmt yuv420p",
    "interlaced-h264.ts": "-c:v libx264 -g {gop} -bf {bframes} -flags +ildct+ilme -pix_fmt yuv420p",
    "h264.flv": "-c:v libx264 -g {gop} -bf {bframes} -pix_fmt yuv420p",
    "fragments.mp4": "-c:v libx264 -g {gop} -bf {bframes} -movflags frag_keyframe+empty_moov -pix_fmt yuv420p",
    "live.mkv": "-c:v libx264 -g {gop} -bf {bframes} -live 1 -pix_fmt yuv420p",
    "open-hevc.mp4": f"-c:v libx265 {X265}:open-gop=1 -tag:v hvc1 -pix_fmt yuv420p",
    "closed-hevc.mkv": f"-c:v libx265 {X265}:open-gop=0 -pix_fmt yuv420p",
    "open-hevc.ts": f"-c:v libx265 {X265}:open-gop=1 -pix_fmt yuv420p",
    "mpeg2.ts": "-c:v mpeg2video -g {gop} -bf {bframes} -q:v 3",
    "mpeg2.mkv": "-c:v mpeg2video -g {gop} -bf {bframes} -q:v 3",
    "xvid.avi": "-c:v mpeg4 -g {gop} -bf {bframes} -q:v 3",
    "mpeg4.mp4": "-c:v mpeg4 -g {gop} -bf {bframes} -q:v 3",
    "vp8.webm": "-c:v libvpx -g {gop} -auto-alt-ref 1 -lag-in-frames {lag} -b:v 400k -cpu-used 4",
    "vp9.webm": "-c:v libvpx-vp9 -g {gop} -auto-alt-ref 1 -lag-in-frames {lag} -b:v 400k -cpu-used 8",
    "vp9-live.webm": "-c:v libvpx-vp9 -g {gop} -lag-in-frames {lag} -live 1 -b:v 400k -cpu-used 8",
    "av1.mp4": "-c:v libaom-av1 -g {gop} -cpu-used 8 -lag-in-frames {lag} -b:v 400k -pix_fmt yuv420p",
    "mjpeg.avi": "-c:v mjpeg -q:v 3",
    "gif.gif": "",
}
GOPS, BFRAMES = (1, 12, 250), (0, 3)
WAYS = ("plain", "cut", "turned", "varying")
# Where neither is chosen by the encoder, or the container has neither edits nor matrices, one file does.
GRID = [
    (name, gop, bframes, way)
    for name, gop, bframes, way in product(FORMATS, GOPS, BFRAMES, WAYS)
    if ("{gop}" in FORMATS[name] or (gop, bframes) == (1, 0))
    and (way not in ("cut", "turned") or name.endswith((".mp4", ".mov", ".mkv", ".ts")))
    and (way != "cut" or gop < 250 or not name.endswith(".ts"))  # one key frame: nothing would be left
    and (way != "varying" or not name.endswith((".avi", ".gif", ".flv")))
]
TRIED_ALWAYS = GRID[::31]


def _make(run_ffmpeg, folder: Path, name: str, gop: int, bframes: int, way: str) -> Path:
    path, rate = folder / name, "30000/1001" if gop == 12 else "25"
    options = FORMATS[name].format(gop=gop, bframes=bframes, lag=8 * bframes).split()
    if way == "varying":
        options += ["-vf", "select='not(mod(n,3))+gt(n,20)'", "-fps_mode", "vfr"]
    if name.endswith((".mp4", ".mkv", ".mov", ".ts")) and "libx26" in FORMATS[name]:
        options += ["-preset", "ultrafast", "-bf", str(bframes)]
    run_ffmpeg("-f", "lavfi", "-i", f"testsrc2=size=96x64:rate={rate}:duration=2", "-threads", "1", *options, path)
    again = {"cut": ["-ss", "0.53"], "turned": ["-display_hflip", "-display_rotation", "90"]}.get(way)
    if again is None:
        return path
    other = folder / f"again-{name}"
    run_ffmpeg(*again, "-i", path, "-c", "copy", other)
    return other


def _as_ffmpeg_shows(run_ffmpeg, path: Path, reader: VideoReader) -> np.ndarray:
    raw = run_ffmpeg("-i", path, "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    return np.frombuffer(raw, np.uint8).reshape(-1, reader.height, reader.width, 3)


@pytest.mark.parametrize(
    ("name", "gop", "bframes", "way"),
    [pytest.param(*file, marks=() if file in TRIED_ALWAYS else pytest.mark.slow) for file in GRID],
)
def test_by_number_as_in_order(run_ffmpeg, tmp_path: Path, name: str, gop: int, bframes: int, way: str) -> None:
    path = _make(run_ffmpeg, tmp_path, name, gop, bframes, way)
    reader = VideoReader(path)
    frames = np.concatenate(list(reader.batches(16)))
    assert len(frames) == reader.frame_count == len(reader.times) > 20
    for number in (*range(len(frames)), *range(len(frames) - 1, 0, -7)):
        np.testing.assert_array_equal(reader.frames([number])[0], frames[number])
    picked = [len(frames) - 1, 3, 3, 0, 17]
    np.testing.assert_array_equal(reader.frames(picked), frames[picked])
    np.testing.assert_array_equal(np.concatenate(list(reader.batches(5, 14, 20, 2))), frames[14:20:2])
    shown = _as_ffmpeg_shows(run_ffmpeg, path, reader)
    assert len(shown) == len(frames)
    far = np.abs(shown[:, None, ::2].astype(np.int16) - frames[:, ::2]).mean(axis=(2, 3, 4))
    assert (far.argmin(axis=1) == np.arange(len(frames))).all()
