"""Codecs and containers of the results: which there are, what fits, and ffmpeg's options for them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mtanimate.errors import InputError
from mtanimate.files import Overwrite, exists_already, may_replace, taken
from mtanimate.outputs import check_folder, check_new_file
from mtanimate.video.ffmpeg import encoders
from mtanimate.video.png_folder import is_our_sequence

# The four colour tags must match the pixels, or players shift red and green. Some encoders take them from the frames
# (setparams), others from their options.
TO_BT709 = "out_color_matrix=bt709:out_range=tv"  # of the filter `scale`
TAGGED_BT709 = "setparams=color_primaries=bt709:color_trc=bt709:colorspace=bt709:range=tv"
TAGS = ("-color_primaries", "bt709", "-color_trc", "bt709", "-colorspace", "bt709", "-color_range", "tv")
_VIDEO = (".mp4", ".m4v", ".mov", ".mkv")
_AAC = ("-c:a", "aac", "-b:a", "192k")
_FIRST = ("-movflags", "+faststart")  # the index comes first, so that it plays while it loads


@dataclass(frozen=True)
class Codec:
    """A video codec.

    Attributes:
        encoders: ffmpeg's names, the preferred first, with their options.
        containers: file extensions that can hold it; "" is a folder of pictures.
        pixels: ffmpeg's pixel format.
        crf: the default quality, smaller is better; None where the codec has no such scale.
        worst: the largest crf.
        large: the first encoder's options for large frames, where they differ.
    """

    encoders: Mapping[str, tuple[str, ...]]
    containers: tuple[str, ...]
    pixels: str
    crf: int | None = None
    worst: int = 0
    large: tuple[str, ...] = ()

    @property
    def encoder(self) -> str | None:
        """The first of the encoders that this ffmpeg has, or None."""
        return next((name for name in self.encoders if name in encoders()), None)

    @property
    def even(self) -> bool:
        """Whether width and height must be even, because pixels share colours in pairs."""
        return self.pixels.startswith("yuv")


@dataclass(frozen=True)
class Container:
    """A container format.

    Attributes:
        codec: the default codec.
        format: ffmpeg's options.
        copied: audio codecs that it can hold and players play; other sound is encoded.
        sound: ffmpeg's options to encode sound; empty where the container is silent.
    """

    codec: str
    format: tuple[str, ...]
    copied: frozenset[str] = frozenset()
    sound: tuple[str, ...] = ()


@dataclass(frozen=True)
class Encoding:
    """A codec in a container that can hold it, with the quality.

    Attributes:
        name: of the codec, as users write it.
        codec: the codec.
        suffix: the file's extension, "" for a folder of pictures.
        crf: the quality, None where the codec has no such scale.
    """

    name: str
    codec: Codec
    suffix: str
    crf: int | None

    @property
    def container(self) -> Container:
        return CONTAINERS[self.suffix]

    def arguments(self, pixels: int) -> list[str]:
        """ffmpeg's output options for the picture. pixels: of a frame."""
        encoder = self.codec.encoder
        assert encoder is not None
        options = self.codec.encoders[encoder]
        if pixels > _LARGE and self.codec.large and encoder == next(iter(self.codec.encoders)):
            options = self.codec.large
        arguments = ["-pix_fmt", self.codec.pixels, "-c:v", encoder, *options]
        if self.codec.even:
            arguments += ["-vf", f"scale={TO_BT709}:flags=accurate_rnd+full_chroma_int,{TAGGED_BT709}", *TAGS]
        if self.crf is not None:
            arguments += ["-crf", str(self.crf)]
        if self.name == "h265" and self.container.format[-1] != "matroska":
            arguments += ["-tag:v", "hvc1"]  # the only tag that Apple's players accept
        return arguments


def choose_encoding(path: str | Path, codec: str | None = None, crf: int | None = None) -> Encoding:
    """Chooses codec, container and quality.

    A folder of pictures is asked for by a path that ends in a slash, or by `png` without an extension.

    Args:
        path: of the result; its extension names the container.
        codec: None: the container's default.
        crf: None: the codec's default.

    Raises:
        InputError: an unknown extension or codec, a codec that does not fit the container or that this ffmpeg lacks, or
            a crf that the codec does not have.
    """
    if codec is not None and codec not in CODECS:
        raise InputError(f"unknown codec '{codec}': choose one of {', '.join(CODECS)}")
    suffix = Path(path).suffix.lower()
    if ends_in_slash(path) or (codec == "png" and not suffix):
        suffix = ""
    elif codec == "png":
        raise InputError(f"{path}: png makes a folder of pictures: leave out '{suffix}', or end the name in a slash")
    elif suffix not in CONTAINERS or not suffix:
        raise InputError(f"{path}: a video's name must end in one of {', '.join(filter(None, CONTAINERS))}")
    name = codec or CONTAINERS[suffix].codec
    chosen = CODECS[name]
    if suffix not in chosen.containers:
        fitting = ", ".join(other for other in CODECS if suffix in CODECS[other].containers)
        raise InputError(f"{path}: {suffix or 'a folder'} cannot hold {name}: it holds {fitting}")
    if chosen.encoders and chosen.encoder is None:
        lacking = " or ".join(chosen.encoders)
        raise InputError(f"{path}: this ffmpeg has no {lacking} to make {name}: choose another codec")
    if crf is not None and chosen.crf is None:
        raise InputError(f"{path}: {name} has no crf {crf}: leave it out")
    if crf is not None and not 0 <= crf <= chosen.worst:
        raise InputError(f"{path}: crf {crf}: {name} takes 0 (best) to {chosen.worst}")
    return Encoding(name, chosen, suffix, chosen.crf if crf is None else crf)


def ends_in_slash(path: str | Path) -> bool:
    """Whether a path was written with a slash at its end, for a folder."""
    return str(path).endswith(("/", os.sep))


def check_output(path: str | Path, overwrite: Overwrite, codec: str | None = None, crf: int | None = None) -> Encoding:
    """Checks before any work whether a video can be written, and how.

    Args:
        path: with the container's extension, or with a slash at its end for a folder of PNG files (as text: a Path
            keeps no slash; `codec="png"` without an extension means the same).
        overwrite: whether what exists may be replaced; of folders, only those that hold nothing but pictures written
            here.
        codec: None: the container's default.
        crf: None: the codec's default.

    Returns:
        The encoding.

    Raises:
        InputError: as `choose_encoding`; for a missing or read-only folder, a folder in the file's place, and what
            exists and may not be replaced.
    """
    encoding = choose_encoding(path, codec, crf)
    path = Path(path)
    if encoding.name == "png":
        check_folder(path)  # first, since it restores what a killed run had set aside
        _check_sequence(path, overwrite)
    else:
        check_new_file(path, overwrite)
    return encoding


_LARGE = 300_000  # pixels of a frame: 548 x 548
CODECS = {
    # Of large frames, `veryfast` takes half the time of `fast`, for files that are no larger.
    "h264": Codec({"libx264": ("-preset", "fast")}, _VIDEO, "yuv420p", crf=18, worst=51, large=("-preset", "veryfast")),
    "h265": Codec(
        {"libx265": ("-preset", "fast", "-x265-params", "log-level=error")}, _VIDEO, "yuv420p", crf=20, worst=51
    ),
    "vp9": Codec(
        {"libvpx-vp9": ("-b:v", "0", "-cpu-used", "4", "-row-mt", "1")},
        (".webm", ".mkv", ".mp4"),
        "yuv420p",
        crf=30,
        worst=63,
    ),
    "av1": Codec(
        {"libsvtav1": ("-preset", "8"), "libaom-av1": ("-b:v", "0", "-cpu-used", "6", "-row-mt", "1")},
        (".webm", ".mkv", ".mp4"),
        "yuv420p",
        crf=30,
        worst=63,
    ),
    "prores": Codec({"prores_ks": ("-profile:v", "3", "-vendor", "apl0")}, (".mov", ".mkv"), "yuv422p10le"),
    "ffv1": Codec({"ffv1": ("-level", "3")}, (".mkv",), "bgr0"),
    "gif": Codec({"gif": ()}, (".gif",), "pal8"),
    "png": Codec({}, ("",), "rgb24"),
}
_MP4 = Container(
    "h264",
    (*_FIRST, "-f", "mp4"),
    frozenset({"aac", "ac3", "alac", "eac3", "flac", "mp3", "opus"}),
    _AAC,
)
CONTAINERS = {
    ".mp4": _MP4,
    ".m4v": _MP4,
    ".mov": Container(
        "h264",
        (*_FIRST, "-f", "mov"),
        frozenset({"aac", "ac3", "alac", "eac3", "mp3", "pcm_s16be", "pcm_s16le", "pcm_s24be", "pcm_s24le"}),
        _AAC,
    ),
    ".mkv": Container(
        "h264",
        ("-f", "matroska"),
        frozenset({"aac", "ac3", "dts", "eac3", "flac", "mp2", "mp3", "opus", "pcm_s16le", "pcm_s24le", "vorbis"}),
        _AAC,
    ),
    ".webm": Container("vp9", ("-f", "webm"), frozenset({"opus", "vorbis"}), ("-c:a", "libopus", "-b:a", "128k")),
    ".gif": Container("gif", ("-f", "gif")),
    "": Container("png", ()),
}


def _check_sequence(path: Path, overwrite: Overwrite) -> None:
    if not taken(path):
        return
    if not path.is_dir():
        what = "a file" if path.exists() else "a link to nothing"
        raise InputError(f"{path} is {what}: choose another name for the folder of pictures")
    if not is_our_sequence(path):
        raise InputError(f"{path} holds other files: choose a new or an empty folder")
    if (path.is_symlink() or any(path.iterdir())) and not may_replace(path, overwrite):
        raise exists_already(path)
