"""Frames out of a file in the order they are shown, from the beginning or from a key frame on, by libav."""

from bisect import bisect_left, bisect_right
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mtanimate.errors import InputError, OutOfMemory
from mtanimate.video.colour import Converter
from mtanimate.video.container import Damaged, decode, limit, opened, packets, picture_stream

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

    from mtanimate.video.probe import Video

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
