"""What a video file holds, found by walking its packets once, and decoding it only where packets are not pictures."""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from mtanimate.errors import InputError, OutOfMemory
from mtanimate.reading import MAX_PIXELS, check_pixels, check_readable
from mtanimate.video.colour import Look
from mtanimate.video.decoding import (
    Damaged,
    decode,
    frame_rate,
    joined,
    limit,
    opened,
    packets,
    picture_stream,
    sound_stream,
)
from mtanimate.video.ending import ends_early

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

# Of these a packet is a picture, but for what `_told_by_packets` looks at.
_A_PICTURE_A_PACKET = {"h264", "hevc", "av1", "vp8", "vp9", "mjpeg", "prores", "ffv1", "gif"}
# Of these libav sees for itself which pictures are key frames, whatever the container says.
_KEYS_ARE_SEEN = {"h264", "hevc", "av1", "vp8", "vp9", "mjpeg", "prores", "ffv1", "mpeg4", "mpeg2video"}
_JUMPS = 0x0200  # AVFMT_TS_DISCONT: recordings, whose clock may jump


@dataclass(frozen=True)
class Video:
    """ticks: when each shown frame is shown, ascending, in steps of `tick` seconds.

    stamped: whether the decoder's time stamps are these ticks, all different, so that a frame is known by its own.
    keys: numbers of the key frames at which decoding can begin, ascending; empty where none can be told.
    start: when the first frame is shown, in seconds on the file's clock, which is 0 at its first picture or sound.
    sound: when the first packet of sound comes, heard or not, on that clock; None without sound that can be decoded.
    fps: exact; the mean where it varies. look: the shape and the colours of its pictures. max_pixels: frames that have
    more are not decoded.
    """

    ticks: list[int]
    tick: Fraction
    stamped: bool
    keys: list[int]
    start: Fraction
    sound: Fraction | None
    fps: Fraction
    look: Look
    max_pixels: int

    @property
    def frame_count(self) -> int:
        return len(self.ticks)


@dataclass(frozen=True)
class _Picture:
    """A packet. time, order: when it is shown and decoded, in ticks, where the container knows."""

    time: int | None
    order: int | None
    key: bool
    shown: bool


def probe(path: Path, max_pixels: int = MAX_PIXELS) -> Video:
    """Walks through a video file. Raises InputError when it is missing, foreign, empty, cut off, or of more pixels."""
    check_readable(path, "video")
    with opened(path) as container:
        stream, sound = picture_stream(container), sound_stream(container)
        if stream is None:
            raise InputError(f"{path} has no pictures, only sound or data: give a video")
        check_pixels(path, stream.width, stream.height, max_pixels)
        limit(stream, max_pixels)
        streams = [stream] if sound is None else [stream, sound]
        try:
            pictures, first, heard = _walk(container, stream, streams)
            if ends_early(path, container.format.name):
                raise Damaged
            if first is None:
                raise InputError(f"{path} holds no frames: record or download the video again")
            look = Look.of(first, stream)
            check_pixels(path, look.width, look.height, max_pixels)  # pixels that are not square are stretched
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
        return Video(
            ticks=ticks,
            tick=tick,
            stamped=stamped,
            keys=_keys(ticks, pictures) if stamped and codec in _KEYS_ARE_SEEN else [],
            start=ticks[0] * tick - zero,
            sound=None if heard is None else heard - zero,
            fps=frame_rate(ticks, tick, float(declared) if declared else None),
            look=look,
            max_pixels=max_pixels,
        )


def _walk(
    container: "InputContainer", stream: "VideoStream", streams: "Iterable[Stream]"
) -> "tuple[list[_Picture], VideoFrame | None, Fraction | None]":
    """All packets of pictures, the first frame that is shown, and the time of the first packet of sound in seconds.

    Raises Damaged."""
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
    """The time stamps of the frames in the order they are shown; None where only decoding tells them."""
    codec = stream.codec_context.codec.canonical_name
    times = sorted(picture.time for picture in pictures if picture.shown and picture.time is not None)
    order = [picture.order for picture in pictures if picture.order is not None]
    if (
        codec not in _A_PICTURE_A_PACKET
        or container.format.name == "avi"  # stores the order of decoding alone
        or (codec == "h264" and first.interlaced_frame)  # two fields may be two packets
        or not times
        or len(set(times)) < sum(picture.shown for picture in pictures)
        or any(one >= next for one, next in pairwise(order))  # the clock jumps
        or first.pts != times[0]  # cut: the first pictures refer to what is gone
    ):
        return None
    return list(times)


def _is_hidden(codec: str, packet: "Packet") -> bool:
    """Whether a packet of VP8 or VP9 holds a picture that is only for others to refer to (an alternate reference)."""
    data = memoryview(packet)
    if codec == "vp8":
        return not data[0] & 0x10
    if codec != "vp9" or data[-1] & 0xE0 == 0xC0:  # several pictures, the last of which is shown
        return False
    # After marker and profile: show_existing_frame, frame_type, show_frame; profile 3 has a bit more.
    flags = data[0] << 1 if data[0] & 0x30 == 0x30 else data[0]
    return not flags & 0x08 and not flags & 0x02


def _decoded(path: Path, max_pixels: int) -> list[int | None]:
    """The time stamps of all frames. Raises Damaged."""
    with opened(path) as container:
        stream = picture_stream(container)
        assert stream is not None
        limit(stream, max_pixels)
        stream.thread_type = "AUTO"
        stamps = [frame.pts for frame in decode(packets(container, stream))]
    if not stamps:
        raise Damaged
    return stamps


def _ascending(
    container: "InputContainer", stamps: list[int | None], tick: Fraction, pictures: list[_Picture], rate: Fraction
) -> list[int]:
    """Times of the frames, in ticks, out of their time stamps."""
    times = [stamp for stamp in stamps if stamp is not None]
    if len(times) == len(stamps):
        if container.format.flags & _JUMPS:
            return joined(times, tick, rate)
        if all(one <= next for one, next in pairwise(times)):
            return times
    # AVI keeps the order of decoding: as many are shown at as many times.
    order = sorted(picture.order for picture in pictures if picture.order is not None)
    return order if len(order) == len(stamps) else [round(number / rate / tick) for number in range(len(stamps))]


def _keys(ticks: list[int], pictures: list[_Picture]) -> list[int]:
    times = {picture.time for picture in pictures if picture.key}
    return [number for number, time in enumerate(ticks) if time in times]


def _zero(container: "InputContainer", streams: "Iterable[Stream]") -> Fraction:
    """Where the file's clock is 0, in seconds by its time stamps; as ffmpeg has it, which cuts the sound."""
    if container.format.flags & _JUMPS or container.start_time is None:
        starts = [stream.start_time * (stream.time_base or 1) for stream in streams if stream.start_time is not None]
        return Fraction(min(starts, default=0))
    return Fraction(container.start_time, 1_000_000)
