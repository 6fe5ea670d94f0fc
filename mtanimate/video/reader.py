"""Reading videos: frames as uint8 RGB, in order or by number."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mtanimate.reading import MAX_PIXELS
from mtanimate.video.decoding import decode_frames
from mtanimate.video.probe import VideoInfo, probe
from mtanimate.video.timing import frames_between, is_variable

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
