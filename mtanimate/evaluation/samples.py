"""What an evaluation keeps to look at: a strip a clip, and on request whole videos and single frames."""

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import numpy as np

from mtanimate.errors import InputError
from mtanimate.outputs import refuse_foreign
from mtanimate.video import VideoWriter, write_image
from mtanimate.video.decoding import opened
from mtanimate.video.png_folder import is_marked

MARK = "mtanimate eval"  # in each picture and video: what has it may be replaced when a clip is measured once more


def is_ours(file: Path) -> bool:
    """Whether an evaluation made this picture or video."""
    if file.suffix != ".mp4":
        return is_marked(file, MARK)
    try:
        with opened(file) as container:
            return bool(container.metadata.get("comment") == MARK)
    except InputError:
        return False


@dataclass(frozen=True)
class SampleFolders:
    """Where to: strips NAME.png (source, truth, generated) of the frame that is farthest from the first; videos
    NAME.mp4 (truth beside generated); frames truth/NAME/0000000.png and generated/NAME/0000000.png."""

    strips: Path
    videos: Path | None = None
    frames: Path | None = None

    def check(self, names: Iterable[str]) -> None:
        """Raises InputError where a file of ours would take another's place."""
        for name in names:
            refuse_foreign("--out", [self.strips / f"{name}.png"], is_ours)
            if self.videos:
                refuse_foreign("--videos", [self.videos / f"{name}.mp4"], is_ours)
            if self.frames:
                folders = (self.frames / side / name for side in ("truth", "generated"))
                refuse_foreign("--frames", (file for folder in folders for file in folder.glob("*.png")), is_ours)

    def of(self, name: str, fps: Fraction) -> "ClipSamples":
        return ClipSamples(self, name, fps)


class ClipSamples:
    """The pictures of one clip. Use it in a `with`; raises MTAnimateError where something cannot be written."""

    def __init__(self, samples: SampleFolders, name: str, fps: Fraction) -> None:
        self._keeping = samples
        self._name = name
        self._fps = fps
        self._strip: np.ndarray | None = None
        self._first: np.ndarray | None = None
        self._farthest = -1.0
        self._video: VideoWriter | None = None
        self._stack = ExitStack()

    def add(self, source: np.ndarray, truth: np.ndarray, generated: np.ndarray, numbers: range) -> None:
        """source: uint8 (R, R, 3); truth, generated: uint8 (B, R, R, 3), of the frames of these numbers."""
        if self._first is None:
            self._first = truth[0]
        distances = np.abs(truth.astype(np.int16) - self._first).mean(axis=(1, 2, 3))
        farthest = int(distances.argmax())
        if distances[farthest] > self._farthest:
            self._farthest = float(distances[farthest])
            self._strip = np.concatenate([source, truth[farthest], generated[farthest]], axis=1)
        if self._keeping.videos:
            self._write_video(self._keeping.videos, np.concatenate([truth, generated], axis=2))
        if self._keeping.frames:
            for side, pictures in (("truth", truth), ("generated", generated)):
                for number, picture in zip(numbers, pictures, strict=True):
                    self._write_image(self._keeping.frames / side / self._name / f"{number:07d}.png", picture)

    def _write_video(self, folder: Path, frames: np.ndarray) -> None:
        if self._video is None:
            height, width = frames.shape[1:3]
            path = _beside(folder / f"{self._name}.mp4")
            self._video = self._stack.enter_context(
                VideoWriter(path, fps=self._fps, width=width, height=height, comment=MARK, overwrite=is_ours)
            )
        self._video.write(frames)

    def __enter__(self) -> "ClipSamples":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
        if kind is None and self._strip is not None:
            self._write_image(self._keeping.strips / f"{self._name}.png", self._strip)

    def _write_image(self, path: Path, picture: np.ndarray) -> None:
        write_image(_beside(path), picture, {"Software": MARK}, is_ours)


def _beside(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
