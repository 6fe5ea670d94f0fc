"""Probing: what a video file holds, found by walking its packets once, and whether the file is cut off.

Frames are decoded only where packets do not tell when they are shown.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from mtanimate.errors import InputError, OutOfMemory
from mtanimate.reading import MAX_PIXELS, check_pixels, check_readable
from mtanimate.video.colour import FrameFormat
from mtanimate.video.decoding import Damaged, audio_stream, decode, limit_pixels, open_container, packets, video_stream
from mtanimate.video.timing import continuous_times, frame_rate

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

# Codecs with one picture in each packet, with the exceptions that `_told_by_packets` checks.
_A_PICTURE_A_PACKET = {"h264", "hevc", "av1", "vp8", "vp9", "mjpeg", "prores", "ffv1", "gif"}
# Codecs whose key frames libav recognises itself, whatever the container says.
_KEYS_ARE_SEEN = {"h264", "hevc", "av1", "vp8", "vp9", "mjpeg", "prores", "ffv1", "mpeg4", "mpeg2video"}
_JUMPS = 0x0200  # AVFMT_TS_DISCONT: recordings, whose clock may jump
# The outer boxes of MP4 and MOV. Anything else at the end was appended by a camera or a program.
_BOXES = b"ftyp styp moov moof mdat mfra free skip wide uuid meta sidx ssix pdin prft emsg pnot udta".split()
_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675  # of Matroska


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds.

    Attributes:
        ticks: when each frame is shown, ascending, in steps of `tick` seconds.
        tick: seconds.
        stamped: whether the decoder's time stamps are these ticks, all different, so that they identify frames.
        keys: numbers of the key frames at which decoding can start, ascending; empty where they are not known.
        start: when the first frame is shown, in seconds on the file's clock, which is 0 at its first picture or sound.
        sound: when the first packet of sound comes, on that clock, in seconds; None without sound that can be decoded.
        fps: exact frames a second; the mean where the rate varies.
        format: size and colours of its pictures.
        max_pixels: frames with more pixels are not decoded.
    """

    ticks: list[int]
    tick: Fraction
    stamped: bool
    keys: list[int]
    start: Fraction
    sound: Fraction | None
    fps: Fraction
    format: FrameFormat
    max_pixels: int

    @property
    def frame_count(self) -> int:
        return len(self.ticks)


def probe(path: Path, max_pixels: int = MAX_PIXELS) -> VideoInfo:
    """Walks through a video file once.

    Args:
        path: of the file.
        max_pixels: the most pixels of a frame.

    Returns:
        What the file holds.

    Raises:
        InputError: the file is missing, no video, empty, cut off, or its frames have more pixels.
        OutOfMemory: it needs more memory than there is.
    """
    check_readable(path, "video")
    with open_container(path) as container:
        stream, sound = video_stream(container), audio_stream(container)
        if stream is None:
            raise InputError(f"{path} has no pictures, only sound or data: give a video")
        check_pixels(path, stream.width, stream.height, max_pixels)
        limit_pixels(stream, max_pixels)
        streams = [stream] if sound is None else [stream, sound]
        try:
            pictures, first, heard = _walk(container, stream, streams)
            if is_truncated(path, container.format.name):
                raise Damaged
            if first is None:
                raise InputError(f"{path} holds no frames: record or download the video again")
            format = FrameFormat.of_frame(first, stream)
            check_pixels(path, format.width, format.height, max_pixels)  # pixels that are not square are stretched
            stamps = _told_by_packets(container, stream, pictures, first) or _decoded(path, max_pixels)
        except Damaged as error:
            raise InputError(f"{path} is damaged or cut off: copy or download the video again") from error
        except MemoryError as error:
            raise OutOfMemory(path) from error
        codec, tick = stream.codec_context.codec.canonical_name, Fraction(stream.time_base or 1)
        declared = stream.average_rate or stream.guessed_rate
        ticks = _ascending(container, stamps, tick, pictures, declared or Fraction(25))
        stamped = ticks == stamps and all(one < next for one, next in pairwise(ticks))
        zero = _zero(container, streams)
        return VideoInfo(
            ticks=ticks,
            tick=tick,
            stamped=stamped,
            keys=_keys(ticks, pictures) if stamped and codec in _KEYS_ARE_SEEN else [],
            start=ticks[0] * tick - zero,
            sound=None if heard is None else heard - zero,
            fps=frame_rate(ticks, tick, float(declared) if declared else None),
            format=format,
            max_pixels=max_pixels,
        )


def is_truncated(path: Path, container: str) -> bool:
    """Whether a file is shorter than it says itself; decoders do not notice a cut between two frames.

    Args:
        path: of the file.
        container: libavformat's name of its format, such as "mov,mp4,m4a".

    Returns:
        True only where the file itself says that more should follow.
    """
    walks: dict[str, Callable[[BinaryIO, int], bool]] = {
        "mov": _within_a_box,
        "matroska": _within_an_element,
        "avi": _within_a_chunk,
        "gif": _without_a_trailer,
    }
    walk = walks.get(container.split(",")[0])
    if walk is None:
        return False
    with path.open("rb") as file:
        return walk(file, path.stat().st_size)


@dataclass(frozen=True)
class _Picture:
    """A packet with a picture. time, order: when it is shown and decoded, in ticks, where the container says so."""

    time: int | None
    order: int | None
    key: bool
    shown: bool


def _walk(
    container: "InputContainer", stream: "VideoStream", streams: "Iterable[Stream]"
) -> "tuple[list[_Picture], VideoFrame | None, Fraction | None]":
    """All packets with pictures, the first frame that is shown, and the time of the first packet of sound in seconds.

    Raises:
        Damaged: a packet is damaged.
    """
    codec = stream.codec_context.codec.canonical_name
    stream.codec_context.thread_count = 1
    pictures: list[_Picture] = []
    first = heard = None
    for packet in packets(container, *streams):
        if packet.stream_index != stream.index:
            if heard is None and packet.pts is not None:
                heard = packet.pts * packet.time_base
            continue
        if first is None:
            first = next(decode([packet]), None)
        if packet.size:
            shown = not packet.is_discard and not _is_hidden(codec, packet)
            pictures.append(_Picture(packet.pts, packet.dts, packet.is_keyframe, shown))
    return pictures, first, heard


def _told_by_packets(
    container: "InputContainer", stream: "VideoStream", pictures: list[_Picture], first: "VideoFrame"
) -> list[int | None] | None:
    """The time stamps of the frames in the order they are shown; None where they must be decoded."""
    codec = stream.codec_context.codec.canonical_name
    times = sorted(picture.time for picture in pictures if picture.shown and picture.time is not None)
    order = [picture.order for picture in pictures if picture.order is not None]
    if (
        codec not in _A_PICTURE_A_PACKET
        or container.format.name == "avi"  # stores only the decoding order
        or (codec == "h264" and first.interlaced_frame)  # two fields may be two packets
        or not times
        or len(set(times)) < sum(picture.shown for picture in pictures)
        or any(one >= next for one, next in pairwise(order))  # the clock jumps
        or first.pts != times[0]  # cut: the first pictures refer to what is gone
    ):
        return None
    return list(times)


def _is_hidden(codec: str, packet: "Packet") -> bool:
    """Whether a packet of VP8 or VP9 holds a picture that is never shown, only referred to (an alternate reference)."""
    data = memoryview(packet)
    if codec == "vp8":
        return not data[0] & 0x10
    if codec != "vp9" or data[-1] & 0xE0 == 0xC0:  # several pictures, the last of which is shown
        return False
    # After marker and profile: show_existing_frame, frame_type, show_frame; profile 3 has a bit more.
    flags = data[0] << 1 if data[0] & 0x30 == 0x30 else data[0]
    return not flags & 0x08 and not flags & 0x02


def _decoded(path: Path, max_pixels: int) -> list[int | None]:
    """The time stamps of all frames, by decoding them. Raises Damaged."""
    with open_container(path) as container:
        stream = video_stream(container)
        assert stream is not None
        limit_pixels(stream, max_pixels)
        stream.thread_type = "AUTO"
        stamps = [frame.pts for frame in decode(packets(container, stream))]
    if not stamps:
        raise Damaged
    return stamps


def _ascending(
    container: "InputContainer", stamps: list[int | None], tick: Fraction, pictures: list[_Picture], rate: Fraction
) -> list[int]:
    """Times of the frames in ticks, ascending, from their time stamps."""
    times = [stamp for stamp in stamps if stamp is not None]
    if len(times) == len(stamps):
        if container.format.flags & _JUMPS:
            return continuous_times(times, tick, rate)
        if all(one <= next for one, next in pairwise(times)):
            return times
    # AVI stores the decoding order: sorted, its times are those of the frames.
    order = sorted(picture.order for picture in pictures if picture.order is not None)
    return order if len(order) == len(stamps) else [round(number / rate / tick) for number in range(len(stamps))]


def _keys(ticks: list[int], pictures: list[_Picture]) -> list[int]:
    times = {picture.time for picture in pictures if picture.key}
    return [number for number, time in enumerate(ticks) if time in times]


def _zero(container: "InputContainer", streams: "Iterable[Stream]") -> Fraction:
    """Where the file's clock is 0, in seconds by its time stamps; as in ffmpeg, which cuts the sound."""
    if container.format.flags & _JUMPS or container.start_time is None:
        starts = [stream.start_time * (stream.time_base or 1) for stream in streams if stream.start_time is not None]
        return Fraction(min(starts, default=0))
    return Fraction(container.start_time, 1_000_000)


def _within_a_box(file: BinaryIO, length: int) -> bool:
    start = 0
    while start + 8 <= length:
        file.seek(start)
        head = file.read(16)
        size = int.from_bytes(head[:4], "big")
        if size == 1:
            size = int.from_bytes(head[8:], "big")
        if size < 8 or head[4:8] not in _BOXES:  # 0: the box goes on to the end of the file
            return False
        start += size
    return start > length


def _within_a_chunk(file: BinaryIO, length: int) -> bool:
    """AVI: one RIFF chunk, and more of them past a gigabyte."""
    start = 0
    while start + 8 <= length:
        file.seek(start)
        head = file.read(8)
        size = int.from_bytes(head[4:], "little")
        if head[:4] != b"RIFF" or not size:
            return False
        start += 8 + size + size % 2
    return start > length + 1  # the last may lack its padding


def _within_an_element(file: BinaryIO, length: int) -> bool:
    """Matroska and WebM. In a live recording the segment has no size: then its clusters count."""
    start, inside = 0, False
    while start < length:
        file.seek(start)
        name, name_size = _number(file, keep_marker=True)
        size, size_size = _number(file, keep_marker=False)
        start += name_size + size_size
        unknown = size == (1 << 7 * size_size) - 1
        if name == _SEGMENT and not inside and unknown:
            inside = True
        elif unknown or not name_size or not size_size:
            return False
        elif name == _SEGMENT or (inside and name == _CLUSTER and start + size > length):
            return start + size > length
        else:
            start += size
    return False


def _number(file: BinaryIO, *, keep_marker: bool) -> tuple[int, int]:
    """An EBML number of one to eight bytes, and its length in bytes; (0, 0) where there is none."""
    first = file.read(1)
    if not first or not first[0]:
        return 0, 0
    count = 9 - first[0].bit_length()
    value = int.from_bytes(first + file.read(count - 1), "big")
    return value if keep_marker else value & ((1 << 7 * count) - 1), count


def _without_a_trailer(file: BinaryIO, length: int) -> bool:
    """GIF: blocks of length-prefixed parts, then a semicolon."""
    _skip_colours(file, file.read(13)[10:11])
    while block := file.read(1):
        if block == b"!":
            file.seek(1, 1)
        elif block == b",":
            _skip_colours(file, file.read(9)[8:])
            file.seek(1, 1)
        else:  # the semicolon; other bytes are the decoder's to report
            return False
        while (part := file.read(1)) and part != b"\0":
            file.seek(part[0], 1)
    return True


def _skip_colours(file: BinaryIO, flags: bytes) -> None:
    """Skips a table of colours, if the flags say that one follows."""
    if flags and flags[0] & 0x80:
        file.seek(3 << (flags[0] & 7) + 1, 1)
