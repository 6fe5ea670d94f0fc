"""Raw videos: a face is followed through one (`find_pieces`), and clips are cut out of it (`Cutter`)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from threading import Event, Lock

import numpy as np
from PIL import Image

from mtanimate.data.preparation_journal import Cut
from mtanimate.errors import InputError, MTAnimateError
from mtanimate.faces.detection import LOST_SECONDS, SAME_FACE, Box, Square, face_square, find_faces, sample_step
from mtanimate.files import give_name, hidden_beside
from mtanimate.video import VideoReader
from mtanimate.video.encoding import TAGGED_BT709, TAGS, TO_BT709
from mtanimate.video.ffmpeg import FFmpeg, local
from mtanimate.video.probe import probe

LONGEST_SECONDS = 8
SHORTEST_FRAMES = 32
# Mean change of a small grey copy between two samples, of 255: below 30 while somebody talks and moves, 65 from
# one scene to another (medians 7 and 65 on talking-head clips; a piece split for nothing costs little).
SCENE_CUT = 36


@dataclass(frozen=True)
class FaceSample:
    """The faces in one frame, largest first. cut: Whether the whole picture changed since the last sample."""

    frame: int
    faces: list[Box]
    cut: bool = False


@dataclass(frozen=True)
class Piece:
    """Frames first to end - 1 of a video, and the square to cut out of all of them."""

    first: int
    end: int
    square: Square


@dataclass
class _FaceTrack:
    """A face that is followed: where it was seen, by frame."""

    seen: dict[int, Box]
    end: int

    @property
    def last(self) -> Box:
        return self.seen[max(self.seen)]


def sample_faces(reader: VideoReader) -> Iterator[FaceSample]:
    """The faces in about five frames a second. Raises InputError for a damaged video, and without dlib."""
    step = sample_step(reader.fps)
    previous = None
    for index, batch in enumerate(reader.batches(1, step=step)):
        small = np.asarray(Image.fromarray(batch[0]).convert("L").resize((32, 32), Image.Resampling.BOX), np.float32)
        cut = previous is not None and float(np.abs(small - previous).mean()) > SCENE_CUT
        yield FaceSample(index * step, find_faces(batch[0]), cut)
        previous = small


def find_pieces(
    samples: Iterable[FaceSample], fps: Fraction, frame_count: int, width: int, height: int
) -> tuple[list[Piece], int]:
    """The pieces of a video in which one face, the largest, is seen; and how many more are too short.

    A piece ends where the face is lost or jumps, or the scene changes; a long one is cut into equal pieces.
    samples: in order. fps, frame_count, width, height: of the video, in pixels and frames.
    """
    pieces = []
    too_short = 0
    for track in _tracks(samples, fps, frame_count):
        first = min(track.seen)
        length = track.end - first
        count = -(-length // round(LONGEST_SECONDS * fps)) if length else 1
        ends = [first + length * number // count for number in range(count + 1)]
        for start, end in pairwise(ends):
            if end - start < SHORTEST_FRAMES:
                too_short += 1
                continue
            boxes = [box for frame, box in track.seen.items() if start <= frame < end]
            pieces.append(Piece(start, end, face_square(boxes, width, height)))
    return pieces, too_short


def _tracks(samples: Iterable[FaceSample], fps: Fraction, frame_count: int) -> Iterator[_FaceTrack]:
    step = sample_step(fps)
    track: _FaceTrack | None = None
    for sample in samples:
        if track and (sample.cut or sample.frame - track.end + 1 - step > LOST_SECONDS * fps):
            yield track
            track = None
        if not sample.faces:
            continue
        face = max(sample.faces, key=track.last.likeness) if track else sample.faces[0]
        if track and track.last.likeness(face) < SAME_FACE:
            yield track
            track, face = None, sample.faces[0]
        if track is None:
            track = _FaceTrack({}, 0)
        track.seen[sample.frame] = face
        # Where a cut lies between two samples is not known: a track ends with the frame it was last seen in.
        track.end = sample.frame + 1
    if track:
        if track.end + step > frame_count:  # seen in the last sample: it goes on to the end
            track.end = frame_count
        yield track


_FRAMES_AT_A_TIME = 4

# Each clip's encoder takes 12 MB, from the start of a pass to its end.
_CLIPS_A_PASS = 32


class Stopped(Exception):
    """The work was cancelled."""


class Cutter:
    """Cuts clips, in any number of threads, until it is stopped."""

    def __init__(self) -> None:
        self._stopped = Event()
        self._running: set[FFmpeg] = set()
        self._lock = Lock()

    def stop(self) -> None:
        """Ends every ffmpeg at once; whoever waits for one gets Stopped. Nothing unfinished stays."""
        with self._lock:
            self._stopped.set()
            for ffmpeg in self._running:
                ffmpeg.process.kill()

    def check(self) -> None:
        """Raises Stopped once it is stopped."""
        if self._stopped.is_set():
            raise Stopped

    def cut(self, video: Path, cuts: Sequence[Cut], out: Path, done: Callable[[Cut], None]) -> None:
        """Makes the clips `out`/`cut.file` of a raw video; calls done(cut) as soon as one has its name.

        Raises InputError for a damaged video, MTAnimateError where a clip cannot be written, Stopped.
        """
        in_order = sorted(cuts, key=lambda cut: cut.end)
        for start in range(0, len(in_order), _CLIPS_A_PASS):
            self._pass(video, in_order[start : start + _CLIPS_A_PASS], out, done)

    def _pass(self, video: Path, cuts: Sequence[Cut], out: Path, done: Callable[[Cut], None]) -> None:
        # .part: no data set takes an unfinished clip for a video
        temporary = {cut: hidden_beside((out / cut.file).with_suffix(".part")) for cut in cuts}
        try:
            self._run(video, cuts, [temporary[cut] for cut in cuts])
            for cut, file in temporary.items():
                if probe(file).frame_count != cut.frames:
                    raise InputError(f"{video} ends before frame {cut.end}: copy or download the video again")
                give_name(file, out / cut.file, overwrite=False)
                done(cut)
        except OSError as error:
            raise MTAnimateError(
                f"{out}: a clip could not be written ({error.strerror}): choose another --out"
            ) from error
        finally:
            for file in temporary.values():
                with suppress(OSError):
                    file.unlink(missing_ok=True)

    def _run(self, video: Path, cuts: Sequence[Cut], files: Sequence[Path]) -> None:
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
        reader = VideoReader(video)
        numbers = range(min(cut.first for cut in cuts), max(cut.end for cut in cuts))
        if numbers.stop > reader.frame_count:
            raise InputError(f"{video} ends before frame {numbers.stop}: copy or download the video again")
        with self._lock:
            self.check()
            ffmpeg = FFmpeg(_arguments(reader, numbers, cuts, files))
            self._running.add(ffmpeg)
        try:
            self._feed(ffmpeg, reader, numbers)
            status = ffmpeg.finish()
        finally:
            ffmpeg.kill()
            with self._lock:
                self._running.discard(ffmpeg)
        self.check()
        if ffmpeg.said(["No space left on device"]):
            raise MTAnimateError(f"{files[0].parent}: the disk is full: free some space or choose another --out")
        if status != 0:
            raise MTAnimateError(f"{files[0].parent}: a clip could not be written ({ffmpeg.reason()})")

    def _feed(self, ffmpeg: FFmpeg, reader: VideoReader, numbers: range) -> None:
        assert ffmpeg.process.stdin is not None
        for batch in reader.batches(_FRAMES_AT_A_TIME, numbers.start, numbers.stop):
            self.check()
            try:
                ffmpeg.process.stdin.write(batch.data)
            except OSError:  # ffmpeg is gone: its exit status says why
                return


def _arguments(reader: VideoReader, numbers: range, cuts: Sequence[Cut], files: Sequence[Path]) -> list[str]:
    """ffmpeg's: the frames of these numbers in a pipe, a copy of them for each clip, and as many encoders."""
    chain = f"[0:v]split={len(cuts)}" + "".join(f"[raw{number}]" for number in range(len(cuts)))
    arguments = ["-y", "-f", "rawvideo", "-pixel_format", "rgb24", "-video_size", f"{reader.width}x{reader.height}"]
    arguments += ["-framerate", str(cuts[0].fps), "-i", "pipe:0", "-filter_complex"]
    outputs: list[str] = []
    for number, (cut, file) in enumerate(zip(cuts, files, strict=True)):
        chain += f";[raw{number}]{_filters(cut, numbers.start)}[clip{number}]"
        outputs += ["-map", f"[clip{number}]", "-fps_mode", "passthrough", "-pix_fmt", "yuv420p", *TAGS]
        # A key frame every 50 frames: single frames are picked from anywhere in a clip.
        outputs += ["-c:v", "libx264", "-crf", "18", "-preset", "fast", "-g", "50", "-rc-lookahead", "10"]
        outputs += ["-threads", "1", "-movflags", "+faststart", "-f", "mp4", local(file)]
    return [*arguments, chain, *outputs]


def _filters(cut: Cut, before: int) -> str:
    """before: how many frames of the video are not in the pipe."""
    square = cut.square
    return ",".join(
        [
            f"trim=start_frame={cut.first - before}:end_frame={cut.end - before}",
            # Times as exact as the rate: the raw file's may be rounded to milliseconds, or vary.
            f"settb={1 / cut.fps},setpts=N",
            f"crop={square.side}:{square.side}:{square.x}:{square.y}:exact=1",
            f"scale={cut.size}:{cut.size}:flags=lanczos+accurate_rnd+full_chroma_int:{TO_BT709},setsar=1",
            TAGGED_BT709,
        ]
    )
