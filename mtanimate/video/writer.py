"""Videos out: uint8 RGB frames -> a video file with the sound of another, or a folder of PNG."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import numpy as np

from mtanimate.errors import MTAnimateError
from mtanimate.files import Overwrite
from mtanimate.video.encoded import EncodedFile
from mtanimate.video.output import check_output
from mtanimate.video.sequence import PictureFolder
from mtanimate.video.sound import Sound, find_sound


class VideoWriter:
    """Writes a video whole or not at all: something hidden beside `path` takes its name when all is well.

    The frames are kept exactly in a PNG folder and by ffv1, in 256 colours by gif; else the picture is 4:2:0 (prores:
    4:2:2 in 10 bits), BT.709, and needs even sizes: an odd width or height grows by one pixel that repeats the last
    column or row. The frames alone set the length: longer sound is cut, shorter ends early or in silence.

    path, codec, crf: see `check_output`. fps: frames a second, written exactly. width, height: of the frames, pixels.
    times: for a rate that varies, when each frame is shown, in seconds, ascending; counted from the first. They stay
    exact, but for containers with steps of their own: 1 ms in MKV and WebM, 10 ms in GIF. A PNG folder has no times.
    sound: copied where the container takes it and nothing is cut off its beginning; GIF and PNG are silent.
    title, comment: written where the container has a place for them; in GIF there is none.
    audio: whether the result has sound.
    Raises InputError as `check_output`, and for an unreadable file of sound; CameMeanwhile at the end, where others
    have written there since. Use it in a `with` statement.
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
            self._out = EncodedFile(self.path, encoding, self._fps, (height, width), times, track, text, overwrite)

    def write(self, frames: np.ndarray) -> None:
        """Adds frames: uint8 RGB (B, H, W, 3).

        Raises MTAnimateError when they cannot be written (a full disk), ValueError for more frames than times.
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
