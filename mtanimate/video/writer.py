"""Videos out: uint8 RGB frames -> H.264, with the sound of another file."""

import os
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import numpy as np

from mtanimate.errors import InputError, MTAnimateError
from mtanimate.files import hidden_beside
from mtanimate.video.ffmpeg import ONLY_FILES, FFmpeg, audio_codec, describe, local
from mtanimate.video.files import check_folder, check_readable

# The sound that each container takes as it is, and players play. Any other becomes AAC.
_MP4_SOUND = {"aac", "ac3", "alac", "eac3", "flac", "mp3", "opus"}
_MOV_SOUND = {"aac", "ac3", "alac", "eac3", "mp3", "pcm_s16be", "pcm_s16le", "pcm_s24be", "pcm_s24le"}
_MKV_SOUND = {"aac", "ac3", "dts", "eac3", "flac", "mp2", "mp3", "opus", "pcm_s16le", "pcm_s24le", "vorbis"}
_COPIED_SOUND = {".mp4": _MP4_SOUND, ".m4v": _MP4_SOUND, ".mov": _MOV_SOUND, ".mkv": _MKV_SOUND}
_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}


def check_output(path: str | Path, overwrite: bool) -> None:
    """Says before any work whether a video can be written at `path`.

    Raises InputError for an unknown extension, a missing or read-only folder, a folder in the file's place,
    and for an existing file unless `overwrite`.
    """
    path = Path(path)
    if path.suffix.lower() not in _FORMATS:
        raise InputError(f"{path}: a video's name must end in one of {', '.join(_FORMATS)}")
    if path.is_dir():
        raise InputError(f"{path} is a folder: give a file name")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists already: choose another name or allow to overwrite it")
    check_folder(path)


class VideoWriter:
    """Writes a video whole or not at all: a hidden file beside `path` takes its name when all is well.

    The picture is H.264 (4:2:0, BT.709). It needs even sizes: an odd width or height grows by one pixel that
    repeats the last column or row. The frames alone set the length: longer sound is cut, shorter ends early.

    fps: frames a second, written exactly. width, height: of the frames, in pixels.
    audio_from: a file whose first sound stream is copied, or turned into AAC where the container needs that.
    audio: whether there is such a stream, so that the result has sound.
    Raises InputError as `check_output`, and for an unreadable audio_from. Use it in a `with` statement.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        fps: Fraction,
        width: int,
        height: int,
        audio_from: str | Path | None = None,
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path)
        check_output(self.path, overwrite)
        self._sound = Path(audio_from) if audio_from is not None else None
        codec = None
        if self._sound is not None:
            check_readable(self._sound, "file with sound")
            codec = audio_codec(describe(self._sound))
        self.audio = codec is not None
        suffix = self.path.suffix.lower()
        self._sound_codec = "copy" if codec in _COPIED_SOUND[suffix] else "aac"
        self._format = ["-movflags", "+faststart", "-f", _FORMATS[suffix]]
        self._fps = Fraction(fps)
        self._shape = (height, width, 3)
        self._written = 0
        self._silent = hidden_beside(self.path)
        self._whole = hidden_beside(self.path)
        self._ffmpeg = FFmpeg(self._encoding())

    def write(self, frames: np.ndarray) -> None:
        """Adds frames: uint8 RGB (B, H, W, 3). Raises MTAnimateError when the encoder fails (a full disk)."""
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != self._shape:
            raise ValueError(f"expected uint8 (B, *{self._shape}), got {frames.dtype} {frames.shape}")
        height, width, _ = self._shape
        even = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        assert self._ffmpeg.process.stdin is not None
        try:
            self._ffmpeg.process.stdin.write(even.tobytes())
        except OSError as error:  # ffmpeg is gone
            raise self._failed(self._ffmpeg) from error
        self._written += len(frames)

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._ffmpeg.kill()
            self._silent.unlink(missing_ok=True)
            self._whole.unlink(missing_ok=True)

    def _finish(self) -> None:
        """Ends the encoding, adds the sound, and gives the file its name."""
        if self._ffmpeg.finish() != 0:
            raise self._failed(self._ffmpeg)
        if not self._written:
            raise MTAnimateError(f"{self.path} was not written: there was no frame to write")
        done = self._silent
        if self.audio:
            # A second step, because the sound must end with the frames and only now is their number known
            # (-shortest would cut the picture where the sound is shorter).
            self._ffmpeg = FFmpeg(self._joining())
            if self._ffmpeg.finish() != 0:
                raise self._failed(self._ffmpeg)
            done = self._whole
        try:
            os.replace(done, self.path)
        except OSError as error:
            raise MTAnimateError(f"{self.path} could not be written: {error.strerror}") from error

    def _encoding(self) -> list[str]:
        height, width = (size + size % 2 for size in self._shape[:2])
        arguments = ["-f", "rawvideo", "-pixel_format", "rgb24", "-video_size", f"{width}x{height}"]
        arguments += ["-framerate", f"{self._fps.numerator}/{self._fps.denominator}", "-i", "pipe:0"]
        # The conversion and the four tags must agree, or red and green shift in the player.
        arguments += ["-vf", "scale=out_color_matrix=bt709:out_range=tv:flags=accurate_rnd+full_chroma_int"]
        arguments += ["-pix_fmt", "yuv420p", "-colorspace", "bt709", "-color_primaries", "bt709"]
        arguments += ["-color_trc", "bt709", "-color_range", "tv"]
        arguments += ["-c:v", "libx264", "-crf", "18", "-preset", "fast"]
        return [*arguments, *self._format, local(self._silent)]

    def _joining(self) -> list[str]:
        assert self._sound is not None
        length = Fraction(self._written) / self._fps
        arguments = ["-nostdin", "-i", local(self._silent)]
        arguments += ["-t", f"{float(length):.6f}", *ONLY_FILES, "-i", local(self._sound)]
        arguments += ["-map", "0:v:0", "-map", "1:a:0", "-c:v", "copy", "-c:a", self._sound_codec]
        return [*arguments, *self._format, local(self._whole)]

    def _failed(self, ffmpeg: FFmpeg) -> MTAnimateError:
        ffmpeg.finish()
        if ffmpeg.said(["No space left on device"]):
            return MTAnimateError(f"{self.path}: the disk is full: free some space or choose another folder")
        return MTAnimateError(f"{self.path} could not be encoded: {ffmpeg.reason()}")
