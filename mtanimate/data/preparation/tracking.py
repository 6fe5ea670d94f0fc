"""One face followed through a raw video: the pieces of it that make clips, each with one fixed square."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np
from PIL import Image

from mtanimate.video import VideoReader
from mtanimate.video.face_framing import LOST_SECONDS, SAME_FACE, face_square, sample_step
from mtanimate.video.faces import Box, find_faces
from mtanimate.video.square import Square

LONGEST_SECONDS = 8
SHORTEST_FRAMES = 32
# Mean change of a small grey copy between two samples, of 255: below 30 while somebody talks and moves, 65 from
# one scene to another (medians 7 and 65 on talking-head clips; a piece split for nothing costs little).
SCENE_CUT = 36


@dataclass(frozen=True)
class Sample:
    """What was seen in one frame. faces: the largest first. cut: the whole picture changed since the last sample."""

    frame: int
    faces: list[Box]
    cut: bool = False


@dataclass(frozen=True)
class Piece:
    """Frames first ... end - 1, and the square that is cut out of all of them."""

    first: int
    end: int
    square: Square


@dataclass
class _Run:
    """A face on its way: where it was seen, by frame."""

    seen: dict[int, Box]
    end: int

    @property
    def last(self) -> Box:
        return self.seen[max(self.seen)]


def look(reader: VideoReader) -> Iterator[Sample]:
    """The faces in about five frames a second. Raises InputError for a damaged video, and without dlib."""
    step = sample_step(reader.fps)
    previous = None
    for index, batch in enumerate(reader.batches(1, step=step)):
        small = np.asarray(Image.fromarray(batch[0]).convert("L").resize((32, 32), Image.Resampling.BOX), np.float32)
        cut = previous is not None and float(np.abs(small - previous).mean()) > SCENE_CUT
        yield Sample(index * step, find_faces(batch[0]), cut)
        previous = small


def find_pieces(
    samples: Iterable[Sample], fps: Fraction, frame_count: int, width: int, height: int
) -> tuple[list[Piece], int]:
    """The pieces of a video in which one face, the largest, is seen; and how many more are too short.

    A piece ends where the face is lost or jumps, or the scene changes; a long one is cut into equal pieces.
    samples: in order. fps, frame_count, width, height: of the video, in pixels and frames.
    """
    pieces = []
    too_short = 0
    for run in _runs(samples, fps, frame_count):
        first = min(run.seen)
        length = run.end - first
        count = -(-length // round(LONGEST_SECONDS * fps)) if length else 1
        ends = [first + length * number // count for number in range(count + 1)]
        for start, end in pairwise(ends):
            if end - start < SHORTEST_FRAMES:
                too_short += 1
                continue
            boxes = [box for frame, box in run.seen.items() if start <= frame < end]
            pieces.append(Piece(start, end, face_square(boxes, width, height)))
    return pieces, too_short


def _runs(samples: Iterable[Sample], fps: Fraction, frame_count: int) -> Iterator[_Run]:
    step = sample_step(fps)
    run: _Run | None = None
    for sample in samples:
        if run and (sample.cut or sample.frame - run.end + 1 - step > LOST_SECONDS * fps):
            yield run
            run = None
        if not sample.faces:
            continue
        face = max(sample.faces, key=run.last.likeness) if run else sample.faces[0]
        if run and run.last.likeness(face) < SAME_FACE:
            yield run
            run, face = None, sample.faces[0]
        if run is None:
            run = _Run({}, 0)
        run.seen[sample.frame] = face
        # Where a cut lies between two samples is not known: a run ends with the frame it was last seen in.
        run.end = sample.frame + 1
    if run:
        if run.end + step > frame_count:  # seen in the last sample: it goes on to the end
            run.end = frame_count
        yield run
