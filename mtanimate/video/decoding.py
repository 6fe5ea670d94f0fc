"""Decoding by libav: which formats are read, which streams are chosen, and frames by number."""

from bisect import bisect_left, bisect_right
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
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

    from mtanimate.video.probe import VideoInfo

# The formats that are read, by libavformat's names; without lists of other files (hls, dash, concat), text and devices.
FORMATS = (
    *("mov", "matroska", "avi", "gif", "mpegts", "mpeg", "mxf", "asf", "ogg", "flv", "nut", "dv", "rm", "wtv", "ivf"),
    *("yuv4mpegpipe", "h264", "hevc", "obu", "m4v", "mpegvideo", "mjpeg", "webp", "apng"),
    *("wav", "w64", "mp3", "aac", "flac", "aiff", "au", "caf", "ac3", "eac3", "dts", "amr", "ape", "tta", "wv"),
)
_NO_VIDEO = "attached_pic", "timed_thumbnails", "still_image"
_WORTH_SEEKING = 8  # frames; fewer are skipped faster by decoding them


class Damaged(Exception):
    """The file is cut off or damaged: a frame is missing, or was patched up."""


def open_container(path: Path) -> "InputContainer":
    """Opens a file; the caller closes it.

    The file cannot make libavformat open another file or an address that it names.

    Args:
        path: of the file.

    Returns:
        PyAV's container.

    Raises:
        InputError: the file is in none of the formats that are read.
        OutOfMemory: it needs more memory than there is.
    """
    import av

    options = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "file"}
    try:
        return av.open(f"file:{path}", container_options=options, metadata_errors="replace")
    except MemoryError as error:
        raise OutOfMemory(path) from error
    except (av.FFmpegError, ValueError) as error:
        raise InputError(f"{path} is not a video or is cut off: give an MP4, MOV, MKV, WebM, AVI or GIF") from error


def video_stream(container: "InputContainer") -> "VideoStream | None":
    """The default video stream, of several the largest; None without one.

    Covers and thumbnails do not count; a stream of a single picture counts only if there is no other.
    """
    from av.stream import Disposition

    streams = [
        stream
        for stream in container.streams.video
        if stream.codec_context is not None
        and not any(Disposition[kind] in Disposition(stream.disposition) for kind in _NO_VIDEO)
    ]
    return max(streams, key=_preference, default=None)


def audio_stream(container: "InputContainer") -> "AudioStream | None":
    """The default audio stream, else the first whose codec is known; None without one."""
    from av.stream import Disposition

    tracks = [track for track in container.streams.audio if track.codec_context is not None]
    default = (track for track in tracks if Disposition.default in Disposition(track.disposition))
    return next(default, tracks[0] if tracks else None)


def limit_pixels(stream: "VideoStream", max_pixels: int) -> None:
    """Refuses to decode frames with more pixels, wherever in the file they are. To be called before the first frame."""
    stream.codec_context.options = {"max_pixels": str(max_pixels)}


def packets(container: "InputContainer", *streams: "Stream") -> "Iterator[Packet]":
    """Yields the packets of these streams, and for each an empty one that flushes its decoder.

    Raises:
        Damaged: a packet is damaged.
        MemoryError: memory ran out.
    """
    import av

    try:
        for packet in container.demux(*streams):
            if packet.is_corrupt and packet.stream.type == "video":
                raise Damaged
            if packet.size or packet.dts is None:  # in AVI an empty packet repeats a picture
                yield packet
    except MemoryError:  # libav's, too
        raise
    except av.FFmpegError as error:
        raise Damaged from error


def decode(packets: "Iterable[Packet]") -> "Iterator[VideoFrame]":
    """Yields the frames of packets, in the order they are shown.

    Raises:
        Damaged: a frame is missing or damaged.
        MemoryError: memory ran out.
    """
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
            continue  # the recording begins inside a picture
        for frame in frames:
            if frame.is_corrupt:
                raise Damaged
            begun = True
            yield frame


def decode_frames(
    path: Path, video: "VideoInfo", numbers: Sequence[int], *, threads: int
) -> Generator[np.ndarray, None, None]:
    """Decodes frames by number.

    Seeks by key frames and identifies frames by their time stamps. Where that fails (a wrong index, or key frames that
    are none), frames are counted from the beginning.

    Args:
        path: of the video.
        video: what `probe` found in it.
        numbers: of the frames, ascending.
        threads: of the decoder; 0: one for each core.

    Yields:
        uint8 RGB (H, W, 3); the next frame overwrites the array.

    Raises:
        InputError: the file is damaged.
        OutOfMemory: a frame needs more memory than there is.
    """
    done = 0
    for keys in (video.keys, []):
        with suppress(Damaged), closing(_decode_from(path, video, numbers[done:], keys, threads)) as found:
            for picture in _had(found, path):
                yield picture
                done += 1
        if done == len(numbers):
            return
    raise InputError(
        f"{path} is damaged near frame {numbers[done]}: copy it again, or re-encode it with a video editor"
    )


def _preference(stream: "VideoStream") -> tuple[bool, bool, int]:
    from av.stream import Disposition

    is_default = Disposition.default in Disposition(stream.disposition)
    return stream.frames != 1, is_default, stream.width * stream.height


def _had(found: Iterator[np.ndarray], path: Path) -> Iterator[np.ndarray]:
    """Yields the same pictures; MemoryError becomes OutOfMemory with the file's name."""
    while True:
        try:
            picture = next(found, None)
        except MemoryError as error:
            raise OutOfMemory(path) from error
        if picture is None:
            return
        yield picture


def _decode_from(
    path: Path, video: "VideoInfo", numbers: Sequence[int], keys: list[int], threads: int
) -> Generator[np.ndarray, None, None]:
    """As `decode_frames`, seeking to these key frames; without any, from the beginning. Raises Damaged."""
    picture = Converter(video.format, threads)
    with open_container(path) as container:
        stream = video_stream(container)
        assert stream is not None
        limit_pixels(stream, video.max_pixels)
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
    container: "InputContainer", stream: "VideoStream", video: "VideoInfo", key: int
) -> "tuple[Iterator[VideoFrame], int]":
    """Frames from this key frame on, or from one before it, and the number of the first.

    Raises:
        Damaged: seeking led elsewhere.
    """
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
    # Leading pictures of an open key frame refer to frames that were not decoded.
    frames = (frame for frame in decode(chain([first], following)) if frame.pts is None or frame.pts >= time)
    return frames, bisect_left(video.ticks, time)
