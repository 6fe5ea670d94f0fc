"""Decoding by libav: which formats are read, which streams are chosen, packets and their frames."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mtanimate.errors import InputError, OutOfMemory

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream


# The formats that are read, by libavformat's names; without lists of other files (hls, dash, concat), text and devices.
FORMATS = (
    *("mov", "matroska", "avi", "gif", "mpegts", "mpeg", "mxf", "asf", "ogg", "flv", "nut", "dv", "rm", "wtv", "ivf"),
    *("yuv4mpegpipe", "h264", "hevc", "obu", "m4v", "mpegvideo", "mjpeg", "webp", "apng"),
    *("wav", "w64", "mp3", "aac", "flac", "aiff", "au", "caf", "ac3", "eac3", "dts", "amr", "ape", "tta", "wv"),
)
_NO_VIDEO = "attached_pic", "timed_thumbnails", "still_image"


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


def _preference(stream: "VideoStream") -> tuple[bool, bool, int]:
    from av.stream import Disposition

    is_default = Disposition.default in Disposition(stream.disposition)
    return stream.frames != 1, is_default, stream.width * stream.height
