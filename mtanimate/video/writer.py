"""Writing videos by ffmpeg: frames through a pipe, then the sound, then the file's name."""

import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from math import lcm
from pathlib import Path
from types import TracebackType

import numpy as np

from mtanimate.errors import MTAnimateError
from mtanimate.files import Overwrite, give_name, hidden_beside
from mtanimate.video.encoding import CODECS, Encoding, check_output
from mtanimate.video.ffmpeg import FFmpeg, local
from mtanimate.video.png_folder import PictureFolder
from mtanimate.video.sound import Sound, SoundTrack, find_sound

_FINEST = 1_000_000  # ticks a second, where the times have no coarser common step


class VideoWriter:
    """Writes a video whole or not at all: a hidden file beside `path` is renamed at the end. Use it in a `with`
    statement.

    A PNG folder and ffv1 store frames exactly, gif in 256 colours; all others are 4:2:0 (prores: 4:2:2 in 10 bits),
    BT.709, and need even sizes: an odd width or height grows by one pixel that repeats the last column or row. Frames
    alone set the length: longer sound is cut, shorter sound ends early or in silence.

    Args:
        path: see `check_output`.
        fps: frames a second, written exactly.
        width: of the frames, in pixels.
        height: of the frames, in pixels.
        times: for a variable rate, when each frame is shown, in seconds, ascending, counted from the first. They stay
            exact except in containers with steps of their own: 1 ms in MKV and WebM, 10 ms in GIF. A PNG folder has
            none.
        sound: copied where the container takes it and its beginning is not cut; GIF and PNG are silent.
        codec: see `check_output`.
        crf: see `check_output`.
        title: metadata, where the container has a place for it.
        comment: metadata, where the container has a place for it.
        overwrite: whether what exists at `path` may be replaced.
        sign: signs the finished file in its place, before it gets its name. A PNG folder is not signed.

    Attributes:
        audio: whether the result has sound.

    Raises:
        InputError: as `check_output`, and for sound that cannot be read.
        CameMeanwhile: at the end, if something else was written to `path` in the meantime.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        fps: Fraction,
        width: int,
        height: int,
        times: Sequence[Fraction] | None = None,
        sound: Sound | None = None,
        codec: str | None = None,
        crf: int | None = None,
        title: str | None = None,
        comment: str | None = None,
        overwrite: Overwrite = False,
        sign: Callable[[Path], None] | None = None,
    ) -> None:
        self.path = Path(path)
        encoding = check_output(path, overwrite, codec, crf)
        silent = sound is None or not encoding.container.sound
        track = None if silent or sound is None else find_sound(sound)
        self.audio = track is not None
        self._fps = Fraction(fps)
        self._times = times
        self._shape = (height, width, 3)
        self._written = 0
        said = {"title": title, "comment": comment}
        text = {name: value for name, value in said.items() if value}
        self._out: EncodedFile | PictureFolder
        if encoding.name == "png":
            self._out = PictureFolder(
                self.path, {name.capitalize(): value for name, value in text.items()}, bool(overwrite)
            )
        else:
            shape = (height, width)
            self._out = EncodedFile(self.path, encoding, self._fps, shape, times, track, text, overwrite, sign)

    def write(self, frames: np.ndarray) -> None:
        """Adds frames.

        Args:
            frames: uint8 RGB (B, H, W, 3).

        Raises:
            MTAnimateError: writing failed, e.g. the disk is full.
            ValueError: another type or shape, or more frames than times.
        """
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != self._shape:
            raise ValueError(f"expected uint8 (B, *{self._shape}), got {frames.dtype} {frames.shape}")
        self._written += len(frames)
        if self._times is not None and self._written > len(self._times):
            raise ValueError(f"{self._written} frames for {len(self._times)} times")
        self._out.write(frames)

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                if not self._written:
                    raise MTAnimateError(f"{self.path} was not written: there was no frame to write")
                self._finish()
        finally:
            self._out.discard()

    def _finish(self) -> None:
        if isinstance(self._out, PictureFolder):
            self._out.finish()
        elif self._times is None:
            self._out.finish(self._written / self._fps)
        else:
            self._out.finish(self._times[self._written - 1] - self._times[0] + 1 / self._fps)


class EncodedFile:
    """A video in hidden files beside `path`, the last of which is renamed at the end.

    Args:
        path: of the result.
        encoding: codec, container and quality.
        fps: frames a second.
        shape: height and width of the frames, in pixels.
        times: when each frame is shown, in seconds from the first, ascending; None: at `fps`.
        sound: to add at the end, or None.
        metadata: of the container, by ffmpeg's keys.
        overwrite: whether what exists at `path` may be replaced.
        sign: signs the finished file in its place.
    """

    def __init__(
        self,
        path: Path,
        encoding: Encoding,
        fps: Fraction,
        shape: tuple[int, int],
        times: Sequence[Fraction] | None,
        sound: SoundTrack | None,
        metadata: dict[str, str],
        overwrite: Overwrite,
        sign: Callable[[Path], None] | None = None,
    ) -> None:
        self.path = path
        self._sign = sign
        self._encoding = encoding
        self._sound = sound
        self._overwrite = overwrite
        self._metadata = [part for name, value in metadata.items() for part in ("-metadata", f"{name}={value}")]
        self._padding = [(0, side % 2 if encoding.codec.even else 0) for side in shape]
        height, width = (side + more for side, (_, more) in zip(shape, self._padding, strict=True))
        self._pixels = height * width
        self._header = b""
        self._stamps: list[int] | None = None
        self._count = 0
        self._hidden: list[Path] = []
        if times is None:
            source = ["-f", "rawvideo", "-pixel_format", "rgb24", "-video_size", f"{width}x{height}"]
            source += ["-framerate", f"{fps.numerator}/{fps.denominator}", "-i", "pipe:0"]
        else:
            ticks = _ticks_per_second(times)
            self._stamps = _stamps(times, ticks)
            # IVF is the simplest container that gives every raw frame a time.
            self._header = struct.pack("<4sHH4sHHIII4x", b"DKIF", 0, 32, b"RGB\x18", width, height, ticks, 1, 0)
            source = ["-f", "ivf", "-c:v", "rawvideo", "-i", "pipe:0"]
            # Without a time base of its own, the encoder would round the times to a rate that ffmpeg guesses.
            source += ["-fps_mode", "passthrough", "-enc_time_base", f"1/{ticks}"]
        self._ffmpeg = FFmpeg([*source, *self._first_step()])

    def write(self, frames: np.ndarray) -> None:
        """Adds frames, uint8 RGB (B, H, W, 3).

        Raises:
            MTAnimateError: the encoder failed, e.g. the disk is full.
        """
        for frame in np.pad(frames, ((0, 0), *self._padding, (0, 0)), mode="edge"):
            pixels = frame.tobytes()
            if self._stamps is not None:
                self._pipe(self._header + struct.pack("<IQ", len(pixels), self._stamps[self._count]))
                self._header = b""
            self._pipe(pixels)
            self._count += 1

    def finish(self, length: Fraction) -> None:
        """Ends the encoding, adds `length` seconds of sound, and gives the file its name.

        Raises:
            CameMeanwhile: something exists there by now that may not be overwritten.
            MTAnimateError: encoding failed.
        """
        self._end()
        if self._encoding.name == "gif":
            self._reduce_colours()
        elif self._sound is not None:
            self._add_sound(self._sound, length)
        if self._sign is not None:
            self._sign(self._hidden[-1])
        try:
            give_name(self._hidden[-1], self.path, self._overwrite)
        except OSError as error:
            raise MTAnimateError(f"{self.path} could not be written: {error.strerror}") from error

    def discard(self) -> None:
        """Ends ffmpeg and removes the hidden files; a finished file stays."""
        self._ffmpeg.kill()
        for file in self._hidden:
            file.unlink(missing_ok=True)

    def _first_step(self) -> list[str]:
        if self._encoding.name == "gif":  # its colours are chosen after the last frame
            lossless = Encoding("ffv1", CODECS["ffv1"], ".mkv", None)
            return [*lossless.arguments(self._pixels), *lossless.container.format, self._new(".mkv")]
        return [*self._encoding.arguments(self._pixels), *self._metadata, *self._encoding.container.format, self._new()]

    def _reduce_colours(self) -> None:
        """Chooses 256 colours for the whole clip, then maps each frame: in one step ffmpeg would hold all frames in
        memory.
        """
        frames = ["-nostdin", "-i", local(self._hidden[-1])]
        palette = self._new(".png")
        self._step([*frames, "-vf", "palettegen", "-frames:v", "1", "-update", "1", "-f", "image2", palette])
        frames += ["-i", palette, "-lavfi", "paletteuse", "-fps_mode", "passthrough", *self._metadata]
        self._step([*frames, *self._encoding.container.format, self._new()])

    def _add_sound(self, sound: SoundTrack, length: Fraction) -> None:
        """A second step, since the sound must end with the frames, whose number is known only now.

        (-shortest would cut the picture where the sound is shorter.)
        """
        container = self._encoding.container
        arguments = ["-nostdin", "-i", local(self._hidden[-1]), *sound.inputs(container)]
        arguments += ["-map", "0:v:0", "-map", f"1:{sound.stream}", "-map_chapters", "-1", "-c:v", "copy"]
        arguments += [*sound.outputs(container, length), *self._metadata]
        self._step([*arguments, *container.format, self._new(), *sound.clock(length)])

    def _new(self, suffix: str | None = None) -> str:
        """Names one more hidden file, in ffmpeg's notation."""
        self._hidden.append(hidden_beside(self.path if suffix is None else self.path.with_suffix(suffix)))
        return local(self._hidden[-1])

    def _step(self, arguments: list[str]) -> None:
        self._ffmpeg = FFmpeg(arguments)
        self._end()

    def _pipe(self, data: bytes) -> None:
        assert self._ffmpeg.process.stdin is not None
        try:
            self._ffmpeg.process.stdin.write(data)
        except OSError as error:  # ffmpeg is gone
            raise self._failed() from error

    def _end(self) -> None:
        if self._ffmpeg.finish() != 0:
            raise self._failed()

    def _failed(self) -> MTAnimateError:
        self._ffmpeg.finish()
        if self._ffmpeg.said(["No space left on device"]):
            return MTAnimateError(f"{self.path}: the disk is full: free some space or choose another folder")
        return MTAnimateError(f"{self.path} could not be encoded: {self._ffmpeg.reason()}")


def _ticks_per_second(times: Sequence[Fraction]) -> int:
    exact = lcm(*{time.denominator for time in times})
    return exact if exact <= _FINEST else _FINEST


def _stamps(times: Sequence[Fraction], ticks: int) -> list[int]:
    """Times in ticks, each later than the one before: encoders do not take two frames at one time."""
    stamps: list[int] = []
    for time in times:
        stamp = round((time - times[0]) * ticks)
        stamps.append(max(stamp, stamps[-1] + 1) if stamps else stamp)
    return stamps
