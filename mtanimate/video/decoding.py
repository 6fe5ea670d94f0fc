"""A file's streams, packets and frames: which formats are read at all, which stream of pictures and of sound counts."""

from bisect import bisect_left, bisect_right
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mtanimate.errors import InputError, OutOfMemory
from mtanimate.video.colour import Converter

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

    from mtanimate.video.probe import Video

# What is read, by libavformat's names. Lists of other files (hls, dash, concat), text and devices are not among them.
FORMATS = (
    *("mov", "matroska", "avi", "gif", "mpegts", "mpeg", "mxf", "asf", "ogg", "flv", "nut", "dv", "rm", "wtv", "ivf"),
    *("yuv4mpegpipe", "h264", "hevc", "obu", "m4v", "mpegvideo", "mjpeg", "webp", "apng"),
    *("wav", "w64", "mp3", "aac", "flac", "aiff", "au", "caf", "ac3", "eac3", "dts", "amr", "ape", "tta", "wv"),
)
_NO_VIDEO = "attached_pic", "timed_thumbnails", "still_image"


class Damaged(Exception):
    """The file is cut off or damaged: a frame is missing, or was patched up."""


def opened(path: Path) -> "InputContainer":
    """The file, open: to be closed. Raises InputError where it is of no format that is read.

    A file cannot make libavformat open another file or an address that it names.
    """
    import av

    options = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "file"}
    try:
        return av.open(f"file:{path}", container_options=options, metadata_errors="replace")
    except MemoryError as error:
        raise OutOfMemory(path) from error
    except (av.FFmpegError, ValueError) as error:
        raise InputError(f"{path} is not a video or is cut off: give an MP4, MOV, MKV, WebM, AVI or GIF") from error


def picture_stream(container: "InputContainer") -> "VideoStream | None":
    """The default stream of pictures, of several the largest; None without one. Covers and thumbnails are none, and
    a single picture counts only where nothing moves."""
    from av.stream import Disposition

    streams = [
        stream
        for stream in container.streams.video
        if stream.codec_context is not None
        and not any(Disposition[kind] in Disposition(stream.disposition) for kind in _NO_VIDEO)
    ]
    return max(streams, key=_preference, default=None)


def limit(stream: "VideoStream", max_pixels: int) -> None:
    """Frames of more pixels are not decoded, wherever in the file they come. Say it before the first is."""
    stream.codec_context.options = {"max_pixels": str(max_pixels)}


def _preference(stream: "VideoStream") -> tuple[bool, bool, int]:
    from av.stream import Disposition

    is_default = Disposition.default in Disposition(stream.disposition)
    return stream.frames != 1, is_default, stream.width * stream.height


def sound_stream(container: "InputContainer") -> "AudioStream | None":
    """The default sound track, else the first whose codec is known; None without one."""
    from av.stream import Disposition

    tracks = [track for track in container.streams.audio if track.codec_context is not None]
    default = (track for track in tracks if Disposition.default in Disposition(track.disposition))
    return next(default, tracks[0] if tracks else None)


def packets(container: "InputContainer", *streams: "Stream") -> "Iterator[Packet]":
    """The packets of these streams, and one without content for each that ends the decoding. Raises Damaged,
    MemoryError."""
    import av

    try:
        for packet in container.demux(*streams):
            if packet.is_corrupt and packet.stream.type == "video":
                raise Damaged
            if packet.size or packet.dts is None:  # AVI repeats a picture by an empty packet
                yield packet
    except MemoryError:  # libav's, too
        raise
    except av.FFmpegError as error:
        raise Damaged from error


def decode(packets: "Iterable[Packet]") -> "Iterator[VideoFrame]":
    """The frames that are shown, in their order. Raises Damaged, MemoryError."""
    import av

    begun = False
    for packet in packets:
        try:
            frames = packet.decode()
        except MemoryError:
            raise
        except av.FFmpegError as error:
            if begun or packet.is_keyframe:
                raise Damaged from error
            continue  # a recording that begins within a picture
        for frame in frames:
            if frame.is_corrupt:
                raise Damaged
            begun = True
            yield frame


_LONGEST_WAIT = 10  # seconds, as ffmpeg has it: a clock that jumps further was set anew
_TYPED = Fraction(1, 2000)  # people type times to the millisecond: 0.067 is the frame at 2/30


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


def varies(times: list[int], tick: Fraction, fps: Fraction) -> bool:
    """Whether frames stand two ticks, or half a frame, away from where this rate would have them.

    times: of the frames, in ticks, ascending. tick: seconds.
    """
    seconds = (np.array(times) - times[0]) * float(tick)
    away = np.abs(seconds - np.arange(len(times)) / float(fps)).max()
    return bool(away > min(2 * tick, 1 / fps / 2) + Fraction(1, 10**9))


def joined(times: list[int], tick: Fraction, rate: Fraction) -> list[int]:
    """Times of a recording whose clock may jump, back or far ahead: what comes then follows one frame later.

    times: of the frames in the order they are shown, in ticks. tick: seconds. rate: frames a second.
    """
    step, most = round(1 / (rate * tick)), _LONGEST_WAIT / tick
    shift, shown = 0, times[:1]
    for time in times[1:]:
        if not 0 < time + shift - shown[-1] <= most:
            shift = shown[-1] + step - time
        shown.append(time + shift)
    return shown


def frames_between(
    path: Path, times: Sequence[Fraction], fps: Fraction, start: float | None, end: float | None
) -> range:
    """The numbers of the frames shown from `start` up to but not including `end`, None for the whole.

    times: seconds, ascending. A frame up to half a millisecond off counts as shown then.
    Raises InputError, naming the file at `path` and its length, where no frame is left.
    """
    first = 0 if start is None else bisect_left(times, start - _TYPED)
    last = len(times) if end is None else bisect_left(times, end - _TYPED)
    if (start is not None and not start >= 0) or first >= last:  # `not`: no number at all (nan) is refused too
        asked = f"from {0 if start is None else start:g} s" + ("" if end is None else f" to {end:g} s")
        length = float(times[-1] + 1 / fps)
        raise InputError(f"{path} shows no frame {asked}: it is {length:.2f} s long, choose times in it")
    return range(first, last)


_WORTH_SEEKING = 8  # frames: fewer are decoded and left out in less time


def pictures(path: Path, video: "Video", numbers: Sequence[int], *, threads: int) -> Generator[np.ndarray, None, None]:
    """The frames of these numbers, ascending: uint8 RGB (H, W, 3), each there until the next is asked for.

    threads: 0: as many as there are cores.

    Frames are sought by key frames and known by their time stamps. Where a file leads astray (its index is wrong, its
    key frames are none), they are counted from the beginning. Raises InputError on damage.
    """
    done = 0
    for keys in (video.keys, []):
        with suppress(Damaged), closing(_pictures(path, video, numbers[done:], keys, threads)) as found:
            for picture in _had(found, path):
                yield picture
                done += 1
        if done == len(numbers):
            return
    raise InputError(
        f"{path} is damaged near frame {numbers[done]}: copy it again, or re-encode it with a video editor"
    )


def _had(found: Iterator[np.ndarray], path: Path) -> Iterator[np.ndarray]:
    """The same pictures. Raises OutOfMemory where there is none for one."""
    while True:
        try:
            picture = next(found, None)
        except MemoryError as error:
            raise OutOfMemory(path) from error
        if picture is None:
            return
        yield picture


def _pictures(
    path: Path, video: "Video", numbers: Sequence[int], keys: list[int], threads: int
) -> Generator[np.ndarray, None, None]:
    """As `pictures`, beginning at these keys; without any, at the file's beginning. Raises Damaged."""
    picture = Converter(video.look, threads)
    with opened(path) as container:
        stream = picture_stream(container)
        assert stream is not None
        limit(stream, video.max_pixels)
        stream.thread_type, stream.codec_context.thread_count = "AUTO", threads
        frames, coming = decode(packets(container, stream)), 0
        for number in numbers:
            at = bisect_right(keys, number)
            if at and keys[at - 1] - coming >= _WORTH_SEEKING:
                frames, coming = _from_key(container, stream, video, keys[at - 1])
            frame = None
            for expected in range(coming, number + 1):
                frame = next(frames, None)
                if frame is None or (video.stamped and frame.pts != video.ticks[expected]):
                    raise Damaged
            coming = number + 1
            assert frame is not None  # numbers ascend
            yield picture(frame)


def _from_key(
    container: "InputContainer", stream: "VideoStream", video: "Video", key: int
) -> "tuple[Iterator[VideoFrame], int]":
    """Frames from this key frame on, or from one before it, and the number of the first. Raises Damaged where the
    container leads elsewhere."""
    import av

    try:
        container.seek(video.ticks[key], stream=stream)
    except av.FFmpegError as error:
        raise Damaged from error
    following = packets(container, stream)
    first = next(following)
    if not first.is_keyframe or first.pts is None or first.pts > video.ticks[key]:
        raise Damaged
    time = first.pts
    # Pictures that lead up to an open key frame refer to what was not decoded.
    frames = (frame for frame in decode(chain([first], following)) if frame.pts is None or frame.pts >= time)
    return frames, bisect_left(video.ticks, time)
