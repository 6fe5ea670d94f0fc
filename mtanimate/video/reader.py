"""Videos in: frames as uint8 RGB, in order or by number."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from fractions import Fraction
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from mtanimate.errors import InputError
from mtanimate.video.ffmpeg import ONLY_FILES, FFmpeg, local
from mtanimate.video.probe import DAMAGE, Video, probe
from mtanimate.video.timing import frames_between, varies

# Containers with an index of their frames. In others (MPEG-TS) decord's numbers are off by some frames.
_INDEXED = ("mov", "matroska", "avi", "gif")


class VideoReader:
    """Opens a video: MP4, MOV, MKV, WebM, AVI, GIF and what else ffmpeg knows. Rotation is applied.

    path: pathlib.Path. frame_count: int. fps: the exact rate, 30000/1001 stays so; the mean where it varies.
    variable: whether it varies: the frames' times do not agree with `fps`.
    sound_offset: when the first frame is shown, in seconds on the file's clock: after the first picture or sound.
    width, height: pixels, after rotation. has_audio: whether there is a sound stream.
    decoder: "cpu" or "cuda:0". decoder_note: why a GPU that was asked for is not used, else "".

    decord decodes on the GPU and picks frames by number. In order on the CPU, ffmpeg decodes into a pipe:
    decord runs ahead of a slow caller without limit (gigabytes in seconds), a full pipe makes ffmpeg wait. Where
    decord is not installed, ffmpeg decodes from the first frame that is picked to the last.

    gpu: decode on the first NVIDIA GPU if this build of decord can.
    Raises InputError when the file is missing, not a video, or cut off.
    """

    def __init__(self, path: str | Path, *, gpu: bool = False) -> None:
        self.path = Path(path)
        self._video: Video = probe(self.path)
        video = self._video
        self.frame_count: int = video.frame_count
        self.fps: Fraction = video.fps
        self.variable: bool = varies(video.ticks, video.tick, video.fps)
        self.sound_offset: Fraction = video.start
        self.width: int = video.width
        self.height: int = video.height
        self.has_audio: bool = video.sound is not None
        self.decoder = "cpu"
        self.decoder_note = ""
        self._numbered = not video.has_edits and video.container.split(",")[0] in _INDEXED
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
        first, last = int(wanted.min()), int(wanted.max())
        if first < 0 or last >= self.frame_count:
            raise IndexError(f"frames {first} to {last} of a video of {self.frame_count} frames")
        if self._numbered and find_spec("decord") is not None:
            numbers: Sequence[int] = np.unique(wanted).tolist()
            source = self._decord_frames(numbers)
        else:
            numbers = range(first, last + 1)
            source = self._ffmpeg_frames(numbers)
        for number, frame in zip(numbers, source, strict=True):
            frames[wanted == number] = frame
        return frames

    def _batches(self, batch_size: int, numbers: range) -> Iterator[np.ndarray]:
        source = self._ffmpeg_frames(numbers) if self.decoder == "cpu" else self._decord_frames(numbers)
        with closing(source):
            for done in range(0, len(numbers), batch_size):
                batch = np.empty((min(batch_size, len(numbers) - done), self.height, self.width, 3), np.uint8)
                for row in batch:
                    row[...] = next(source)
                yield batch

    def _ffmpeg_frames(self, numbers: range) -> Generator[np.ndarray, None, None]:
        """The frames of these numbers, each (H, W, 3). Raises InputError on damage or an early end."""
        if not numbers:
            return
        chosen = f"trim=start_frame={numbers[0]}:end_frame={numbers[-1] + 1}"
        if numbers.step > 1:
            chosen += f",select='not(mod(n,{numbers.step}))'"
        # -xerror: a frame that ffmpeg had to patch up is an error. passthrough: none is doubled or dropped.
        arguments = ["-nostdin", "-xerror", *ONLY_FILES, "-i", local(self.path)]
        arguments += ["-map", "0:V:0", "-vf", chosen]
        arguments += ["-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
        ffmpeg = FFmpeg(arguments)
        size = self.height * self.width * 3
        try:
            assert ffmpeg.process.stdout is not None
            for number in numbers:
                pixels = ffmpeg.process.stdout.read(size)
                failed = number == numbers[-1] and ffmpeg.finish() != 0
                if failed or len(pixels) < size or ffmpeg.said(DAMAGE):
                    raise self._damaged(number)
                yield np.frombuffer(pixels, np.uint8).reshape(self.height, self.width, 3)
        finally:
            ffmpeg.kill()

    def _decord_frames(self, indices: Iterable[int]) -> Generator[np.ndarray, None, None]:
        """The frames of these numbers, each (H, W, 3). Raises InputError on damage."""
        import decord

        number = 0
        try:
            # Opened anew each time: an open decord reader holds on to the frames it decoded ahead.
            opened = self._open_decord(gpu=self.decoder != "cpu")
            for number in indices:
                opened.seek_accurate(number)
                yield self._tight(opened.next().asnumpy())
        except (decord.DECORDError, RuntimeError, StopIteration) as error:
            raise self._damaged(number) from error

    def _open_decord(self, gpu: bool) -> Any:
        import decord

        decord.logging.set_level(decord.logging.QUIET)
        # One thread: for two frames out of a clip others cost more than they bring.
        return decord.VideoReader(str(self.path.resolve()), decord.gpu(0) if gpu else decord.cpu(0), num_threads=1)

    def _tight(self, frame: np.ndarray) -> np.ndarray:
        """Undoes decord's mistake of taking the padding of rows for a fourth channel (widths 32, 96)."""
        rows = frame.reshape(self.height, -1)
        return rows[:, : self.width * 3].reshape(self.height, self.width, 3)

    def _try_gpu(self) -> None:
        try:
            shape = self._open_decord(gpu=True).next().shape
        except Exception as error:  # whatever is missing (build, driver, device, codec), the CPU decodes it
            reason = str(error).strip().splitlines()[0].rpartition(": ")[2]
            self.decoder_note = f"the GPU does not decode this video ({reason})"
            return
        if shape != (self.height, self.width, 3) or not self._numbered:
            self.decoder_note = "the GPU does not decode a rotated or trimmed video"
            return
        self.decoder = "cuda:0"

    def _damaged(self, number: int) -> InputError:
        return InputError(
            f"{self.path} is damaged near frame {number}: copy it again, or re-encode it with a video editor"
        )
