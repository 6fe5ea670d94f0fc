"""Reading videos: frames as uint8 RGB, in order or by number."""

from bisect import bisect_left, bisect_right
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from fractions import Fraction
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mtanimate.errors import InputError, OutOfMemory
from mtanimate.reading import MAX_PIXELS
from mtanimate.video.colour import Converter
from mtanimate.video.decoding import Damaged, decode, limit_pixels, open_container, packets, video_stream
from mtanimate.video.probe import VideoInfo, probe
from mtanimate.video.timing import frames_between, is_variable

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_WORTH_SEEKING = 8  # frames; fewer are skipped faster by decoding them
# Mean differences, in levels: of two decoders' pictures of one frame, and of frames that count as equal.
_ALIKE, _TIE = 2.5, 0.01


class VideoReader:
    """Opens a video: MP4, MOV, MKV, WebM, AVI, GIF and other formats that libav reads.

    Frame n is the n-th that is shown. Frames are upright, mirrored where the file says so, have square pixels, and the
    colours of an SDR screen (BT.709, sRGB).

    Args:
        path: of the file.
        gpu: decode on the first NVIDIA GPU, if decord can and gives the same frames as libav.
        max_pixels: the most pixels of a frame.

    Attributes:
        path: pathlib.Path.
        frame_count: int.
        fps: the exact rate (30000/1001 stays so), in frames a second; the mean where it varies.
        variable: whether the frames' times do not agree with `fps`.
        sound_offset: when the first frame is shown, in seconds after the file's first picture or sound.
        width: in pixels, as shown.
        height: in pixels, as shown.
        has_audio: whether there is a sound stream.
        decoder: "cpu" or "cuda:0".
        decoder_note: why a GPU that was asked for is not used, else "".
        note: what users should know of the conversion of colours, else "".

    Raises:
        InputError: the file is missing, no video, cut off, or has more than `max_pixels` a frame.
    """

    def __init__(self, path: str | Path, *, gpu: bool = False, max_pixels: int = MAX_PIXELS) -> None:
        self.path = Path(path)
        self._video: VideoInfo = probe(self.path, max_pixels)
        video = self._video
        self.frame_count: int = video.frame_count
        self.fps: Fraction = video.fps
        self.variable: bool = is_variable(video.ticks, video.tick, video.fps)
        self.sound_offset: Fraction = video.start
        self.width: int = video.format.width
        self.height: int = video.format.height
        self.has_audio: bool = video.sound is not None
        self.decoder = "cpu"
        self.decoder_note = ""
        self.note: str = video.format.note
        if gpu:
            self._try_gpu()

    @cached_property
    def times(self) -> list[Fraction]:
        """When each frame is shown, in seconds after the first, ascending, one for each frame."""
        video = self._video
        return [(time - video.ticks[0]) * video.tick for time in video.ticks]

    def frames_between(self, start: float | None, end: float | None) -> range:
        """The numbers of the frames in a time range.

        Args:
            start: first second, or None for the beginning.
            end: second to stop before, or None for the end.

        Raises:
            InputError: no frame is left.
        """
        return frames_between(self.path, self.times, self.fps, start, end)

    def batches(self, batch_size: int, start: int = 0, stop: int | None = None, step: int = 1) -> Iterator[np.ndarray]:
        """Decodes every `step`-th frame from `start` up to but not including `stop`, one batch in memory at a time.

        Args:
            batch_size: frames of a batch; the last may have fewer.
            start: number of the first frame.
            stop: number to stop before; None: the end.
            step: 1 for all frames.

        Returns:
            An iterator of uint8 RGB (B, H, W, 3), B <= batch_size, which the caller may keep or change.

        Raises:
            ValueError: a number is out of range.
            InputError: the file is damaged (raised where the damage is reached).
        """
        stop = self.frame_count if stop is None else stop
        if batch_size < 1 or step < 1 or not 0 <= start <= stop <= self.frame_count:
            raise ValueError(f"no batches of {batch_size} from {start} to {stop} of {self.frame_count} frames")
        return self._batches(batch_size, range(start, stop, step))

    def frames(self, indices: Sequence[int]) -> np.ndarray:
        """Decodes frames by number.

        Args:
            indices: frame numbers, in any order, repeated or not.

        Returns:
            uint8 RGB (N, H, W, 3).

        Raises:
            IndexError: a number is not in 0 ... frame_count - 1.
            InputError: the file is damaged.
        """
        wanted = np.asarray(indices, dtype=np.int64).reshape(-1)
        frames = np.empty((len(wanted), self.height, self.width, 3), np.uint8)
        if not len(wanted):
            return frames
        numbers = np.unique(wanted).tolist()
        if numbers[0] < 0 or numbers[-1] >= self.frame_count:
            raise IndexError(f"frames {numbers[0]} to {numbers[-1]} of a video of {self.frame_count} frames")
        # One thread: for a few frames of a clip, more are slower.
        for number, frame in zip(numbers, decode_frames(self.path, self._video, numbers, threads=1), strict=True):
            frames[wanted == number] = frame
        return frames

    def _batches(self, batch_size: int, numbers: range) -> Iterator[np.ndarray]:
        if self.decoder == "cpu":
            source = decode_frames(self.path, self._video, numbers, threads=0)
        else:
            source = self._on_gpu(numbers)
        with closing(source):
            for done in range(0, len(numbers), batch_size):
                batch = np.empty((min(batch_size, len(numbers) - done), self.height, self.width, 3), np.uint8)
                for row in batch:
                    row[...] = next(source)
                yield batch

    def _on_gpu(self, numbers: Sequence[int]) -> Generator[np.ndarray, None, None]:
        """As `decode_frames`, by decord; after an error the CPU continues."""
        import decord

        done = 0
        frames = self._decord_frames(numbers)
        # RuntimeError: also what StopIteration becomes inside a generator
        with suppress(decord.DECORDError, RuntimeError), closing(frames):
            for frame in frames:
                yield frame
                done += 1
        yield from decode_frames(self.path, self._video, numbers[done:], threads=0)

    def _decord_frames(self, numbers: Sequence[int]) -> Generator[np.ndarray, None, None]:
        # Opened anew each time: a decord reader keeps the frames that it decoded ahead.
        opened = self._open_decord()
        for number in numbers:
            opened.seek_accurate(number)
            yield self._tight(opened.next().asnumpy())

    def _open_decord(self) -> Any:
        import decord

        decord.logging.set_level(decord.logging.QUIET)
        return decord.VideoReader(str(self.path.resolve()), decord.gpu(0), num_threads=1)

    def _tight(self, frame: np.ndarray) -> np.ndarray:
        """Corrects decord, which takes the padding of rows for a fourth channel (widths 32, 96)."""
        rows = frame.reshape(self.height, -1)
        return rows[:, : self.width * 3].reshape(self.height, self.width, 3)

    def _try_gpu(self) -> None:
        """Uses the GPU only if some frames are equal to the CPU's.

        decord shows wrong frames where packets are not frames in order, ignores mirroring and HDR, and may assume
        another colour matrix.
        """
        last = self.frame_count - 1
        numbers = sorted({last * part // 4 for part in range(5)})
        near = sorted({min(max(number + step, 0), last) for number in numbers for step in (-1, 0, 1)})
        true = self.frames(near).astype(np.int16)
        try:
            shown = np.stack(list(self._decord_frames(numbers)))
        except Exception as error:  # build, driver, device or codec may be missing: the CPU decodes then
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].rpartition(": ")[2]
            self.decoder_note = f"the GPU does not decode this video ({reason})"
            return
        if not _alike(shown, true, [near.index(number) for number in numbers]):
            self.decoder_note = "the GPU does not decode this video right"
            return
        self.decoder = "cuda:0"


def _alike(shown: np.ndarray, true: np.ndarray, own: list[int]) -> bool:
    """Whether each frame in `shown` is nearest to its own frame in `true`, whose index is in `own`, and near enough."""
    if shown.shape[1:] != true.shape[1:]:
        return False
    for frame, index in zip(shown, own, strict=True):
        far = np.abs(true - frame).mean(axis=(1, 2, 3))
        if far[index] > min(far.min() + _TIE, _ALIKE):
            return False
    return True


def decode_frames(
    path: Path, video: VideoInfo, numbers: Sequence[int], *, threads: int
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
    path: Path, video: VideoInfo, numbers: Sequence[int], keys: list[int], threads: int
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
    container: "InputContainer", stream: "VideoStream", video: VideoInfo, key: int
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
