"""Videos in: frames as uint8 RGB, in order or by number."""

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

# Levels, on the mean: between two decoders' pictures of one frame, and between frames that are as good as equal.
_ALIKE, _TIE = 2.5, 0.01


class VideoReader:
    """Opens a video: MP4, MOV, MKV, WebM, AVI, GIF and what else libav knows.

    Frame n is the n-th that is shown. Frames are upright, mirrored where the file says so, with square pixels, in the
    colours of an SDR screen (BT.709, sRGB).

    path: pathlib.Path. frame_count: int. fps: the exact rate, 30000/1001 stays so; the mean where it varies.
    variable: whether it varies: the frames' times do not agree with `fps`.
    sound_offset: when the first frame is shown, in seconds on the file's clock: after the first picture or sound.
    width, height: pixels, as shown. has_audio: whether there is a sound stream.
    decoder: "cpu" or "cuda:0". decoder_note: why a GPU that was asked for is not used, else "".
    note: what users should know of how it is shown, else "".

    gpu: decode on the first NVIDIA GPU if this build of decord can, and shows the frames that libav shows.
    Raises InputError when the file is missing, not a video, cut off, or has more than `max_pixels` a frame.
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
        """When each frame is shown, in seconds since the first is: ascending, as many as frames."""
        video = self._video
        return [(time - video.ticks[0]) * video.tick for time in video.ticks]

    def frames_between(self, start: float | None, end: float | None) -> range:
        """The numbers of the frames shown from `start` seconds up to but not including `end`; None: no limit.

        Raises InputError where no frame is left.
        """
        return frames_between(self.path, self.times, self.fps, start, end)

    def batches(self, batch_size: int, start: int = 0, stop: int | None = None, step: int = 1) -> Iterator[np.ndarray]:
        """Every `step`-th of the frames start ... stop - 1 (to the end by default); the last batch may be shorter.

        Yields uint8 RGB (B, H, W, 3) with B <= batch_size; a batch is the caller's to keep or change.
        One batch is in memory at a time. Raises InputError on reaching damage in the file.
        """
        stop = self.frame_count if stop is None else stop
        if batch_size < 1 or step < 1 or not 0 <= start <= stop <= self.frame_count:
            raise ValueError(f"no batches of {batch_size} from {start} to {stop} of {self.frame_count} frames")
        return self._batches(batch_size, range(start, stop, step))

    def frames(self, indices: Sequence[int]) -> np.ndarray:
        """The frames of these numbers, in any order, repeated or not: uint8 RGB (N, H, W, 3).

        Raises IndexError for a number outside 0 ... frame_count - 1, InputError for a damaged file.
        """
        wanted = np.asarray(indices, dtype=np.int64).reshape(-1)
        frames = np.empty((len(wanted), self.height, self.width, 3), np.uint8)
        if not len(wanted):
            return frames
        numbers = np.unique(wanted).tolist()
        if numbers[0] < 0 or numbers[-1] >= self.frame_count:
            raise IndexError(f"frames {numbers[0]} to {numbers[-1]} of a video of {self.frame_count} frames")
        # One thread: for two frames out of a clip others cost more than they bring.
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
        """As `decode_frames`, by decord as long as it goes well."""
        import decord

        done = 0
        frames = self._decord_frames(numbers)
        # RuntimeError: also what an end that comes too early becomes in a generator
        with suppress(decord.DECORDError, RuntimeError), closing(frames):
            for frame in frames:
                yield frame
                done += 1
        yield from decode_frames(self.path, self._video, numbers[done:], threads=0)

    def _decord_frames(self, numbers: Sequence[int]) -> Generator[np.ndarray, None, None]:
        # Opened anew each time: an open decord reader holds on to the frames it decoded ahead.
        opened = self._open_decord()
        for number in numbers:
            opened.seek_accurate(number)
            yield self._tight(opened.next().asnumpy())

    def _open_decord(self) -> Any:
        import decord

        decord.logging.set_level(decord.logging.QUIET)
        return decord.VideoReader(str(self.path.resolve()), decord.gpu(0), num_threads=1)

    def _tight(self, frame: np.ndarray) -> np.ndarray:
        """Undoes decord's mistake of taking the padding of rows for a fourth channel (widths 32, 96)."""
        rows = frame.reshape(self.height, -1)
        return rows[:, : self.width * 3].reshape(self.height, self.width, 3)

    def _try_gpu(self) -> None:
        """decord shows other frames than it is asked for where packets are not frames in order, knows no mirrored
        matrix and no HDR, and may take another matrix of colours: some frames are compared first."""
        last = self.frame_count - 1
        numbers = sorted({last * part // 4 for part in range(5)})
        near = sorted({min(max(number + step, 0), last) for number in numbers for step in (-1, 0, 1)})
        true = self.frames(near).astype(np.int16)
        try:
            shown = np.stack(list(self._decord_frames(numbers)))
        except Exception as error:  # whatever is missing (build, driver, device, codec), the CPU decodes it
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].rpartition(": ")[2]
            self.decoder_note = f"the GPU does not decode this video ({reason})"
            return
        if not _alike(shown, true, [near.index(number) for number in numbers]):
            self.decoder_note = "the GPU does not decode this video right"
            return
        self.decoder = "cuda:0"


def _alike(shown: np.ndarray, true: np.ndarray, own: list[int]) -> bool:
    """Whether each of the shown frames is its own of the true ones, and none of the others."""
    if shown.shape[1:] != true.shape[1:]:
        return False
    for frame, index in zip(shown, own, strict=True):
        far = np.abs(true - frame).mean(axis=(1, 2, 3))
        if far[index] > min(far.min() + _TIE, _ALIKE):
            return False
    return True
