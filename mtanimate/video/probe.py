"""What a video file holds, found by walking its packets once (nothing but the first frame is decoded)."""

import re
import subprocess
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from mtanimate.errors import InputError
from mtanimate.video.ffmpeg import ONLY_FILES, audio_codec, executable, local
from mtanimate.video.files import check_readable
from mtanimate.video.timing import frame_rate

# ffmpeg says these, and no more, when a file ends too early; its exit status stays 0.
DAMAGE = ("partial file", "File ended prematurely", "LZW decode failed")
_DISCARDED = 4  # AV_PKT_FLAG_DISCARD: decoded for the sake of others, cut away by the container's edit list
_NO_TIME = -(1 << 63)  # AV_NOPTS_VALUE
TEXT_AND_LISTS = ("tty", "hls", "dash", "concat")  # ffmpeg would draw a text file, or open what a list names


@dataclass(frozen=True)
class Video:
    """ticks: when each shown frame is shown, ascending, in steps of `tick` seconds on the file's clock.

    The file's clock is 0 at its first picture or sound.
    sound: when the first packet of sound comes, heard or not, in seconds on that clock; None without sound that
    ffmpeg knows.
    fps: exact; the mean where it varies. width, height: after the rotation that a phone wrote into the file.
    container: ffmpeg's name, e.g. "mov,mp4,m4a". has_edits: some packets are decoded but not shown.
    """

    ticks: list[int]
    tick: Fraction
    fps: Fraction
    width: int
    height: int
    sound: Fraction | None
    container: str
    has_edits: bool

    @property
    def frame_count(self) -> int:
        return len(self.ticks)

    @property
    def start(self) -> Fraction:
        """When the first frame is shown, in seconds on the file's clock."""
        return self.ticks[0] * self.tick


def has_pictures(description: str) -> bool:
    """Whether what ffmpeg prints about a file names a video stream that is more than a cover picture."""
    return bool(re.search(r"^ +Stream #0:\d+.*?: Video: (?!.*\(attached pic\))", description, re.MULTILINE))


def probe(path: Path) -> Video:
    """Walks through a video file. Raises InputError when it is missing, foreign, empty or cut off."""
    check_readable(path, "video")
    command = [executable(), "-hide_banner", "-nostdin", "-nostats", "-xerror"]
    # Two outputs: each packet of the first real video stream (V leaves cover pictures out) and the first of sound
    # as a line of text, and the first frame decoded, for its size after rotation. Both streams are named, because
    # ffmpeg counts time from the earliest packet of the streams that a command uses: this is the file's clock.
    command += [*ONLY_FILES, "-i", local(path), "-map", "0:V:0", "-map", "0:a:0?", "-c", "copy"]
    command += ["-bsf:a", "noise=drop=gt(n\\,0)", "-max_interleave_delta", "1", "-f", "framecrc", "-"]
    command += ["-map", "0:V:0", "-frames:v", "1", "-f", "null", "-"]
    # A session of its own: Ctrl-C would end ffmpeg, and a whole file seem damaged.
    ran = subprocess.run(command, capture_output=True, check=False, start_new_session=True)
    said = ran.stderr.decode(errors="replace")

    container = re.search(r"^Input #0, (\S+), from", said, re.MULTILINE)
    if not container or container[1] in TEXT_AND_LISTS:
        raise InputError(f"{path} is not a video or is cut off: give an MP4, MOV, MKV, WebM, AVI or GIF")
    if not has_pictures(said):
        raise InputError(f"{path} has no pictures, only sound or data: give a video")
    cut_off = container[1].startswith("mov,") and _ends_within_a_box(path)
    if cut_off or ran.returncode != 0 or any(sign in said for sign in DAMAGE):
        raise InputError(f"{path} is damaged or cut off: copy or download the video again")
    size = re.search(r"^ +Stream #1:0.*?: Video: .*?, (\d+)x(\d+)", said, re.MULTILINE)
    tick, times, has_edits, sound = _packets(ran.stdout.decode())
    if not times or not size:
        raise InputError(f"{path} holds no frames: record or download the video again")
    declared = re.search(r"^ +Stream #0:\d+.*?: Video: .* ([\d.]+) fps", said, re.MULTILINE)
    return Video(
        ticks=times,
        tick=tick,
        fps=frame_rate(times, tick, float(declared[1]) if declared else None),
        width=int(size[1]),
        height=int(size[2]),
        sound=sound if audio_codec(said) else None,
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


def _packets(text: str) -> tuple[Fraction, list[int], bool, Fraction | None]:
    """ffmpeg's framecrc lines of a picture (stream 0) and a sound (1).

    Returns the seconds of a tick, the times of the shown pictures, whether some are hidden, and when the sound begins.
    """
    ticks: dict[str, Fraction] = {}
    stored: list[int] = []
    shown: list[int] = []
    has_edits = False
    sound = None
    for line in text.splitlines():
        if line.startswith("#tb"):
            stream, tick = line[3:].split(":")
            ticks[stream.strip()] = Fraction(tick.strip())
        elif line.startswith("0,"):
            # stream, dts, pts, duration, size, checksum, and F=flags unless it is a plain key frame
            fields = [field.strip() for field in line.split(",")]
            flags = next((int(field[2:], 16) for field in fields if field.startswith("F=")), 0)
            if flags & _DISCARDED:
                has_edits = True
            else:
                stored.append(int(fields[1]))
                shown.append(int(fields[2]))
        elif line.startswith("1,") and sound is None:
            sound = int(line.split(",")[1]) * ticks["1"]
    # AVI stores frames in the order of decoding, and the times of some only: as many are shown at as many times.
    return ticks.get("0", Fraction(1)), sorted(stored if _NO_TIME in shown else shown), has_edits, sound
