"""Pictures of the results: one strip per clip and, on request, whole videos and single frames."""

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
from mtanimate.video.decoding import open_container
from mtanimate.video.png_folder import is_marked

MARK = (
    "mtanimate eval"  # is in every picture and video, so that only our own are replaced when a clip is measured again
)


def is_ours(file: Path) -> bool:
    """Whether an evaluation made this picture or video."""
    if file.suffix != ".mp4":
        return is_marked(file, MARK)
    try:
        with open_container(file) as container:
            return bool(container.metadata.get("comment") == MARK)
    except InputError:
        return False


@dataclass(frozen=True)
class SampleFolders:
    """Where the samples are written.

    Attributes:
        strips: For NAME.png: source, truth and generated frame side by side, at the frame that differs most from the
            first.
        videos: For NAME.mp4: truth beside generated; None for no videos.
        frames: For truth/NAME/0000000.png and generated/NAME/0000000.png; None for no frames.
    """

    strips: Path
    videos: Path | None = None
    frames: Path | None = None

    def check(self, names: Iterable[str]) -> None:
        """Raises InputError where a sample of these clips would replace a file that `eval` did not make."""
        for name in names:
            refuse_foreign("--out", [self.strips / f"{name}.png"], is_ours)
            if self.videos:
                refuse_foreign("--videos", [self.videos / f"{name}.mp4"], is_ours)
            if self.frames:
                folders = (self.frames / side / name for side in ("truth", "generated"))
                refuse_foreign("--frames", (file for folder in folders for file in folder.glob("*.png")), is_ours)

    def of_clip(self, name: str, fps: Fraction) -> "ClipSamples":
        """The samples of one clip. fps: frames per second of its video."""
        return ClipSamples(self, name, fps)


class ClipSamples:
    """The samples of one clip, to be used in a `with` block; they are complete when it ends.

    Raises MTAnimateError where something cannot be written.
    """

    def __init__(self, folders: SampleFolders, name: str, fps: Fraction) -> None:
        self._folders = folders
        self._name = name
        self._fps = fps
        self._strip: np.ndarray | None = None
        self._first: np.ndarray | None = None
        self._farthest = -1.0
        self._video: VideoWriter | None = None
        self._stack = ExitStack()

    def add(self, source: np.ndarray, truth: np.ndarray, generated: np.ndarray, numbers: range) -> None:
        """Add a batch of frames.

        Args:
            source: The source, uint8 (R, R, 3).
            truth: True frames, uint8 (B, R, R, 3).
            generated: What was generated in their place, uint8 (B, R, R, 3).
            numbers: The frames' numbers in the clip.
        """
        if self._first is None:
            self._first = truth[0]
        distances = np.abs(truth.astype(np.int16) - self._first).mean(axis=(1, 2, 3))
        farthest = int(distances.argmax())
        if distances[farthest] > self._farthest:
            self._farthest = float(distances[farthest])
            self._strip = np.concatenate([source, truth[farthest], generated[farthest]], axis=1)
        if self._folders.videos:
            self._write_video(self._folders.videos, np.concatenate([truth, generated], axis=2))
        if self._folders.frames:
            for side, pictures in (("truth", truth), ("generated", generated)):
                for number, picture in zip(numbers, pictures, strict=True):
                    self._write_image(self._folders.frames / side / self._name / f"{number:07d}.png", picture)

    def _write_video(self, folder: Path, frames: np.ndarray) -> None:
        if self._video is None:
            height, width = frames.shape[1:3]
            path = _with_folder(folder / f"{self._name}.mp4")
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
            self._write_image(self._folders.strips / f"{self._name}.png", self._strip)

    def _write_image(self, path: Path, picture: np.ndarray) -> None:
        write_image(_with_folder(path), picture, {"Software": MARK}, is_ours)


def _with_folder(path: Path) -> Path:
    """The same path, whose folder now exists."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
