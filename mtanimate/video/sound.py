"""Sound from another file, in step with frames whose position in that file is known."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from mtanimate.reading import MAX_PIXELS, check_readable
from mtanimate.video.decoding import audio_stream, open_container, video_stream
from mtanimate.video.encoding import Container
from mtanimate.video.ffmpeg import ONLY_FILES, local
from mtanimate.video.probe import probe

# Sound that begins up to this long before the frames is copied as a whole: containers can tell players to skip the
# beginning, which is how they store an encoder's lead-in.
_LEAD_IN = Fraction(1, 20)


@dataclass(frozen=True)
class Sound:
    """The default sound track of a file.

    Attributes:
        path: of the file.
        start: seconds after the file's first frame; without pictures, after its beginning.
        max_pixels: the most pixels of the file's frames.
    """

    path: Path
    start: Fraction = Fraction(0)
    max_pixels: int = MAX_PIXELS  # the most of a frame of the file


@dataclass(frozen=True)
class SoundTrack:
    """A sound stream that was found.

    Attributes:
        path: of the file.
        stream: its number in the file.
        codec: ffmpeg's name.
        begin: where the result begins, in seconds on the file's clock.
        lead: seconds of sound before that.
        pictures: the number of the video stream, on which the file's clock depends; None without one.
    """

    path: Path
    stream: int
    codec: str
    begin: Fraction
    lead: Fraction
    pictures: int | None

    def is_copied(self, container: Container) -> bool:
        """Whether the sound is copied into this container without encoding it anew."""
        return self.lead < _LEAD_IN and self.codec in container.copied

    def inputs(self, container: Container) -> list[str]:
        """ffmpeg's input options."""
        shift = ["-itsoffset", _seconds(-self.begin)] if self.is_copied(container) else []
        return [*shift, *ONLY_FILES, "-i", local(self.path)]

    def outputs(self, container: Container, length: Fraction) -> list[str]:
        """ffmpeg's output options for `length` seconds of this sound."""
        if self.is_copied(container):
            return ["-c:a", "copy", "-t", _seconds(length)]
        begin = _seconds(self.begin)
        # Cut to the sample; then silence where the file has none: before its sound begins (first_pts), and where
        # sound is missing (async; jitter below 8 ms is no gap). apad: a stream with no sound at all would be left out.
        steps = f"atrim=start={begin}:end={_seconds(self.begin + length)},asetpts=PTS-{begin}/TB"
        steps += ",aresample=async=1:first_pts=0:min_comp=0.0001:min_hard_comp=0.008"
        steps += f",apad=whole_dur={_seconds(length)}"
        if "libopus" in container.sound:
            steps += ",aformat=channel_layouts=mono|stereo|5.1|7.1"  # it supports no other channel layouts
        return ["-af", steps, *container.sound]

    def clock(self, length: Fraction) -> list[str]:
        """A second output, which is discarded: without it ffmpeg would leave the pictures out of the file's clock."""
        if self.pictures is None:
            return []
        return ["-map", f"1:{self.pictures}", "-c", "copy", "-t", _seconds(self.begin + length), "-f", "null", "-"]


def find_sound(sound: Sound) -> SoundTrack | None:
    """Finds a file's default sound track.

    Returns:
        The track; None for a silent file.

    Raises:
        InputError: the file cannot be read.
    """
    path, start = Path(sound.path), Fraction(sound.start)
    check_readable(path, "file with sound")
    with open_container(path) as container:
        track, shown = audio_stream(container), video_stream(container)
        if track is None:
            return None
        stream, codec = track.index, track.codec_context.codec.canonical_name
        pictures = None if shown is None else shown.index
    if pictures is None:
        return SoundTrack(path, stream, codec, begin=start, lead=start, pictures=None)
    video = probe(path, sound.max_pixels)
    if video.sound is None:
        return None
    begin = video.start + start
    return SoundTrack(path, stream, codec, begin, lead=begin - video.sound, pictures=pictures)


def _seconds(time: Fraction) -> str:
    return f"{float(time):.6f}"
