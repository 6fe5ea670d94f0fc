"""What a video file holds, found by walking its packets once (nothing but the first frame is decoded)."""

import re
import subprocess
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from mtanimate.errors import InputError
from mtanimate.video.ffmpeg import ONLY_FILES, audio_codec, executable, local
from mtanimate.video.files import check_readable

# ffmpeg says these, and no more, when a file ends too early; its exit status stays 0.
DAMAGE = ("partial file", "File ended prematurely", "LZW decode failed")
_DISCARDED = 4  # AV_PKT_FLAG_DISCARD: decoded for the sake of others, cut away by the container's edit list
_TEXT_AND_LISTS = ("tty", "hls", "dash", "concat")  # ffmpeg would draw a text file, or open what a list names


@dataclass(frozen=True)
class Video:
    """frame_count: frames that are shown. width, height: after the rotation that a phone wrote into the file.

    container: ffmpeg's name, e.g. "mov,mp4,m4a". has_edits: some packets are decoded but not shown.
    """

    frame_count: int
    fps: Fraction
    width: int
    height: int
    has_audio: bool
    container: str
    has_edits: bool


def probe(path: Path) -> Video:
    """Walks through a video file. Raises InputError when it is missing, foreign, empty or cut off."""
    check_readable(path, "video")
    command = [executable(), "-hide_banner", "-nostdin", "-nostats", "-xerror"]
    # Two outputs: each packet of the first real video stream (V leaves cover pictures out) as a line of
    # text, and the first frame decoded, for its size after rotation.
    command += [*ONLY_FILES, "-i", local(path), "-map", "0:V:0", "-c", "copy", "-f", "framecrc", "-"]
    command += ["-map", "0:V:0", "-frames:v", "1", "-f", "null", "-"]
    # A session of its own: Ctrl-C would end ffmpeg, and a whole file seem damaged.
    ran = subprocess.run(command, capture_output=True, check=False, start_new_session=True)
    said = ran.stderr.decode(errors="replace")

    container = re.search(r"^Input #0, (\S+), from", said, re.MULTILINE)
    if not container or container[1] in _TEXT_AND_LISTS:
        raise InputError(f"{path} is not a video or is cut off: give an MP4, MOV, MKV, WebM, AVI or GIF")
    if not re.search(r"^ +Stream #0:\d+.*?: Video: (?!.*\(attached pic\))", said, re.MULTILINE):
        raise InputError(f"{path} has no pictures, only sound or data: give a video")
    cut_off = container[1].startswith("mov,") and _ends_within_a_box(path)
    if cut_off or ran.returncode != 0 or any(sign in said for sign in DAMAGE):
        raise InputError(f"{path} is damaged or cut off: copy or download the video again")
    size = re.search(r"^ +Stream #1:0.*?: Video: .*?, (\d+)x(\d+)", said, re.MULTILINE)
    tick, times, has_edits = _packets(ran.stdout.decode())
    if not times or not size:
        raise InputError(f"{path} holds no frames: record or download the video again")
    declared = re.search(r"^ +Stream #0:\d+.*?: Video: .* ([\d.]+) fps", said, re.MULTILINE)
    return Video(
        frame_count=len(times),
        fps=frame_rate(times, tick, float(declared[1]) if declared else None),
        width=int(size[1]),
        height=int(size[2]),
        has_audio=audio_codec(said) is not None,
        container=container[1],
        has_edits=has_edits,
    )


def _ends_within_a_box(path: Path) -> bool:
    """Whether an MP4 is shorter than its boxes say. ffmpeg is silent when the cut lies between two frames."""
    length = path.stat().st_size
    start = 0
    with path.open("rb") as file:
        while start + 8 <= length:
            file.seek(start)
            head = file.read(16)
            size = int.from_bytes(head[:4], "big")
            if size == 1:
                size = int.from_bytes(head[8:], "big")
            if size < 8:  # 0: the box goes on to the end of the file
                return False
            start += size
    return start > length


def _packets(text: str) -> tuple[Fraction, list[int], bool]:
    """ffmpeg's framecrc lines -> (seconds of a tick, times of the shown packets, whether some are hidden)."""
    tick = Fraction(1)
    times = []
    has_edits = False
    for line in text.splitlines():
        if line.startswith("#tb 0:"):
            tick = Fraction(line.split(":")[1].strip())
        elif line and not line.startswith("#"):
            # stream, dts, pts, duration, size, checksum, and F=flags unless it is a plain key frame
            fields = [field.strip() for field in line.split(",")]
            flags = next((int(field[2:], 16) for field in fields if field.startswith("F=")), 0)
            if flags & _DISCARDED:
                has_edits = True
            else:
                times.append(int(fields[1] if "NOPTS" in fields[2] else fields[2]))
    return tick, sorted(times), has_edits


def frame_rate(times: list[int], tick: Fraction, declared: float | None) -> Fraction:
    """The exact frame rate: the common one nearest to the declared one that agrees with the frames' times.

    times: of the frames, in ticks, ascending. tick: seconds. declared: the container's, to 2 decimals.
    Matroska and GIF keep times in steps of 1 or 10 ms, so 30000/1001 can only be recognised, not read.
    Where no common rate agrees (the rate varies), the mean.
    """
    span = (times[-1] - times[0]) * tick
    mean = (len(times) - 1) / span if span > 0 else None
    near = declared or float(mean or 25)
    common = [Fraction(round(near)), Fraction(round(near * 1.001) * 1000, 1001), Fraction(round(near * 2), 2)]
    for rate in sorted(common, key=lambda rate: abs(rate - near)):
        if rate > 0 and (mean is None or abs((len(times) - 1) / rate - span) <= 2 * tick):
            return rate
    return mean.limit_denominator(1001) if mean else Fraction(near).limit_denominator(1001)
